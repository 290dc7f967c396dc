"""The public API: `import talkjax` is light, and its names are imported when they are used."""

import importlib.metadata
import subprocess
import sys

import pytest

import talkjax
from talkjax import media
from talkjax.errors import UserError


def python(code):
    """Runs code in a new process and returns its stdout."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_needs_neither_jax_nor_video(repository, monkeypatch):
    monkeypatch.chdir(repository)
    heavy = ("jax", "flax", "av", "cv2", "librosa", "numpy")
    loaded = f"[name for name in {heavy} if name in sys.modules]"
    assert python(f"import sys, talkjax; print({loaded})").strip() == "[]"


def test_names():
    from talkjax.sampling.sampler import Sampler

    assert talkjax.Sampler is Sampler and talkjax.UserError is UserError
    assert talkjax.Options(steps=3).steps == 3 and talkjax.Summary.__name__ == "Summary"
    for name in set(talkjax.__all__) - {"__version__"}:
        assert getattr(talkjax, name).__name__ == name
    assert set(talkjax.__all__) <= set(dir(talkjax))
    with pytest.raises(AttributeError, match="no attribute 'sampler_'"):
        _ = talkjax.sampler_


def test_version(monkeypatch):
    assert talkjax.__version__ == importlib.metadata.version("talkjax")

    def not_found(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_found)
    assert talkjax.__version__ == "0+unknown"


@pytest.mark.parametrize("name", ["av", "librosa", "cv2"])
def test_missing_package_names_the_extra(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"needs {name}; run `pip install talkjax\[video\]`"):
        media.check_packages()


def test_sampler_without_video_packages(repository, monkeypatch):
    """Networks can be used without them; only `generate` needs them."""
    monkeypatch.chdir(repository)
    code = """
import sys
sys.modules.update(av=None, cv2=None, librosa=None, soxr=None)
import talkjax
assert talkjax.Options(steps=2).steps == 2
try:
    talkjax.Sampler.generate(None, audio="a.wav", out="o.mp4")
except talkjax.UserError as error:
    print(error)
"""
    assert "av, cv2, librosa, soxr; run `pip install talkjax[video]`" in python(code)
