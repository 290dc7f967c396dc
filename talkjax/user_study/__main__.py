"""A blind study of which of two systems people prefer, without any server of its own.

    python -m talkjax.user_study --a=DIR --b=DIR --out=OUT --names=ours,theirs --checks=4
    python -m talkjax.user_study --key=OUT/key.json --out=rates.json ANSWERS.csv [ANSWERS.csv ...]

The first pairs the videos of two folders by name and makes OUT/study, a page for any static web
server or for opening from disk; OUT/key.json alone says which video is whose, and stays at home.
Raters send back the CSV file that the page saves for them. The second makes rates of those.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from talkjax import commands
from talkjax.errors import UserError

_A = flags.DEFINE_string("a", None, "Folder of one system's videos.")
_B = flags.DEFINE_string("b", None, "Folder of the other's, named alike.")
_OUT = flags.DEFINE_string("out", None, "Folder of the study; with --key, the rates (JSON).")
_NAMES = flags.DEFINE_list("names", ["A", "B"], "Of both systems; raters never see them.")
_TRUTH = flags.DEFINE_string("truth", None, "Folder of pictures or videos of the real persons.")
_CLIPS = flags.DEFINE_integer("clips", None, "At most so many, evenly chosen.", lower_bound=1)
_QUESTIONS = flags.DEFINE_list(
    "questions", ["sync", "quality", "identity"], "In this order: sync, quality, identity, natural."
)
_CHECKS = flags.DEFINE_integer(
    "checks", 0, "Trials with the same video on both sides.", lower_bound=0, upper_bound=1000
)
_TITLE = flags.DEFINE_string("title", "Which video do you prefer?", "Headline, for the raters.")
_SEED = flags.DEFINE_integer("seed", 0, "Of sides and names; of the bootstrap.", lower_bound=0)
_KEY = flags.DEFINE_string("key", None, "key.json of a study whose answers are to be counted.")


def main(argv: Sequence[str]) -> None:
    """Makes a study, or counts its answers, as the flags say."""
    for path in argv[1:]:
        if path.startswith("--"):
            raise UserError(f"{path} comes after a file; give flags first, then files")
    if not _OUT.value:
        raise UserError("say where the result is to go: --out=DIR, or --out=rates.json with --key")
    if _KEY.value is not None:
        count(argv[1:])
    else:
        make(argv[1:])


def make(rest: Sequence[str]) -> None:
    """Makes a study."""
    from talkjax.user_study import study

    if rest:
        raise UserError(f"{rest[0]}: answers are counted with --key=OUT/key.json")
    if not _A.value or not _B.value:
        raise UserError("say what is compared: --a=DIR --b=DIR; or count answers: --key=FILE")
    names, questions = _NAMES.value, _QUESTIONS.value
    if len(names) != 2 or not all(names) or names[0] == names[1]:
        raise UserError(f"--names={','.join(names)}: give two different names, --names=ours,theirs")
    wrong = [question for question in questions if question not in study.QUESTIONS]
    if wrong or not questions or len(set(questions)) < len(questions):
        known = ",".join(study.QUESTIONS)
        raise UserError(f"--questions={','.join(questions)}: give some of {known}, once each")
    if _TRUTH.value and "identity" not in questions:
        raise UserError("--truth serves the question identity, which --questions leaves out")
    out = Path(_OUT.value)
    pairs, alone = study.find_pairs(_A.value, _B.value, _TRUTH.value, _CLIPS.value)
    key = study.make(pairs, out, names, questions, _CHECKS.value, _SEED.value, _TITLE.value)
    if alone:
        print(f"left out: {alone} videos without a partner of the same name")
    print(
        f"wrote {out / study.PAGE}: {len(pairs)} pairs, {len(key['trials'])} trials; open "
        f"index.html or serve the folder\nwrote {out / study.KEY}: keep it from the raters"
    )


def count(paths: Sequence[str]) -> None:
    """Counts answers."""
    from talkjax.files import write_json
    from talkjax.user_study import answers, rates

    if _A.value or _B.value or _TRUTH.value:
        raise UserError("--key counts answers; --a, --b and --truth make a study: give one only")
    if not paths:
        raise UserError("say which answers are counted: the CSV files after the flags")
    key = answers.read_key(_KEY.value)
    report = rates.rates(answers.read_all(paths, key), key, _SEED.value)
    write_json(_OUT.value, report)
    print(rates.table(report))
    print(f"\nwrote {_OUT.value}")


if __name__ == "__main__":
    commands.exit_on_sigterm()
    app.run(lambda argv: sys.exit(commands.run_main(main, argv)), flags_parser=commands.parse_flags)
