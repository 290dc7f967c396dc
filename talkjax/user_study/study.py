"""Makes a blind study: a static page with videos, and beside it the key that says what is what.

    OUT/study/index.html    the page: styles and script inside, needs no network
    OUT/study/*.mp4, *.png  copies under random names
    OUT/key.json            which file is which system; never to be published

The page and its folder hold no name of a system, clip or file, and no order that tells one system
from the other; `remux` says what the copies still show (length, size in bytes, pixels). Where
systems differ in those, give both through one encoder first.
"""

import dataclasses
import hashlib
import html
import json
import random
import re
import secrets
import shutil
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from talkjax.errors import UserError
from talkjax.files import write_json
from talkjax.user_study import remux

PAGE, KEY = "study", "key.json"
VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
QUESTIONS = {
    "sync": "In which video do the lips follow the speech better?",
    "quality": "Which video looks better: clearer, with fewer flaws?",
    "identity": "In which video does the face stay more the same person throughout?",
    "natural": "Which video looks more like a real recording?",
}
IDENTITY_WITH_TRUTH = "In which video does the face look more like the real person shown?"
_LONGER = 0.5  # seconds by which the videos of a pair may differ


@dataclasses.dataclass(frozen=True)
class Pair:
    """One clip by both systems, and the real person (picture or video) if there is one."""

    clip: str
    a: Path
    b: Path
    truth: Path | None = None


@dataclasses.dataclass(frozen=True)
class Trial:
    """One comparison: a question, the index of a pair, the systems ("a", "b") of both sides.

    It is an attention check if both sides are the same system.
    """

    id: str
    question: str
    pair: int
    left: str
    right: str

    @property
    def check(self) -> bool:
        """Whether both sides show the same video."""
        return self.left == self.right


