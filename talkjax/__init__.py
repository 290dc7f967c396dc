"""Audio-driven talking-face synthesis in JAX.

    import talkjax

    sampler = talkjax.Sampler.from_pretrained()
    sampler.generate(video="person.mp4", audio="speech.wav", out="talking.mp4")

This module is the public API. Its names are imported when they are first used, so that
`import talkjax` is fast and needs neither JAX nor a video library.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from talkjax.errors import UserError
    from talkjax.personalization.personalize import personalize
    from talkjax.sampling.avatar import Avatar
    from talkjax.sampling.avatar_preparation import prepare_avatar
    from talkjax.sampling.options import Options
    from talkjax.sampling.output_queue import StreamItem
    from talkjax.sampling.sampler import Sampler
    from talkjax.sampling.session import Session
    from talkjax.sampling.summary import Summary

    __version__: str

__all__ = [
    "Avatar", "Options", "Sampler", "Session", "StreamItem", "Summary", "UserError", "__version__",
    "personalize", "prepare_avatar",
]  # fmt: skip

_MODULES = {
    "Avatar": "talkjax.sampling.avatar",
    "Options": "talkjax.sampling.options",
    "Sampler": "talkjax.sampling.sampler",
    "Session": "talkjax.sampling.session",
    "StreamItem": "talkjax.sampling.output_queue",
    "Summary": "talkjax.sampling.summary",
    "UserError": "talkjax.errors",
    "personalize": "talkjax.personalization.personalize",
    "prepare_avatar": "talkjax.sampling.avatar_preparation",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return importlib.metadata.version("talkjax")
        except importlib.metadata.PackageNotFoundError:
            return "0+unknown"
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
