"""README and the documents beside it name commands, flags and fields that exist."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md", "docs/data.md", "docs/multi_host.md", "docs/scaling.md", "docs/weights.md",
    "talkjax/assets/sync_demo/README.md",
)  # fmt: skip
_FLAG = re.compile(r"--([A-Za-z_0-9.]+)(?:=(.*))?$")
_DEFINED = re.compile(r'\(\s*"(?:--)?(\w+)",')  # absl's and argparse's definitions
# Of `uv run` itself; named in a loop; of ml_collections.
_OTHERS = {"extra", "config", "lpips", "face_embedding", "fid", "sync_expert"}


def commands():
    """(document, source file, arguments) of every command in a code block."""
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
        lines = re.findall(r"^(?:    |)((?:uv run |train\.py ).*)$", text, re.MULTILINE)
        for line in lines:
            words = shlex.split(line, comments=True)
            words = words[words.index("run") + 1 :] if words[0] == "uv" else words
            if words[:1] == ["--extra"]:
                words = words[2:]
            if words[0] == "-m":
                path = ROOT / (words[1].replace(".", "/") + ".py")
                package = path.with_suffix("") / "__main__.py"
                yield name, path if path.exists() else package, words[2:]
            elif words[0].endswith(".py"):
                yield name, ROOT / words[0], words[1:]


COMMANDS = list(commands())


def test_the_documents_hold_commands():
    found = {path.name for _, path, _ in COMMANDS}
    assert {"train.py", "sample.py", "evaluate.py", "prepare.py", "ablate.py"} <= found
    assert {"convert_weights.py", "__main__.py", "synthesize.py"} <= found
    assert len(COMMANDS) > 20


@pytest.mark.parametrize(
    ("document", "path", "words"), COMMANDS, ids=[f"{d}-{p.stem}" for d, p, _ in COMMANDS]
)
def test_its_flags_exist(document, path, words):
    source = path.read_text(encoding="utf-8")
    known = set(_DEFINED.findall(source)) | _OTHERS
    config = None
    for word in words:
        found = _FLAG.match(word.strip("[]"))
        if not found or "..." in word:
            continue
        name, value = found.groups()
        if name == "config":
            file, _, stage = value.partition(":")
            module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
            config = module.get_config(stage) if stage else module.get_config()
        elif name.startswith("config."):
            assert config is not None, f"{document}: --{name} before --config"
            part = config
            for field in name.split(".")[1:]:
                assert field in part, f"{document}: {name}"
                part = part[field]
        else:
            assert name in known, f"{document}: {path.name} has no --{name}"