def by_stem(folder: str, flag: str, suffixes: Sequence[str]) -> dict[str, Path]:
    """{relative path without suffix: file} of a folder, hidden files passed over.

    Raises:
      UserError: it is no folder, holds no such file, or two of the same name.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"--{flag}={folder} is not a folder; give a folder of videos")
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or path.suffix.lower() not in suffixes or not path.is_file():
            continue
        stem = name.with_suffix("").as_posix()
        if stem in found:
            raise UserError(f"--{flag}: {found[stem].name} and {path.name} are both {stem!r}")
        found[stem] = path
    if not found:
        raise UserError(f"--{flag}={folder} holds none of {', '.join(suffixes)}")
    return found


def find_pairs(a: str, b: str, truth: str | None, clips: int | None) -> tuple[list[Pair], int]:
    """Pairs of videos of equal name in two folders, at most `clips`, evenly chosen.

    Returns:
      The pairs, by name, and how many videos have no partner.

    Raises:
      UserError: no pair, or one without its truth.
    """
    ours, theirs = by_stem(a, "a", VIDEOS), by_stem(b, "b", VIDEOS)
    names = sorted(ours.keys() & theirs.keys())
    alone = len(ours) + len(theirs) - 2 * len(names)
    if not names:
        raise UserError(f"no video of {a} has the name of one in {b}; pairs are found by name")
    if clips and clips < len(names):
        names = [names[i] for i in np.linspace(0, len(names) - 1, clips).round().astype(int)]
    real = by_stem(truth, "truth", VIDEOS + PICTURES) if truth else {}
    if truth and (missing := [name for name in names if name not in real]):
        raise UserError(
            f"--truth={truth} has nothing for {missing[0]!r} ({len(missing)} of {len(names)} "
            "clips); name pictures or videos as the clips are"
        )
    return [Pair(name, ours[name], theirs[name], real.get(name)) for name in names], alone


def seeded(pairs: Iterable[Pair], seed: int, settings: Sequence[Any]) -> random.Random:
    """Randomness from the seed and the videos, so that nobody without the videos can redo it."""
    digest = hashlib.sha256(json.dumps([seed, *settings]).encode())
    for pair in pairs:
        for path in (pair.a, pair.b):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return random.Random(digest.digest())


def draw(pairs: int, questions: Sequence[str], checks: int, rng: random.Random) -> list[Trial]:
    """One trial for each question and pair, and the attention checks, in the order of their ids.

    For every question each system is left in half of the pairs (of an odd number, one more or
    fewer by chance), chosen at random.
    """
    planned = []
    for question in questions:
        lefts = ["a", "b"] * (pairs // 2) + [rng.choice("ab")] * (pairs % 2)
        rng.shuffle(lefts)
        for index, left in enumerate(lefts):
            planned.append((question, index, left, "b" if left == "a" else "a"))
    for number in range(checks):
        system = rng.choice("ab")
        question = questions[number % len(questions)]
        planned.append((question, rng.randrange(pairs), system, system))
    return sorted((Trial(_name(rng), *what) for what in planned), key=lambda trial: trial.id)


def page(
    title: str, questions: Sequence[str], trials: Sequence[Trial],
    files: dict[tuple[int, str], str], truth: bool,
) -> tuple[str, str]:  # fmt: skip
    """The page and its version.

    Args:
      title: headline.
      questions: keys of `QUESTIONS`, in the order in which they are asked.
      trials: in the order in which they are written down.
      files: {(pair, "a", "b" or "truth"): name of the copy}.
      truth: whether identity is judged against the real person.
    """
    template = resources.files("talkjax.user_study").joinpath("page.html").read_text("utf-8")
    texts = QUESTIONS | ({"identity": IDENTITY_WITH_TRUTH} if truth else {})
    data: dict[str, Any] = {
        "title": title,
        "questions": [{"id": name, "text": texts[name]} for name in questions],
        "trials": [
            {"id": t.id, "question": t.question}
            | {side: files[t.pair, getattr(t, side)] for side in ("left", "right")}
            | ({"truth": files[t.pair, "truth"]} if truth and t.question == "identity" else {})
            for t in trials
        ],
    }
    version = hashlib.sha256((template + json.dumps(data)).encode()).hexdigest()[:10]
    text = json.dumps({"version": version} | data, indent=1).replace("<", "\\u003c")
    values = {"TITLE": html.escape(title), "STUDY": text}
    return re.sub("@(TITLE|STUDY)@", lambda match: values[match[1]], template), version


def make(
    pairs: Sequence[Pair], out: Path, names: Sequence[str], questions: Sequence[str],
    checks: int, seed: int, title: str,
) -> dict[str, Any]:  # fmt: skip
    """Writes the study, whole or not at all.

    Args:
      pairs: from `find_pairs`.
      out: folder; made if need be.
      names: of the systems a and b; they go into the key alone.
      questions: keys of `QUESTIONS`.
      checks: how many attention checks.
      seed: of sides and names.
      title: headline; raters read it.

    Returns:
      The key, as written.

    Raises:
      UserError: there is a study already, or videos do not suit.
    """
    for taken in (out / PAGE, out / KEY):
        if taken.exists():
            raise UserError(f"{taken} is there already; give another --out or remove it")
    _check_lengths(pairs)
    rng = seeded(pairs, seed, [list(questions), checks, [pair.clip for pair in pairs]])
    trials = draw(len(pairs), questions, checks, rng)
    truth = pairs[0].truth is not None
    copies = _name_copies(pairs, rng)
    files = {which: name for which, (name, _) in copies.items()}
    text, version = page(title, questions, trials, files, truth)
    key = {
        "study": version,
        "title": title,
        "names": dict(zip("ab", names, strict=True)),
        "questions": list(questions),
        "seed": seed,
        "trials": {
            t.id: {
                "question": t.question, "clip": pairs[t.pair].clip,
                "left": t.left, "right": t.right, "check": t.check,
            }
            for t in trials
        },
    }  # fmt: skip
    part = out / f".{secrets.token_hex(8)}.part"
    try:
        part.mkdir(parents=True)
        for (_, system), (name, source) in copies.items():
            if Path(name).suffix == ".png":
                remux.copy_picture(source, part / name)
            else:
                remux.copy_video(source, part / name, sound=system != "truth")
        (part / "index.html").write_text(text, encoding="utf-8")
        write_json(out / KEY, key)
        part.rename(out / PAGE)
    except OSError as error:
        (out / KEY).unlink(missing_ok=True)
        raise UserError(f"--out={out} cannot be written ({error}); give another") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return key


def _check_lengths(pairs: Iterable[Pair]) -> None:
    for pair in pairs:
        a, b = (remux.seconds_of(path) for path in (pair.a, pair.b))
        if abs(a - b) > _LONGER:
            raise UserError(
                f"{pair.clip!r} lasts {a:.1f} s in one folder and {b:.1f} s in the other; "
                "raters would know them apart: cut them to the same length"
            )


def _name_copies(
    pairs: Sequence[Pair], rng: random.Random
) -> dict[tuple[int, str], tuple[str, Path]]:
    """{(pair, "a", "b" or "truth"): (new name, original)}."""
    named = {}
    for index, pair in enumerate(pairs):
        for system in ("a", "b", "truth"):
            source = getattr(pair, system)
            if source is not None:
                suffix = ".png" if source.suffix.lower() in PICTURES else ".mp4"
                named[index, system] = (_name(rng) + suffix, source)
    return named


def _name(rng: random.Random) -> str:
    return f"{rng.getrandbits(64):016x}"
