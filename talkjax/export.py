"""Exports the averaged weights of training runs as one checkpoint, ready for sampling.

    python -m talkjax.export --run=RUN --out=DIR
    python -m talkjax.export --landmark=RUN --diffusion=RUN --out=DIR [--dtype=float16]
    python -m talkjax.export --run=RUN --out=DIR --push=owner/name [--license=cc-by-4.0] [--public]

The first form exports all networks of one run. The second combines the landmark network of one run
with the denoiser and the autoencoder of another. RUN is the --workdir of a training run, whose
newest checkpoint counts, or the folder of an earlier export. DIR receives `model.safetensors` and
`config.json`, which records the stage and the steps that each network was trained for. --push also
uploads them to the Hugging Face Hub, with a model card (README.md); one that is in DIR is kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from talkjax import commands, files, hub, runs, weights
from talkjax.errors import UserError

DTYPES = ("float32", "float16")
_FOR_TRAINING = ("discriminator", "lip_regressor")  # networks that sampling does not use
_NO_LICENSE = "other"


def export(
    out: files.PathLike,
    *,
    run: files.PathLike | None = None,
    landmark: files.PathLike | None = None,
    diffusion: files.PathLike | None = None,
    dtype: str = "float32",
) -> None:
    """Writes `model.safetensors` and `config.json`.

    Args:
      out: Folder to write.
      run: Training run or export whose networks are all exported; or else
      landmark, diffusion: two of them, for the landmark network and for denoiser and autoencoder.
      dtype: Storage type, "float32" or "float16". float16 halves the file; weights are read back
        as float32.

    Raises:
      UserError: A source does not exist, is damaged or lacks a network, or `out` cannot be
        written.
    """
    if (run is None) == (landmark is None and diffusion is None):
        raise UserError("give either run, or landmark and diffusion")
    if run is not None:
        params, config, _ = runs.load_weights(run)
        params = {name: x for name, x in params.items() if name not in _FOR_TRAINING}
    elif landmark is None or diffusion is None:
        raise UserError("landmark and diffusion must be given together")
    else:
        params, config = _combine(landmark, diffusion)
    weights.save_params(out, params, runs.without_paths(config), np.dtype(dtype))


def _combine(
    landmark: files.PathLike, diffusion: files.PathLike
) -> tuple[runs.Params, dict[str, Any]]:
    """Networks and configuration: those of `diffusion`, and what concerns the landmark network."""
    image_params, image_config = _load(diffusion, "denoiser", "autoencoder")
    point_params, point_config = _load(landmark, "landmark")
    data = {name: point_config["data"][name] for name in ("window", "references")}
    records = {name: image_config["networks"].get(name, {}) for name in ("denoiser", "autoencoder")}
    records |= {name: point_config["networks"].get(name, {}) for name in point_params}
    if "config" not in records["landmark"]:
        own = {name: value for name, value in point_config.items() if name != "networks"}
        records["landmark"] = records["landmark"] | {"config": runs.without_paths(own)}
    config = image_config | {
        "landmark": point_config["landmark"],
        "data": image_config["data"] | data,
        "networks": records,
    }
    return image_params | point_params, config


def _load(path: files.PathLike, *names: str) -> tuple[runs.Params, Mapping[str, Any]]:
    params, config, _ = runs.load_weights(path)
    if "landmark" in names:
        names = runs.landmark_parts(config)
    if missing := [name for name in names if name not in params]:
        raise UserError(
            f"{path} has no network {' or '.join(missing)} (it has {', '.join(sorted(params))}); "
            "give a run that has it"
        )
    return {name: params[name] for name in names}, config


def make_parser() -> commands.Parser:
    """Returns the parser of the command line."""
    parser = commands.Parser(__doc__, prog="python -m talkjax.export")
    parser.add_argument("--run", metavar="RUN", help="training run to export as a whole")
    parser.add_argument("--landmark", metavar="RUN", help="run that has the landmark network")
    parser.add_argument(
        "--diffusion", metavar="RUN", help="run that has the denoiser and the autoencoder"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to write")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="storage type; float16 halves the file (default: float32)",
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="also upload the folder to this repository of the Hugging Face Hub, which is created "
        "if there is none; needs a token (`hf auth login`) and the extra `hub`",
    )
    parser.add_argument(
        "--public",
        action="store_true",
        help="a new repository may be seen by everybody (default: it is private)",
    )
    parser.add_argument(
        "--license",
        metavar="ID",
        default=_NO_LICENSE,
        help="the Hub's identifier of the licence, for the model card (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command line `argv`, without the program's name."""
    given = make_parser().parse_args(argv)
    if given.run is None and (given.landmark is None or given.diffusion is None):
        raise UserError("give --run=RUN, or both --landmark=RUN and --diffusion=RUN")
    if given.run is not None and (given.landmark or given.diffusion):
        raise UserError("give either --run or both --landmark and --diffusion, not all of them")
    if given.push is None and (given.public or given.license != _NO_LICENSE):
        raise UserError("--public and --license are for --push=OWNER/NAME; give it too")
    if given.push is not None:
        with commands.flags_in_errors(vars(given)):
            hub.check(given.push, given.license)
    export(
        given.out,
        run=given.run,
        landmark=given.landmark,
        diffusion=given.diffusion,
        dtype=given.dtype,
    )
    print(f"wrote {given.out}")
    if given.push is not None:
        license_id = given.license
        url = hub.push(given.out, given.push, private=not given.public, license_id=license_id)
        print(f"uploaded {url}")


def run() -> NoReturn:
    """Runs the command; the entry point of `talkjax-export`."""
    commands.run(main)


if __name__ == "__main__":
    run()
