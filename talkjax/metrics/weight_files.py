"""Identifies the weight files that metrics are computed with, so that reports can name them."""

import dataclasses
import os
import re
from pathlib import Path

from talkjax.errors import UserError
from talkjax.metrics import workspace

# SHA-256 -> (name, flags that accept the file).
KNOWN = {
    "d74c5f8018d663df5fcd98dadaf34bcda82bf0f397a0cf8e6224c863e04ac894": (
        "LPIPS v0.1 SqueezeNet 1.1", ("lpips", "fid")
    ),
    "b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507": (
        "MobileFaceNet (ONNX)", ("face_embedding",)
    ),
}  # fmt: skip
_PINNED = re.compile(r"(.+)@([0-9a-fA-F]{64})", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """A file of weights.

    Attributes:
      path: Path of the file.
      sha256: SHA-256 of its contents, 64 hexadecimal digits.
      name: Name for reports; for an unknown file, its own name and eight digits of the hash.
    """

    path: Path
    sha256: str
    name: str


def identify_weights(spec: str | os.PathLike, kind: str) -> WeightFile:
    """Finds and identifies the weight file that a flag names.

    Args:
      spec: "FILE", or "FILE@HEX64" with the SHA-256 that the file must have.
      kind: Flag without dashes: "lpips", "face_embedding", "fid" or "sync_expert".

    Raises:
      UserError: There is no such file, its hash differs, or it is known to be of another kind.
    """
    spec = os.fspath(spec)
    pinned = _PINNED.fullmatch(spec)
    path = Path(pinned[1] if pinned else spec)
    if not path.is_file():
        name, at, tail = spec.rpartition("@")
        if at and not pinned and Path(name).is_file():
            raise UserError(
                f"--{kind}={spec}: {tail[:80]!r} is not a SHA-256; write FILE@ and its 64 digits"
            )
        raise UserError(f"--{kind}={path} not found; check the path")
    found = workspace.hash_file(path)
    if pinned and found != pinned[2].lower():
        raise UserError(
            f"--{kind}={path} has SHA-256 {found}, not {pinned[2].lower()} as given; "
            "download it again, or correct the hash"
        )
    name, kinds = KNOWN.get(found, (f"{path.name} {found[:8]}", (kind,)))
    if kind not in kinds:
        flags = " or ".join(f"--{k}" for k in kinds)
        raise UserError(f"--{kind}={path} is {name}; give it as {flags}")
    return WeightFile(path, found, name)
