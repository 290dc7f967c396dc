"""The label in every file that sampling writes: that it is synthetic, and what made it."""

from __future__ import annotations

import importlib.metadata

SYNTHETIC = "synthetic: lip-synced"


def metadata(fingerprint: str) -> dict[str, str]:
    """Returns the tags of the container.

    They are one comment, because that is the tag which all containers have and players show.

    Args:
      fingerprint: `Sampler.fingerprint` of the checkpoint.

    Returns:
      {"comment": "synthetic: lip-synced; tool: talkjax 0.1.0; checkpoint: 0123456789abcdef"}
    """
    return {"comment": f"{SYNTHETIC}; tool: talkjax {version()}; checkpoint: {fingerprint}"}


def read(comment: str) -> dict[str, str]:
    """Splits the comment of a file into its fields; none if it is another comment."""
    parts = [part.partition(": ") for part in comment.split("; ")]
    fields = {name: value for name, _, value in parts}
    return fields if "synthetic" in fields else {}


def version() -> str:
    """Returns the version of this package."""
    try:
        return importlib.metadata.version("talkjax")
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return "0+unknown"
