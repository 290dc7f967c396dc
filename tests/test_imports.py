"""Who may import whom, and what the training path may need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("train", "sample", "evaluate")
CORE = {"talkjax.errors", "talkjax.commands", "talkjax.conventions", "talkjax.files"}
WEIGHTS = {
    "talkjax.weights",
    "talkjax.runs",
    "talkjax.networks",
    "talkjax.models",
    "talkjax.diffusion",
}

# Package or module -> what of this project it may import (besides itself).
ALLOWED = {
    "talkjax.errors": set(),
    "talkjax.commands": {"talkjax.errors"},
    "talkjax.conventions": set(),
    "talkjax.files": {"talkjax.errors"},
    "talkjax.configuration": {"talkjax.errors"},
    "talkjax.smoothing": set(),
    "talkjax.head_pose": {"talkjax.conventions", "talkjax.smoothing"},
    "talkjax.pictures": {"talkjax.files"},
    "talkjax.pipelines": {"talkjax.errors"},
    "talkjax.prepare": {"talkjax.errors", "talkjax.pipelines"},
    "talkjax.personalization": CORE
    | WEIGHTS
    | {
        "talkjax.configuration",
        "talkjax.data",
        "talkjax.export",
        "talkjax.head_pose",
        "talkjax.media",
        "talkjax.metrics",
        "talkjax.pipelines",
        "talkjax.sampling",
        "talkjax.training",
    },
    "talkjax.data": CORE | {"talkjax.head_pose", "talkjax.models"},
    "talkjax.uv_scripts": {"talkjax.errors"},
    "talkjax.torch_files": CORE | {"talkjax.uv_scripts"},
    "talkjax.convert_weights": CORE | {"talkjax.weights", "talkjax.torch_files", "talkjax.metrics"},
    "talkjax.models": {"talkjax.conventions"},
    "talkjax.diffusion": {"talkjax.models"},
    "talkjax.media": CORE | {"talkjax.head_pose", "talkjax.uv_scripts"},
    "talkjax.networks": CORE | {"talkjax.models", "talkjax.diffusion"},
    "talkjax.weights": CORE | {"talkjax.models"},
    "talkjax.runs": CORE | {"talkjax.configuration", "talkjax.weights"},
    "talkjax.hub": CORE | {"talkjax.weights"},
    "talkjax.export": CORE | {"talkjax.hub", "talkjax.runs", "talkjax.weights"},
    "talkjax.training": CORE
    | WEIGHTS
    | {"talkjax.configuration", "talkjax.data", "talkjax.pictures"},
    # The command draws a contact sheet, and personalizes.
    "talkjax.sampling.command": CORE
    | {
        "talkjax.media",
        "talkjax.sampling",
        "talkjax.metrics",
        "talkjax.personalization",
        "talkjax.pictures",
    },
    "talkjax.provenance": CORE,
    "talkjax.livekit": CORE | {"talkjax.sampling"},
    "talkjax.sampling": CORE
    | WEIGHTS
    | {"talkjax.head_pose", "talkjax.hub", "talkjax.media", "talkjax.provenance"},
    "talkjax.metrics": CORE
    | WEIGHTS
    | {
        "talkjax.data",
        "talkjax.head_pose",
        "talkjax.media",
        "talkjax.pictures",
        "talkjax.sampling",
    },
    "talkjax.user_study": CORE | {"talkjax.media"},
    # The contact sheet is in metrics, and text is spoken by a pipeline.
    "talkjax.web": CORE
    | {
        "talkjax.media",
        "talkjax.metrics",
        "talkjax.pictures",
        "talkjax.pipelines",
        "talkjax.sampling",
    },
    "data_pipelines": CORE
    | WEIGHTS
    | {"talkjax.configuration", "talkjax.data", "talkjax.head_pose", "talkjax.media"},
    "talkjax.compile_ahead": CORE
    | WEIGHTS
    | {"talkjax.configuration", "talkjax.training", "talkjax.sampling"},
    "talkjax.ablate": CORE
    | {
        "talkjax.data",
        "talkjax.metrics",
        "talkjax.export",
        "talkjax.sampling",
        "talkjax.training",
    },
    "configs": {"talkjax.configuration"},
}
ACCELERATOR = ("jax", "jaxlib", "flax", "optax", "orbax", "grain", "ml_collections")
FORBIDDEN = {
    "talkjax.conventions": (*ACCELERATOR, "os", "io", "json", "etils"),
    "talkjax.files": ACCELERATOR,
    "talkjax.pictures": ACCELERATOR,
    "talkjax.media": ACCELERATOR,
    "talkjax.provenance": ACCELERATOR,
    "talkjax.models": ("ml_collections", "os", "pathlib", "io", "json", "safetensors"),
    "talkjax.diffusion": ("ml_collections", "os", "pathlib", "io", "json", "flax", "safetensors"),
}


def python_files():
    for package in ("talkjax", "data_pipelines", "configs"):
        yield from sorted((ROOT / package).rglob("*.py"))
    yield from (path for name in SCRIPTS if (path := ROOT / f"{name}.py").exists())


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def absolute_module(path, node):
    """The module of a `from ... import`, relative or not."""
    if not node.level:
        return node.module
    package = module_name(path.parent / "__init__.py").split(".")
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


def imports_of(path):
    """Every module a file imports, whole names: `from a import b` gives a.b."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def within(name, package):
    return name == package or name.startswith(package + ".")


def layer_of(name):
    return next((layer for layer in ALLOWED if within(name, layer)), None)


@pytest.mark.parametrize("path", python_files(), ids=module_name)
def test_import_directions(path):
    name = module_name(path)
    layer = layer_of(name)
    for imported in imports_of(path):
        top = imported.partition(".")[0]
        assert top not in ("tests", *SCRIPTS), f"{name} imports {imported}"
        banned = FORBIDDEN.get(layer, ())
        assert top not in banned, f"{name} imports {imported}, which {layer} must not need"
        ours = top in ("talkjax", "data_pipelines", "configs")
        if ours and layer and not within(imported, layer):
            allowed = any(within(imported, other) for other in ALLOWED[layer])
            assert allowed, f"{name} imports {imported}: {layer} may use {sorted(ALLOWED[layer])}"


def test_every_module_has_a_layer():
    for path in python_files():
        name = module_name(path)
        assert layer_of(name) or name in ("talkjax", *SCRIPTS), f"say in ALLOWED where {name} is"


def test_models_open_no_file():
    for package in ("models", "diffusion"):
        for path in (ROOT / "talkjax" / package).rglob("*.py"):
            calls = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
            names = {n.func.id for n in calls if isinstance(n.func, ast.Name)}
            assert "open" not in names, path


TRAINING_PATH = """
import sys

class Blocked:
    names = {names!r}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(name + " is not there")

sys.meta_path.insert(0, Blocked())
import pkgutil, importlib
import talkjax.training
for module in pkgutil.iter_modules(talkjax.training.__path__):
    importlib.import_module("talkjax.training." + module.name)
import talkjax.data.loader
import train
from configs import person_128
from talkjax.training import stages
stages.make_stage(person_128.get_config())
print("imported")
"""


def test_the_training_path_needs_no_media_libraries():
    """On a bare accelerator image only what design and README name is there."""
    absent = {
        "librosa", "av", "cv2", "tensorflow_datasets", "tensorflow", "apache_beam", "mediapipe",
        "PIL", "tqdm", "safetensors", "soundfile", "torch",
    }  # fmt: skip
    code = TRAINING_PATH.format(names=absent)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "imported", done.stderr[-2000:]
