"""PyTorch files: what the script makes of them, and what the client makes of the script."""

import ast
import importlib.util
import os
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from talkjax import torch_files, uv_scripts
from talkjax.errors import UserError
from talkjax.torch_files import reader, script
from tests import torch_python

GOLDEN = Path(__file__).parent / "golden"


def refused(path, python, match):
    with pytest.raises(UserError, match=match) as error:
        torch_files.load(path, python)
    text = str(error.value)
    assert "\n" not in text and ";" in text and str(path) in text and len(text) < 800
    return text


# ---- with PyTorch -------------------------------------------------------------------------------


@torch_python.needed
@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("name", ["tensors", "nested"])
def test_tensors_of_torch(name, kind):
    found = torch_files.load(GOLDEN / f"{name}_{kind}.pth", torch_python.PATH)
    with np.load(GOLDEN / f"{name}.npz") as expected:
        assert sorted(found) == sorted(expected.files)
        for key, value in found.items():
            np.testing.assert_array_equal(value.astype(expected[key].dtype), expected[key])
            kept = "bfloat16" if key == "bfloat16" else expected[key].dtype.name
            assert value.dtype.name == kept and value.shape == expected[key].shape


@torch_python.needed
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00true\x85R.", r"needs posix\.system"),
        (b"\x80\x02}.", "cannot be read as a PyTorch file"),  # a bare pickle
        (b"no weights " * 50, "PyTorch file"),
        (b"", "EOFError"),
        ((GOLDEN / "tensors_zip.pth").read_bytes()[:-100], "PyTorch file"),
        ((GOLDEN / "tensors_legacy.pth").read_bytes()[:-100], "EOF"),
        # The same file, but one tensor is made by os.system.
        (
            (GOLDEN / "nested_legacy.pth").read_bytes().replace(
                b"ctorch._utils\n_rebuild_tensor_v2\n", b"cposix\nsystem\n", 1
            ),
            r"needs posix\.system",
        ),
    ],
)  # fmt: skip
def test_hostile_and_damaged_files(tmp_path, content, match):
    path = tmp_path / "f.pth"
    path.write_bytes(content)
    refused(path, torch_python.PATH, match)


@torch_python.needed
def test_a_whole_model_is_refused():
    match = r"needs torch\.nn.*Sequential.*state_dict"
    refused(GOLDEN / "module_zip.pth", torch_python.PATH, match)


# ---- the script's parts -------------------------------------------------------------------------


def test_the_script_stands_alone():
    """It runs where only its pinned dependencies are installed."""
    text = reader.SCRIPT.read_text()
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"torch", "safetensors"}
    header = text.split("# ///")[1].removeprefix(" script")
    metadata = tomllib.loads("\n".join(line.lstrip("# ") for line in header.splitlines()))
    assert all("==" in pin for pin in metadata["dependencies"])
    assert "weights_only=True" in text and "weights_only=False" not in text


def test_names_of_nested_tensors():
    a, b, c, d = (np.full(1, i) for i in range(4))
    tree = {"net": {"w": a}, "list": [b, (c, None)], 7: d, "epoch": 3}
    found = script.named_tensors(tree, np.ndarray)
    assert found == {"net.w": a, "list.0": b, "list.1.0": c, "7": d}
    assert script.named_tensors({"state_dict": {"w": a}, "other": b}, np.ndarray) == {"w": a}


def endless():
    tree = {}
    tree["a"] = tree
    return tree


def doubled():
    leaf = [np.zeros(1)]
    for _ in range(7):
        leaf = [leaf] * 50
    return {"a": leaf}


@pytest.mark.parametrize(
    ("tree", "match"),
    [
        ([np.zeros(1)], "does not hold a mapping"),
        ({"epoch": 1}, "no tensors"),
        ({1: np.zeros(1), "1": np.ones(1)}, "two tensors named '1'"),
        (endless(), "too deeply"),
        (doubled(), "too many values"),
    ],
)
def test_trees_that_are_refused(tree, match):
    with pytest.raises(script.RefusedError, match=match):
        script.named_tensors(tree, np.ndarray)


