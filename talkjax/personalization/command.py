"""Adapts a checkpoint to your own person, from footage in which this person speaks.

    talkjax-personalize --video=CLIP [--video=CLIP2 ...] --out=DIR [--minutes=5]

10 seconds of footage are useful, a minute is good. A fifth of it is held out: the networks change
only if they are better there. DIR receives a checkpoint for `sample.py --checkpoint=DIR`,
report.json, and before_after.png. To resume an interrupted run, run the same command again.
"""

from collections.abc import Sequence
from typing import NoReturn

from talkjax import commands, media


def make_parser() -> commands.Parser:
    """Returns the parser of the command line."""
    parser = commands.Parser(__doc__, prog="talkjax-personalize")
    add = parser.add_argument
    # fmt: off
    add("--video", metavar="FILE", action="append", required=True,
        help="footage of the person; may be repeated. The end of the last one is held out")
    add("--out", metavar="DIR", required=True, help="folder of the new checkpoint")
    add("--checkpoint", metavar="DIR",
        help="checkpoint to start from, as for sample.py (default: the bundled one)")
    add("--minutes", type=commands.bounded(float, 0.1, 600), default=5.0, metavar="N",
        help="longest duration of the training, which ends earlier when held-out footage no longer "
        "gains (default: %(default)s)")
    add("--face", default="largest", metavar="WHICH",
        help="face to follow: 'largest', or a number, counted from 0 on the left "
        "(default: %(default)s)")
    add("--keep_offset", action="store_true",
        help="keep the offset between sound and picture that the footage has; otherwise it is "
        "removed where it can be measured")
    add("--quiet", action="store_true", help="print no progress and no result")
    # fmt: on
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command line `argv`, without the program's name."""
    given = make_parser().parse_args(argv)
    media.check_packages()
    from talkjax.personalization.personalize import personalize

    personalize(
        given.video, given.out, checkpoint=given.checkpoint, minutes=given.minutes,
        face=given.face, keep_offset=given.keep_offset, quiet=given.quiet,
    )  # fmt: skip


def run() -> NoReturn:
    """Runs the command; the entry point of `talkjax-personalize`."""
    commands.run(main)


if __name__ == "__main__":
    run()
