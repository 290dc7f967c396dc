"""Published weights of the metrics, from PyTorch's files to safetensors.

    python -m talkjax.convert_weights lpips --out=lpips.safetensors squeezenet1_1.pth squeeze.pth
    python -m talkjax.convert_weights inception --out=inception.safetensors pt_inception.pth
    python -m talkjax.convert_weights syncnet --out=syncnet.safetensors syncnet_v2.model

docs/weights.md says where each file is found. Nothing is unpickled; names and shapes are checked;
the same input gives the same bytes.
"""

import functools
import hashlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy
from absl import app, flags

from talkjax import torch_files, weights
from talkjax.commands import parse_flags, run_main
from talkjax.errors import UserError
from talkjax.files import write_bytes
from talkjax.metrics import inception, lpips

Tensors = dict[str, np.ndarray]
Files = Sequence[tuple[Path, Tensors]]
Shapes = dict[str, tuple[int, ...]]

_HEADS = re.compile(r"(?:lin\.)?lin\d+\.model\.1\.weight")


# ---- kinds --------------------------------------------------------------------------------------


def lpips_tensors(files: Files) -> Tensors:
    """LPIPS v0.1: torchvision's SqueezeNet 1.1 and the heads of the lpips package, in any order."""
    heads = [f for f in files if all(_HEADS.fullmatch(name) for name in f[1])]
    trunks = [f for f in files if "features.0.weight" in f[1]]
    if len(files) != 2 or len(heads) != 1 or len(trunks) != 1:
        raise UserError(
            "lpips needs two files: torchvision's squeezenet1_1-*.pth and LPIPS v0.1's squeeze.pth"
        )
    tensors = {f"lin.{k.removeprefix('lin.')}": v for k, v in heads[0][1].items()}
    for name, value in trunks[0][1].items():
        if not name.startswith("classifier."):
            tensors[f"squeezenet.{name}"] = value
    where = " and ".join(str(path) for path, _ in (*trunks, *heads))
    return _checked(tensors, lpips.shapes(), where)


def inception_tensors(files: Files) -> Tensors:
    """pytorch-fid's Inception-v3, without its classifier."""
    path, tensors = _only(files, "inception", "pytorch-fid's pt_inception-2015-12-05-6726825d.pth")
    if "Mixed_7c.branch3x3dbl_3b.conv.weight" not in tensors or any(
        name.startswith("AuxLogits.") for name in tensors
    ):
        raise UserError(
            f"{path} is not pytorch-fid's Inception-v3; torchvision's own is another network, so "
            "give pt_inception-2015-12-05-6726825d.pth"
        )
    tensors = {k: v for k, v in tensors.items() if not k.startswith("fc.")}
    expected, _ = inception.shapes({name: value.shape for name, value in tensors.items()})
    return _checked(tensors, expected, path)


def syncnet_shapes() -> Shapes:
    """Name and shape of every tensor of SyncNet (SyncNetModel.py of joonson/syncnet_python)."""
    audio = [(64, 1, 3, 3), (192, 64, 3, 3), (384, 192, 3, 3), (256, 384, 3, 3)]
    audio += [(256, 256, 3, 3), (512, 256, 5, 4)]
    lips = [(96, 3, 5, 7, 7), (256, 96, 1, 5, 5), *[(256, 256, 1, 3, 3)] * 3, (512, 256, 1, 6, 6)]
    dense = [(512, 512), (1024, 512)]
    normalised = ("weight", "bias", "running_mean", "running_var")
    out = {}
    for net, kernels, places in (
        ("netcnnaud", audio, (0, 4, 8, 11, 14, 18)), ("netcnnlip", lips, (0, 4, 8, 11, 14, 18)),
        ("netfcaud", dense, (0, 3)), ("netfclip", dense, (0, 3)),
    ):  # fmt: skip
        for place, kernel in zip(places, kernels, strict=True):
            out[f"{net}.{place}.weight"] = kernel
            out[f"{net}.{place}.bias"] = kernel[:1]
            if kernel[0] != 1024:  # no normalisation behind the last layers
                out |= {f"{net}.{place + 1}.{leaf}": kernel[:1] for leaf in normalised}
    return out