@pytest.mark.parametrize("version", ["1.13.1", "2.5.1+cu121"])
def test_torch_that_may_run_code_is_refused(version):
    with pytest.raises(script.RefusedError, match=r"PyTorch 2\.6 or later"):
        script.check_version(version)


@pytest.mark.parametrize("version", ["2.6.0", "2.13.0+cpu", "3.0.0a0"])
def test_torch_that_is_safe(version):
    script.check_version(version)


# ---- the client ---------------------------------------------------------------------------------


@pytest.fixture
def fake_python(tmp_path):
    """Makes an interpreter that runs `body` instead of the script."""

    def make(body):
        path = tmp_path / "fake_python"
        path.write_text(
            f"#!{sys.executable}\nimport sys\nscript, source, out = sys.argv[1:]\n{body}"
        )
        path.chmod(0o755)
        return path

    return make


def test_the_script_is_given_absolute_paths(fake_python, tmp_path, monkeypatch):
    (tmp_path / "f.pth").touch()
    monkeypatch.chdir(tmp_path)
    python = fake_python(
        "import os, numpy, safetensors.numpy\n"
        "assert os.path.isabs(source) and script.endswith('script.py')\n"
        "safetensors.numpy.save_file({'w': numpy.arange(3)}, out)\n"
    )
    found = torch_files.load("f.pth", python)
    np.testing.assert_array_equal(found["w"], np.arange(3))


@pytest.mark.parametrize(
    ("body", "match"),
    [
        ("print('is bad; save it again')\nsys.exit(3)", r"f\.pth is bad; save it again$"),
        ("raise ValueError('odd')", r"exit code 1 \(ValueError: odd\); .*python=PATH"),
        ("import os; os.kill(os.getpid(), 9)", r"exit code -9 \(no message\)"),
        ("sys.exit(0)", "wrote no tensors"),
        ("open(out, 'wb').write(b'junk' * 100)", "wrote no tensors"),
    ],
)
def test_scripts_that_fail(fake_python, tmp_path, body, match):
    path = tmp_path / "f.pth"
    path.touch()
    refused(path, fake_python(body), match)


def test_interpreters_that_cannot_be_used(tmp_path):
    path = tmp_path / "f.pth"
    path.touch()
    with pytest.raises(UserError, match=r"cannot start .*none .*python=PATH"):
        torch_files.load(path, tmp_path / "none")
    with pytest.raises(UserError, match="weights not found"):
        torch_files.load(tmp_path / "other.pth", sys.executable)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_an_interpreter_without_torch():
    refused(
        GOLDEN / "nested_zip.pth", sys.executable, r"No module named 'torch'.*pip install torch"
    )


def test_uv_runs_the_cpu_build(fake_python, tmp_path, monkeypatch):
    uv = tmp_path / "uv"
    uv.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "assert sys.argv[1:3] == ['tool', 'run'] and '--torch-backend=cpu' in sys.argv\n"
        "assert sys.argv[-4] == 'python'\nprint(f'was read by uv; {sys.argv[-2]}')\nsys.exit(3)\n"
    )
    uv.chmod(0o755)
    monkeypatch.setattr(uv_scripts, "find_uv", lambda purpose: str(uv))
    refused(GOLDEN / "nested_zip.pth", None, "was read by uv")


def test_without_uv(monkeypatch):
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="pip install uv"):
        torch_files.load(GOLDEN / "nested_zip.pth")


def test_environment_is_cleaned():
    dirty = {
        "PATH": "/bin", "HOME": "/h", "VIRTUAL_ENV": "/v", "PYTHONPATH": "/p", "PYTHONHOME": "/q",
        "UV_PROJECT_ENVIRONMENT": "/e", "UV_CONSTRAINT": "c", "UV_PYTHON": "3.9", "UV_FROZEN": "1",
        "UV_CACHE_DIR": "/c", "UV_INDEX_URL": "i", "UV_OFFLINE": "1", "HTTPS_PROXY": "x",
    }  # fmt: skip
    clean = uv_scripts.clean_environment(dirty)
    assert set(dirty) - set(clean) == {
        "VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_PROJECT_ENVIRONMENT", "UV_CONSTRAINT",
        "UV_PYTHON", "UV_FROZEN",
    }  # fmt: skip
    assert clean["PATH"].startswith("/bin" + os.pathsep)
