"""A blind study of which of two systems people prefer; it needs no server of its own.

  python -m talkjax.user_study --a=DIR --b=DIR --out=OUT --names=ours,theirs --checks=4
  python -m talkjax.user_study --key=OUT/key.json --out=rates.json ANSWERS.csv [ANSWERS.csv ...]

The first command pairs the videos of two folders by name and makes OUT/study, a page for any static
web server or for opening from disk. Only OUT/key.json says which video is of which system; keep it
from the raters. Raters send back the CSV file that the page saves for them, and the second command
computes preference rates from these files.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from talkjax import commands
from talkjax.errors import UserError


def make_parser() -> commands.Parser:
    """Creates the command line."""
    parser = commands.Parser(__doc__, prog="python -m talkjax.user_study")
    parser.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="folder of the study; with --key, report (JSON)",
    )
    parser.add_argument(
        "--seed", type=commands.bounded(int, 0), default=0, metavar="S",
        help="seed of sides and file names, and of the bootstrap (default: %(default)s)",
    )  # fmt: skip

    add = parser.add_argument_group("making a study").add_argument
    add("--a", metavar="DIR", help="folder of one system's videos")
    add("--b", metavar="DIR", help="folder of the other's, which have the same names")
    add("--names", type=commands.comma_separated, default=["A", "B"], metavar="A,B",
        help="names of both systems, which raters do not see (default: A,B)")  # fmt: skip
    add("--truth", metavar="DIR", help="folder of images or videos of the real persons")
    add("--clips", type=commands.bounded(int, 1), metavar="N",
        help="use at most N clips, evenly spread (default: all)")  # fmt: skip
    add("--questions", type=commands.comma_separated, default=["sync", "quality", "identity"],
        metavar="NAME,...", help="questions to ask, in this order, of sync, quality, identity and "
        "natural (default: sync,quality,identity)")  # fmt: skip
    add("--checks", type=commands.bounded(int, 0, 1000), default=0, metavar="N",
        help="trials with the same video on both sides (default: %(default)s)")  # fmt: skip
    add("--title", default="Which video do you prefer?", metavar="TEXT",
        help="headline of the page (default: %(default)s)")  # fmt: skip

    add = parser.add_argument_group("counting answers").add_argument
    add("--key", metavar="FILE", help="key.json of the study whose answers are counted")
    add("answers", nargs="*", metavar="ANSWERS.csv", help="files that the page saved for raters")
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    args = make_parser().parse_args(argv)
    if args.key is not None:
        _count_answers(args)
    else:
        _make_study(args)


def run() -> None:
    """Runs the command on the program's arguments and exits."""
    commands.run(main)


def _make_study(args: argparse.Namespace) -> None:
    from talkjax.user_study import study

    if args.answers:
        raise UserError(f"{args.answers[0]}: counting answers requires --key=OUT/key.json")
    if not args.a or not args.b:
        raise UserError("--a=DIR and --b=DIR are required, or --key=FILE to count answers")
    names, questions = args.names, args.questions
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise UserError(f"--names={','.join(names)}: give two different names, --names=ours,theirs")
    unknown = [question for question in questions if question not in study.QUESTIONS]
    if unknown or not questions or len(set(questions)) < len(questions):
        known = ",".join(study.QUESTIONS)
        raise UserError(f"--questions={','.join(questions)}: give some of {known}, once each")
    if args.truth and "identity" not in questions:
        raise UserError("--truth requires the question identity, which --questions leaves out")
    out = Path(args.out)
    pairs, unmatched = study.find_pairs(args.a, args.b, args.truth, args.clips)
    key = study.write_study(pairs, out, names, questions, args.checks, args.seed, args.title)
    if unmatched:
        print(f"left out: {unmatched} videos without a counterpart of the same name")
    print(
        f"wrote {out / study.PAGE}: {len(pairs)} pairs, {len(key['trials'])} trials; open "
        f"index.html or serve the folder\nwrote {out / study.KEY}: keep it from the raters"
    )


def _count_answers(args: argparse.Namespace) -> None:
    from talkjax.files import write_json
    from talkjax.user_study import answers, rates

    if args.a or args.b or args.truth:
        raise UserError("--key, which counts answers, cannot be combined with --a, --b or --truth")
    if not args.answers:
        raise UserError("--key requires the CSV files with the answers")
    key = answers.read_key(args.key)
    report = rates.compute_rates(answers.read_answers(args.answers, key), key, args.seed)
    write_json(args.out, report)
    print(rates.format_table(report))
    print(f"\nwrote {args.out}")


if __name__ == "__main__":
    run()
