# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.13.0", "numpy==2.4.6", "safetensors==0.8.0"]
# ///
"""Converts a PyTorch file to safetensors; `talkjax.torch_files.load` runs it.

    python script.py FILE.pth OUT.safetensors

It runs where talkjax is not installed, so it imports nothing of it. A file that cannot be
converted ends it with exit code 3 and the reason, one line that continues the file's name, on
stdout.
"""

import os
import re
import sys
from typing import Any

REFUSED = 3  # exit code; uv's and Python's own failures have others
OLDEST_TORCH = (2, 6)  # weights_only=True of earlier versions could be made to run code
MAX_VALUES = 100_000
MAX_DEPTH = 8
MAX_GROWTH = 16  # times the file's size; tensors may share storages, but not without limit
_ADVICE = "save the model's state_dict() instead"
_DAMAGED = "it is damaged or not a file of weights; download it again"


class RefusedError(Exception):
    """What is wrong with the file and what to do, as the rest of a sentence about it."""


def main(source: str, out: str) -> None:
    """Converts one file.

    Raises:
      RefusedError: The file cannot be converted.
    """
    try:
        import safetensors.torch
        import torch
    except ImportError as error:
        raise RefusedError(
            f"cannot be read by {sys.executable} ({error}); `pip install torch numpy safetensors` "
            "there, or name another interpreter"
        ) from error
    check_version(torch.__version__)
    try:
        tree = torch.load(source, weights_only=True, map_location="cpu")
    except Exception as error:  # a hostile file can raise anything
        raise RefusedError(reason_of(error)) from error
    tensors = named_tensors(tree, torch.Tensor)
    needed = sum(value.numel() * value.element_size() for value in tensors.values())
    if needed > MAX_GROWTH * os.path.getsize(source):
        raise RefusedError(
            f"describes {needed} bytes of tensors, far more than it holds; {_DAMAGED}"
        )
    try:
        safetensors.torch.save_file(
            {name: value.detach().clone().contiguous() for name, value in tensors.items()}, out
        )
    except Exception as error:  # sparse, quantized, ... or no space left
        raise RefusedError(
            f"cannot be converted to safetensors ({first_line(error)}); {_ADVICE}"
        ) from error


def check_version(version: str) -> None:
    """Raises `RefusedError` for a PyTorch whose restricted loading is not safe."""
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST_TORCH:
        raise RefusedError(
            f"is not read by PyTorch {version}, which may run code in it; use PyTorch 2.6 or later"
        )


def reason_of(error: Exception) -> str:
    """Returns why `torch.load` failed: its messages are pages long, with one line that matters."""
    text = str(error)
    needs = re.search(r"GLOBAL ([\w.]+)", text)
    if needs:
        return f"needs {needs[1]}, and only tensors are read; {_ADVICE}"
    if "TorchScript" in text:
        return f"is a TorchScript program, and only tensors are read; {_ADVICE}"
    refused = re.search(r"WeightsUnpickler error:\s*(.+)", text)
    detail = refused[1][:100] if refused else first_line(error)
    return f"cannot be read as a PyTorch file ({detail}); {_DAMAGED}"


def first_line(error: Exception) -> str:
    """Returns the start of an exception's message, or its class where there is none."""
    lines = str(error).strip().splitlines()
    return lines[0][:100] if lines else type(error).__name__


def named_tensors(tree: Any, tensor_type: type) -> dict[str, Any]:
    """Returns the tensors of nested mappings and lists, their names joined by dots.

    Raises:
      RefusedError: There are no tensors, too many values, or names that coincide.
    """
    if isinstance(tree, dict) and isinstance(tree.get("state_dict"), dict):
        tree = tree["state_dict"]
    if not isinstance(tree, dict):
        raise RefusedError(f"does not hold a mapping of names to tensors; {_ADVICE}")
    found: dict[str, Any] = {}
    pending: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    seen = 0
    while pending:
        parents, value = pending.pop()
        seen += 1
        if seen + len(pending) > MAX_VALUES or len(parents) > MAX_DEPTH:
            raise RefusedError(f"holds too many values, or nests them too deeply; {_ADVICE}")
        if isinstance(value, tensor_type):
            name = ".".join(parents)
            if name in found:
                raise RefusedError(f"holds two tensors named {name[:100]!r}; {_ADVICE}")
            found[name] = value
        elif isinstance(value, dict):
            pending += [((*parents, str(key)), inner) for key, inner in value.items()]
        elif isinstance(value, list | tuple):
            pending += [((*parents, str(i)), inner) for i, inner in enumerate(value)]
    if not found:
        raise RefusedError(f"holds no tensors; {_DAMAGED}")
    return found


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except RefusedError as refusal:
        print(" ".join(str(refusal).split()))
        sys.exit(REFUSED)
