"""Makes the person of a template video or photograph say a speech track.

    uv run sample.py
    uv run sample.py --video=V --audio=A --out=O.mp4 --checkpoint=DIR
    uv run sample.py --image=I --audio=A --out=O.mp4 --checkpoint=DIR

The output is as long as the speech, has the template's size and frame rate, carries the speech
track unchanged, and differs from the template around the mouth only. What is not given is what
comes with the package: an avatar, a sentence, a checkpoint that knows such avatars; and
out/demo.mp4, with a contact sheet beside it.
"""

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from talkjax import commands, files
from talkjax.errors import UserError

if TYPE_CHECKING:
    from talkjax.metrics.run_sheet import RunSheet

_OUT, _SHEET = Path("out", "demo.mp4"), Path("out", "demo.png")
_FILES = ("video", "image", "audio", "out", "checkpoint", "sheet", "summary")


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
    add("--out", metavar="FILE", help=f"the result: .mp4, .m4v, .mov or .mkv (default {_OUT})")
    add("--checkpoint", metavar="DIR", help="weights, as train.py --export writes them")
    add("--sheet", metavar="FILE",
        help=f"contact sheet of the first 20 s; without --out by default {_SHEET}")  # fmt: skip
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
    began = time.monotonic()
    arguments = make_parser().parse_args(argv[1:])
    check_arguments(arguments)

    from talkjax.media.container import check_local_file

    for path in filter(None, (arguments.video, arguments.image, arguments.audio)):
        check_local_file(path)

    from talkjax.sampling import Options, Sampler, bundled, compile_cache

    if not (arguments.video or arguments.image):
        arguments.video = bundled.template()
    audio = arguments.audio or bundled.speech()
    checkpoint = arguments.checkpoint or bundled.checkpoint()
    out, sheet_file = arguments.out or _OUT, arguments.sheet
    if not arguments.out:
        make_folder(_OUT.parent)
        if not sheet_file and importlib.util.find_spec("matplotlib"):
            sheet_file = _SHEET
    if not arguments.no_compilation_cache:
        compile_cache.enable()
    names = ("steps", "seed", "face", "landmark_guidance", "reference_guidance", "eta", "batch",
             "crf", "lossless")  # fmt: skip
    options = Options(**{name: getattr(arguments, name) for name in names})
    imported = time.monotonic()
    sampler = Sampler.load(checkpoint)
    loaded = time.monotonic()
    sheet = None
    if sheet_file:
        from talkjax.metrics.run_sheet import RunSheet

        sheet = RunSheet()
    result = sampler.generate(
        video=arguments.video,
        image=arguments.image,
        audio=audio,
        out=out,
        options=options,
        progress=not arguments.quiet,
        watch=sheet and sheet.add_frame,
    )
    result.phases |= {"importing": imported - began, "loading": loaded - imported}
    if sheet:
        with result.phase("sheet"):
            write_sheet(sheet, sheet_file, arguments, out)
    if arguments.summary:
        files.write_json(arguments.summary, result.as_dict())
    if not arguments.quiet:
        print(result.text())
        if sheet:
            print(f"{os.fsdecode(sheet_file)}: template, result, sound and opening of the mouth")


def check_arguments(arguments: argparse.Namespace) -> None:
    """What can be said before anything is loaded.

    Raises:
      UserError: options that do not go together, or files that cannot be written.
    """
    for name in _FILES:
        if getattr(arguments, name) == "":
            raise UserError(f"--{name} is empty; name a file, or leave it out")
    if arguments.video is not None and arguments.image is not None:
        raise UserError("give one template: either --video=FILE or --image=FILE")
    for name in ("summary", "sheet"):
        path = getattr(arguments, name)
        if path and not os.access(os.path.dirname(path) or ".", os.W_OK):
            raise UserError(f"{path}: its directory is missing or not writable")
    if arguments.sheet and not arguments.sheet.lower().endswith(".png"):
        raise UserError(f"{arguments.sheet}: --sheet must end in .png")
    if arguments.sheet and os.path.isdir(arguments.sheet):
        raise UserError(f"{arguments.sheet}: is a directory; give a file's name")
    both = arguments.sheet, arguments.image
    if all(path and os.path.exists(path) for path in both) and os.path.samefile(*both):
        raise UserError(f"{arguments.sheet}: is an input as well; give another --sheet")


def make_folder(folder: Path) -> None:
    """Makes a folder for the default output.

    Raises:
      UserError: it cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); give --out=FILE") from error


def write_sheet(
    sheet: "RunSheet", path: str | Path, arguments: argparse.Namespace, out: str | Path
) -> None:
    """Draws the contact sheet of a finished run.

    Raises:
      UserError: it cannot be written.
    """
    from talkjax.pictures import write_png
    from talkjax.sampling import sampler, template

    shown = template.open_template(arguments.video, arguments.image)
    with sampler.face_mesh(arguments.face) as detector:
        image = sheet.draw(shown, out, detector)
    try:
        write_png(path, image)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}); choose another --sheet"
        ) from error


if __name__ == "__main__":
    commands.exit_on_sigterm()
    sys.exit(commands.run_main(main, sys.argv))
