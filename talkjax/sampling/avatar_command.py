"""Prepares a template video or photograph for live sessions, as one file.

    talkjax-avatar --video=person.mp4 --out=person.safetensors [--checkpoint=DIR]

The file holds all that streaming needs of the template and that does not depend on what will be
said; `Sampler.stream` opens it. It belongs to one checkpoint. It also holds pictures of the person:
keep it as you keep the footage.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from talkjax import commands, media
from talkjax.errors import UserError


def make_parser() -> commands.Parser:
    """Returns the parser of the command line."""
    parser = commands.Parser(__doc__, prog="talkjax-avatar")
    add = parser.add_argument
    # fmt: off
    add("--video", metavar="FILE", help="template: a video or a photograph")
    add("--image", metavar="FILE", help="template photograph; --video takes one as well")
    add("--out", metavar="FILE", required=True, help="avatar to write: .safetensors")
    add("--checkpoint", metavar="DIR",
        help="folder of exported weights, directory of a training run, or id (owner/name) of a "
        "Hugging Face repository (default: the bundled checkpoint)")
    add("--seconds", type=float, default=30.0, metavar="S",
        help="how much of the template is used, from its beginning; it is played back and forth "
        "(default: %(default)g)")
    add("--face", default="largest", metavar="WHICH",
        help="which face speaks, as for sample.py (default: %(default)s)")
    add("--no_keep_occlusions", dest="keep_occlusions", action="store_false",
        help="paint the new mouth over hands and objects in front of the face")
    add("--no_reference_sound", dest="reference_sound", action="store_false",
        help="do not learn from the template's own sound how the person speaks")
    add("--lossless", action="store_true",
        help="keep pictures without loss, which takes several times the space")
    add("--quiet", action="store_true", help="show no progress bar and no summary")
    add("--no_compilation_cache", action="store_true", help="compile again in every run")
    # fmt: on
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command line `argv`, without the program's name."""
    given = make_parser().parse_args(argv)
    with commands.flags_in_errors(vars(given)):
        _prepare(given)


def _prepare(given: argparse.Namespace) -> None:
    if bool(given.video) == bool(given.image):
        raise UserError("give one template, either --video=FILE or --image=FILE")
    template = given.video or given.image
    media.check_packages()
    from talkjax.media.container import check_local_file

    check_local_file(template)
    for path in (template, given.checkpoint):
        if path and os.path.exists(given.out) and os.path.samefile(path, given.out):
            raise UserError(f"--out={given.out} is an input as well; give another output")

    from talkjax.sampling import Options, Sampler, avatar_preparation, compile_cache
    from talkjax.sampling.avatar import Avatar

    if not given.no_compilation_cache:
        compile_cache.enable()
    options = Options(
        face=given.face,
        keep_occlusions=given.keep_occlusions,
        reference_sound=given.reference_sound,
    )
    avatar_preparation.check(given.out, given.seconds)  # before the checkpoint is loaded
    out = avatar_preparation.prepare_avatar(
        template,
        given.out,
        sampler=Sampler.from_pretrained(given.checkpoint),
        options=options,
        seconds=given.seconds,
        lossless=given.lossless,
        progress=not given.quiet,
    )
    made = Avatar.load(out)
    unseen = made.frames - int(made.tensors["usable"].sum())
    if unseen:
        print(
            f"warning: {out}: in {unseen} of {made.frames} frames no mouth is seen; they stay as "
            "they are",
            file=sys.stderr,
        )
    if not given.quiet:
        width, height = made.size
        print(
            f"{out}: {made.frames} frames of {width}x{height}, "
            f"{os.path.getsize(out) / 2**20:.1f} MiB"
        )


def run() -> NoReturn:
    """Runs the command; the entry point of `talkjax-avatar`."""
    commands.run(main)


if __name__ == "__main__":
    run()
