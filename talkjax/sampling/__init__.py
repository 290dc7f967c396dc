"""Sampling: `Sampler` works on files, `generate_regions` on arrays.

The names below are imported when they are first used, because `Sampler` imports JAX and the command
line must not.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from talkjax.sampling.options import Options
    from talkjax.sampling.regions import Reference, encode_reference, generate_regions
    from talkjax.sampling.sampler import Sampler
    from talkjax.sampling.summary import Summary

__all__ = [
    "Options", "Reference", "Sampler", "Summary", "encode_reference", "generate_regions",
]  # fmt: skip

_MODULES = {
    "Options": "options",
    "Reference": "regions",
    "Sampler": "sampler",
    "Summary": "summary",
    "encode_reference": "regions",
    "generate_regions": "regions",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
