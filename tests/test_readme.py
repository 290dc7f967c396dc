"""README and the documents beside it name commands, flags and fields that exist."""

import contextlib
import importlib
import re
import shlex
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (
    "README.md", "docs/data.md", "docs/multi_host.md", "docs/provenance.md", "docs/scaling.md",
    "docs/streaming.md", "docs/weights.md", "docs/web.md", "talkjax/assets/sync_demo/README.md",
)  # fmt: skip
_FLAG = re.compile(r"--([A-Za-z_0-9.]+)(?:=(.*))?$")
SCRIPTS = {
    "train.py": "talkjax.training.command",
    "sample.py": "talkjax.sampling.command",
    "evaluate.py": "talkjax.metrics.command",
    "talkjax-web": "talkjax.web.command",
}


def commands():
    """(document, module of the command, arguments) of every command in a code block."""
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^ *((?:uv run |train\.py |python -m ).*)$", text, re.MULTILINE):
            words = shlex.split(line, comments=True)
            words = words[words.index("run") + 1 :] if words[0] == "uv" else words
            words = words[2:] if words[:1] == ["--extra"] else words
            words = words[1:] if words[:1] == ["python"] else words
            if words[0] == "-m":
                module = words[1]
                if (ROOT / module.replace(".", "/")).is_dir():
                    package = ROOT / module.replace(".", "/")
                    module += ".command" if (package / "command.py").exists() else ".__main__"
                yield name, module, words[2:]
            elif words[0] in SCRIPTS:
                yield name, SCRIPTS[words[0]], words[1:]


COMMANDS = list(commands())


def test_the_documents_hold_commands():
    found = {module for _, module, _ in COMMANDS}
    assert {*SCRIPTS.values(), "talkjax.export", "talkjax.ablate"} <= found
    assert {"data_pipelines.prepare", "data_pipelines.synthesize"} <= found
    assert {"talkjax.convert_weights", "talkjax.compile_ahead.command"} <= found
    assert len(COMMANDS) > 20


@pytest.mark.parametrize(
    ("document", "module", "words"), COMMANDS, ids=[f"{d}-{m}" for d, m, _ in COMMANDS]
)
def test_its_flags_exist(document, module, words):
    command = importlib.import_module(module)
    if not hasattr(command, "make_parser"):
        pytest.skip(f"{module} has no flags of its own")
    known = command.make_parser()._option_string_actions
    config = None
    for word in words:
        found = _FLAG.match(word.strip("[]"))
        if not found or "..." in word:
            continue
        name, value = found.groups()
        if name.startswith("config."):
            assert config is not None, f"{document}: --{name} before --config"
            part = config
            for field in name.split(".")[1:]:
                assert field in part, f"{document}: {name}"
                part = part[field]
            continue
        assert f"--{name}" in known, f"{document}: {module} has no --{name}"
        if name == "config":
            file, _, stage = value.partition(":")
            experiment = importlib.import_module(file.removesuffix(".py").replace("/", "."))
            config = experiment.get_config(stage) if stage else experiment.get_config()


def test_python_code_of_the_readme_runs(monkeypatch):
    import talkjax

    made, prepared, shown = [], [], []

    class Session(contextlib.nullcontext):
        """One item, and what a session is told."""

        def __init__(self, avatar, rate):
            super().__init__(self)
            self.told = [avatar, rate]

        def push_audio(self, samples):
            self.told.append(samples)

        def flush(self):
            self.told.append("flush")

        def __iter__(self):
            return iter([types.SimpleNamespace(frame=self.told, sound=None)])

    monkeypatch.setattr(talkjax.Sampler, "generate", lambda self, **files: made.append(files))
    monkeypatch.setattr(talkjax.Sampler, "stream", Session)
    prepare = lambda *files, sampler: prepared.append(files)  # noqa: E731
    monkeypatch.setattr(talkjax, "prepare_avatar", prepare, raising=False)
    names = {"samples": "samples", "show": lambda *item: shown.append(item)}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL):
        exec(compile(code, "README.md", "exec"), dict(names))  # noqa: S102, it is our own
    assert made == [{"video": "template.mp4", "audio": "speech.wav", "out": "out.mp4"}]
    assert prepared == [("person.mp4", "person.safetensors")]
    assert shown == [(["person.safetensors", 24000, "samples", "flush"], None)]
