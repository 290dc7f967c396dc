"""Makes the person of a template video or photograph say a speech track.

    uv run sample.py --video=V --audio=A --out=O.mp4 --checkpoint=DIR
    uv run sample.py --image=I --audio=A --out=O.mp4 --checkpoint=DIR

The output is as long as the speech, has the template's size and frame rate, carries the speech
track unchanged, and differs from the template around the mouth only.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from talkjax import errors
from talkjax.errors import UserError

_SIGTERM_EXIT = 128 + 15


class _Parser(argparse.ArgumentParser):
    """Reports mistakes as this project's scripts do: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see sample.py --help")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = _Parser(
        prog="sample.py",
        description=__doc__.split("\n\n")[0],
        epilog="JAX's compiled programs are kept in ~/.cache/talkjax; TALKJAX_COMPILATION_CACHE=0 "
        "or --no_compilation_cache switches that off.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--video", metavar="FILE", help="template video; runs to and fro if it is too short")
    add("--image", metavar="FILE", help="template photograph (PNG, JPEG, WebP, BMP) instead")
    add("--audio", metavar="FILE", help="speech: any audio or video file")
    add("--out", metavar="FILE", help="the result: .mp4, .m4v, .mov or .mkv")
    add("--checkpoint", metavar="DIR", help="weights, as train.py --export writes them")
    add("--steps", type=int, default=10, metavar="N", help="denoising steps (default 10)")
    add("--seed", type=int, default=0, metavar="S", help="of the noise (default 0)")
    add("--face", default="largest", metavar="WHICH",
        help="largest (default) or the face's number from left to right, from 0")  # fmt: skip
    add("--landmark_guidance", type=float, default=1.0, metavar="X",
        help="classifier-free guidance by the landmarks; 1 (default) is none")  # fmt: skip
    add("--reference_guidance", type=float, default=1.0, metavar="X",
        help="the same by the reference image; values that differ cost up to 3 passes")  # fmt: skip
    add("--eta", type=float, default=0.0, metavar="X", help="0 (default) is deterministic DDIM")
    add("--batch", type=int, default=0, metavar="N", help="frames at a time (default: by device)")
    add("--crf", type=float, default=18.0, metavar="X",
        help="H.264 quality, 0 best to 51 (default 18)")  # fmt: skip
    add("--lossless", action="store_true", help="write RGB without loss; large")
    add("--summary", metavar="FILE", help="write what happened as JSON")
    add("--quiet", action="store_true", help="no progress bar and no summary")
    add("--no_compilation_cache", action="store_true", help="compile anew in every run")
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command line `argv`, the program's name first."""
    arguments = make_parser().parse_args(argv[1:])
    if arguments.checkpoint is None:
        raise UserError(
            "no checkpoint: none is bundled yet; train one with `uv run train.py "
            "--config=configs/person_128.py:STAGE ...` (README, 'Make somebody speak'), then give "
            "--checkpoint=DIR --video=FILE --audio=FILE --out=FILE"
        )
    if (arguments.video is None) == (arguments.image is None):
        raise UserError("give a template: either --video=FILE or --image=FILE")
    for name in ("audio", "out"):
        if not getattr(arguments, name):
            raise UserError(f"give --{name}=FILE")
    if arguments.summary and not os.access(os.path.dirname(arguments.summary) or ".", os.W_OK):
        raise UserError(f"{arguments.summary}: its directory is missing or not writable")

    from talkjax.media.container import check_local_file

    for path in filter(None, (arguments.video, arguments.image, arguments.audio)):
        check_local_file(path)

    from talkjax.sampling import Options, Sampler, compile_cache, summary

    if not arguments.no_compilation_cache:
        compile_cache.enable()
    names = ("steps", "seed", "face", "landmark_guidance", "reference_guidance", "eta", "batch",
             "crf", "lossless")  # fmt: skip
    options = Options(**{name: getattr(arguments, name) for name in names})
    sampler = Sampler.load(arguments.checkpoint)
    result = sampler.generate(
        video=arguments.video,
        image=arguments.image,
        audio=arguments.audio,
        out=arguments.out,
        options=options,
        progress=not arguments.quiet,
    )
    if arguments.summary:
        summary.write_json(arguments.summary, result.as_dict())
    if not arguments.quiet:
        print(result.text())


def _terminate(*unused: object) -> NoReturn:
    sys.exit(_SIGTERM_EXIT)  # runs the cleaning up of half-written files


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(errors.run_main(main, sys.argv))
