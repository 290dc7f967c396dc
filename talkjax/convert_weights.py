"""Converts published weights of the metrics from PyTorch files to safetensors.

    python -m talkjax.convert_weights lpips --out=lpips.safetensors squeezenet1_1.pth squeeze.pth
    python -m talkjax.convert_weights inception --out=inception.safetensors pt_inception.pth
    python -m talkjax.convert_weights syncnet --out=syncnet.safetensors syncnet_v2.model

docs/weights.md says where to download each file. PyTorch reads it in an environment of its own,
with weights_only=True, which refuses files that would run code. By default uv builds that
environment, which downloads about 200 MB once; --python=PATH uses an interpreter that already has
torch, numpy and safetensors. Files that are already safetensors need neither.

Every name, shape and value is checked, and the same input gives the same bytes.
"""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy

from talkjax import commands, files, torch_files, weights
from talkjax.errors import UserError
from talkjax.metrics import inception, lpips

Tensors = dict[str, np.ndarray]
Sources = Sequence[tuple[Path, Tensors]]
Shapes = dict[str, tuple[int, ...]]

_HEADS = re.compile(r"(?:lin\.)?lin\d+\.model\.1\.weight")


# ---- kinds --------------------------------------------------------------------------------------


def lpips_tensors(sources: Sources) -> Tensors:
    """Joins LPIPS v0.1's two files: torchvision's SqueezeNet 1.1 and the heads, in any order."""
    heads = [source for source in sources if all(_HEADS.fullmatch(name) for name in source[1])]
    trunks = [source for source in sources if "features.0.weight" in source[1]]
    if len(sources) != 2 or len(heads) != 1 or len(trunks) != 1:
        raise UserError(
            "lpips needs two files: torchvision's squeezenet1_1-*.pth and LPIPS v0.1's squeeze.pth"
        )
    tensors = {f"lin.{k.removeprefix('lin.')}": v for k, v in heads[0][1].items()}
    for name, value in trunks[0][1].items():
        if not name.startswith("classifier."):
            tensors[f"squeezenet.{name}"] = value
    where = " and ".join(str(path) for path, _ in (*trunks, *heads))
    return _checked(tensors, lpips.shapes(), where)


def inception_tensors(sources: Sources) -> Tensors:
    """Takes pytorch-fid's Inception-v3, without its classifier."""
    published = "pytorch-fid's pt_inception-2015-12-05-6726825d.pth"
    path, tensors = _only(sources, "inception", published)
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
    """Returns the shape of every tensor of SyncNet (joonson/syncnet_python's SyncNetModel.py)."""
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
            if kernel[0] != 1024:  # no normalisation after the last layers
                out |= {f"{net}.{place + 1}.{leaf}": kernel[:1] for leaf in normalised}
    return out


def syncnet_tensors(sources: Sources) -> Tensors:
    """Takes SyncNet, with its own names."""
    path, tensors = _only(sources, "syncnet", "joonson/syncnet_python's syncnet_v2.model")
    return _checked(tensors, syncnet_shapes(), path)


def _only(sources: Sources, kind: str, published: str) -> tuple[Path, Tensors]:
    if len(sources) != 1:
        raise UserError(f"{kind} needs one file: {published}")
    return sources[0]


def _checked(tensors: Tensors, expected: Shapes, where: str | os.PathLike) -> Tensors:
    """Returns the tensors as float32, without the batch counts of normalisation layers.

    Raises:
      UserError: A tensor is missing, unexpected, of another shape, or not finite.
    """
    tensors = {k: v for k, v in tensors.items() if not k.endswith(".num_batches_tracked")}
    weights.check_tensors({k: v.shape for k, v in tensors.items()}, expected, where)
    converted = {}
    for name, value in sorted(tensors.items()):
        # safetensors writes the memory of a transposed array as it lies, which would be wrong.
        converted[name] = np.ascontiguousarray(value, np.float32).reshape(value.shape)
        if not np.isfinite(converted[name]).all():
            raise UserError(f"{where}: {name} holds NaN or infinity; download the file again")
    return converted


KINDS: dict[str, tuple[Callable[[Sources], Tensors], str]] = {
    "lpips": (lpips_tensors, "evaluate.py --lpips={out} (or --fid={out})"),
    "inception": (inception_tensors, "evaluate.py --fid={out}"),
    "syncnet": (syncnet_tensors, "evaluate.py --sync_expert={out}"),
}


# ---- the command --------------------------------------------------------------------------------


def convert(
    kind: str,
    sources: Sequence[str | os.PathLike],
    out: str | os.PathLike,
    python: str | os.PathLike | None = None,
) -> str:
    """Converts published files.

    Args:
      kind: A key of `KINDS`.
      sources: PyTorch files, or safetensors files with the same tensors.
      out: The safetensors file to write. It appears complete or not at all.
      python: Interpreter for PyTorch files; see `torch_files.load`.

    Returns:
      A report for the user: the SHA-256 of every file, and the flag that takes the result.

    Raises:
      UserError: A file is missing, damaged or not the expected one, or `out` cannot be written.
    """
    if kind not in KINDS:
        raise UserError(f"kind={kind!r} is unknown; it must be one of {', '.join(KINDS)}")
    make, use = KINDS[kind]
    out = Path(out)
    paths = [Path(source) for source in sources]
    if any(out.resolve() == path.resolve() for path in paths):
        raise UserError(f"out={out} is also an input; choose another name")
    tensors = make([(path, _load(path, python)) for path in paths])
    lines = [_describe(path) for path in paths]
    content = safetensors.numpy.save(tensors)
    files.write_bytes(out, content)
    lines.append(f"{hashlib.sha256(content).hexdigest()}  {out}")
    lines.append(f"{len(tensors)} tensors; use them with {use.format(out=out)}")
    return "\n".join(lines)


def _load(path: Path, python: str | os.PathLike | None) -> Tensors:
    if path.suffix == ".safetensors":
        return weights.load_safetensors(path)
    return torch_files.load(path, python)


def _describe(path: Path) -> str:
    """Returns hash and name, and whether they agree if the name ends in digits of the hash."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    promised = re.search(r"-([0-9a-f]{8})\.pth$", path.name)
    if promised and not found.startswith(promised[1]):
        return f"{found}  {path} (not the published file: its hash should begin {promised[1]})"
    return f"{found}  {path}"


def make_parser() -> commands.Parser:
    """Returns the parser of this command's flags."""
    parser = commands.Parser(__doc__, prog="python -m talkjax.convert_weights")
    parser.add_argument("kind", choices=KINDS, help="What the files are.")
    parser.add_argument("files", nargs="+", metavar="FILE", help="Published files, in any order.")
    parser.add_argument("--out", required=True, help="Safetensors file to write.")
    parser.add_argument(
        "--python",
        help="Python interpreter that has torch 2.6 or later, numpy and safetensors. By default "
        "uv builds an environment with PyTorch for CPUs.",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Converts the files that `argv` names and prints the report."""
    args = make_parser().parse_args(argv)
    print(convert(args.kind, args.files, args.out, args.python))


def run() -> None:
    """Runs the command."""
    commands.run(main)


if __name__ == "__main__":
    run()