def syncnet_tensors(files: Files) -> Tensors:
    """SyncNet, names and values as they are."""
    path, tensors = _only(files, "syncnet", "joonson/syncnet_python's syncnet_v2.model")
    return _checked(tensors, syncnet_shapes(), path)


def _only(files: Files, kind: str, what: str) -> tuple[Path, Tensors]:
    if len(files) != 1:
        raise UserError(f"{kind} needs one file: {what}")
    return files[0]


def _checked(tensors: Tensors, expected: Shapes, where: str | os.PathLike) -> Tensors:
    """The tensors as float32; how many batches a normalisation has seen is of no use."""
    tensors = {k: v for k, v in tensors.items() if not k.endswith(".num_batches_tracked")}
    weights.check_tensors({k: v.shape for k, v in tensors.items()}, expected, where)
    out = {}
    for name, value in sorted(tensors.items()):
        # safetensors writes the memory of a transposed array as it lies, silently wrong.
        out[name] = np.ascontiguousarray(value, np.float32).reshape(value.shape)
        if not np.isfinite(out[name]).all():
            raise UserError(f"{where}: {name} holds NaN or infinity; fetch the file again")
    return out


KINDS: dict[str, tuple[Callable[[Files], Tensors], str]] = {
    "lpips": (lpips_tensors, "evaluate.py --lpips={out} (or --fid={out})"),
    "inception": (inception_tensors, "evaluate.py --fid={out}"),
    "syncnet": (syncnet_tensors, "evaluate.py --sync_expert={out}"),
}


# ---- the command --------------------------------------------------------------------------------


def convert(kind: str, files: Sequence[str | os.PathLike], out: str | os.PathLike) -> str:
    """Converts published files.

    Args:
      kind: one of `KINDS`.
      files: of PyTorch.
      out: safetensors file to write, complete or not at all.

    Returns:
      What to tell the user: the SHA-256 of every file, and what takes the result.

    Raises:
      UserError: a file is missing, damaged or another than it should be; `out` cannot be written.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind {kind!r}; there are {', '.join(KINDS)}")
    make, use = KINDS[kind]
    out = Path(out)
    if any(out.resolve() == Path(file).resolve() for file in files):
        raise UserError(f"--out={out} is an input too; choose another name")
    tensors = make([(Path(file), torch_files.load(file)) for file in files])
    lines = [_described(Path(file)) for file in files]
    content = safetensors.numpy.save(tensors)
    write_bytes(out, content)
    lines.append(f"{hashlib.sha256(content).hexdigest()}  {out}")
    lines.append(f"{len(tensors)} tensors; use them with {use.format(out=out)}")
    return "\n".join(lines)


def _described(path: Path) -> str:
    """Hash and name, and whether they agree where the name has part of the hash, as torch's do."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    promised = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if promised and not found.startswith(promised[1]):
        return f"{found}  {path} (its name says {promised[1]}...: not the file it is called after)"
    return f"{found}  {path}"


def define_flags() -> flags.FlagValues:
    """The command's flags, which exist only when it runs: other commands have some alike."""
    flags.DEFINE_string("out", None, "Safetensors file to write.")
    return flags.FLAGS


def main(argv: Sequence[str], values: flags.FlagValues) -> None:
    """The command; `values` are the flags of `define_flags`."""
    if len(argv) < 3:
        raise UserError(f"say what to convert: {'|'.join(KINDS)} --out=FILE.safetensors FILES...")
    if not values.out:
        raise UserError("say where the weights are to go: --out=FILE.safetensors")
    print(convert(argv[1], argv[2:], values.out))


if __name__ == "__main__":
    flag_values = define_flags()
    app.run(
        lambda argv: sys.exit(run_main(functools.partial(main, values=flag_values), argv)),
        flags_parser=parse_flags,
    )
