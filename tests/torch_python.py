"""The Python interpreter with PyTorch that some tests need; it is too large to install for them."""

import importlib.util
import os
import sys

import pytest

_HAS_TORCH = importlib.util.find_spec("torch") is not None
PATH = os.environ.get("TALKJAX_TORCH_PYTHON") or (sys.executable if _HAS_TORCH else None)
needed = pytest.mark.skipif(
    PATH is None,
    reason="TALKJAX_TORCH_PYTHON does not name an interpreter with torch, numpy and safetensors",
)
