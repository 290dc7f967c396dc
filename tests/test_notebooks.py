"""The notebooks are valid, hold no outputs, and use only what exists; slow: they run.

uv run --group docs pytest -m slow tests/test_notebooks.py

With TALKJAX_NOTEBOOKS_OUT=DIR the notebooks are written there as they ran.
"""

import ast
import importlib
import inspect
import json
import os
import re
import shlex
from pathlib import Path

import pytest

from tests.test_readme import SCRIPTS, check_flags, command_module

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# Names that notebooks get from `pipelines.load`, and the modules that they stand for.
PIPELINES = {
    name: f"data_pipelines.{name}"
    for name in ("synthesize", "prepare", "cache_latents", "synthesize_speech")
}


def code_of(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_there_are_four():
    assert [path.stem for path in NOTEBOOKS] == ["personalize", "sample", "tpu", "train_demo"]


@each_notebook
def test_it_is_a_valid_notebook_without_outputs(path):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None


def _text(node):
    """The text of a string, with `{name}` of f-strings as it stands there."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            x.value if isinstance(x, ast.Constant) else "{" + ast.unparse(x.value) + "}"
            for x in node.values
        )
    return ""


def commands_of(tree):
    """(module, flags) of every `python -m MODULE ...`, and of lists of flags for `command.main`."""
    parts = {
        id(x) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for x in node.values
    }
    for node in ast.walk(tree):
        if id(node) not in parts and (text := _text(node)).startswith("python -m "):
            module, *flags = shlex.split(text)[2:]
            found = re.fullmatch(r"\{(\w+)\}", module)
            yield command_module(PIPELINES[found[1]] if found else module), flags
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "command.main":
            yield SCRIPTS["train.py"], [_text(flag) for flag in node.args[0].elts]


@each_notebook
def test_its_commands_have_the_flags_and_fields(path):
    commands = list(commands_of(ast.parse("\n".join(code_of(path)))))
    assert commands or path.stem == "sample"
    for module, flags in commands:
        check_flags(path.name, module, flags)


def _resolve(name, known):
    """What a dotted name stands for, or None if it does not begin with an import of ours."""
    first, *rest = name.split(".")
    if first not in known or not re.fullmatch(r"[\w.]+", name):
        return None
    value = known[first]
    for part in rest:
        value = (
            inspect.getattr_static(value, part) if inspect.isclass(value) else getattr(value, part)
        )
        value = getattr(value, "__func__", value)
    return value


@each_notebook
def test_its_names_and_arguments_exist(path):
    tree = ast.parse("\n".join(code_of(path)))
    known, checked = {}, 0
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "talkjax":
            module = importlib.import_module(node.module)
            for alias in node.names:
                try:
                    known[alias.asname or alias.name] = getattr(module, alias.name)
                except AttributeError:
                    whole = f"{node.module}.{alias.name}"
                    known[alias.asname or alias.name] = importlib.import_module(whole)
        elif isinstance(node, ast.Import) and any(a.name == "talkjax" for a in node.names):
            known["talkjax"] = importlib.import_module("talkjax")
    if "sampler = talkjax.Sampler" in ast.unparse(tree):
        known["sampler"] = known["talkjax"].Sampler
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            _resolve(ast.unparse(node), known)  # raises AttributeError
        if isinstance(node, ast.Call) and (called := _resolve(ast.unparse(node.func), known)):
            parameters = inspect.signature(called).parameters
            for keyword in node.keywords:
                assert keyword.arg in parameters, f"{ast.unparse(node.func)}({keyword.arg}=)"
            checked += 1
    assert checked


@pytest.mark.slow
@each_notebook
def test_it_runs(path, tmp_path, monkeypatch):
    """With small settings, on the CPU, in a folder of its own and with this checkout's package."""
    nbformat = pytest.importorskip("nbformat")
    reason = "needs the group docs: `uv run --group docs pytest -m slow tests/test_notebooks.py`"
    nbclient = pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    monkeypatch.setenv("TALKJAX_SMALL", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    (tmp_path / "configs").symlink_to(ROOT / "configs")  # an installed package brings its own
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=1800, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    if folder := os.environ.get("TALKJAX_NOTEBOOKS_OUT"):
        nbformat.write(notebook, Path(folder, path.name))
    shown = [x for cell in notebook.cells for x in cell.get("outputs", ()) if "data" in x]
    kinds = {kind for output in shown for kind in output["data"]}
    assert kinds & {"text/html", "image/png"}, "it shows nothing"
