"""Makes a blind study: a static page with videos, and beside it the key to them.

    OUT/study/index.html    the page with its styles and script; it needs no network
    OUT/study/*.mp4, *.png  copies of videos and images under random names
    OUT/key.json            which file is of which system; never publish it

The page and its folder contain no name of a system, clip or file, and no order that distinguishes
the systems. `remux` lists what the copies still show (length, size in bytes, pixels). Where systems
differ in these, encode the videos of both with the same encoder first.
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
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
QUESTIONS = {
    "sync": "In which video do the lips follow the speech better?",
    "quality": "Which video looks better: clearer, with fewer flaws?",
    "identity": "In which video does the face stay more the same person throughout?",
    "natural": "Which video looks more like a real recording?",
}
IDENTITY_WITH_TRUTH = "In which video does the face look more like the real person shown?"
_MAX_LENGTH_DIFFERENCE = 0.5  # seconds, between the videos of a pair


@dataclasses.dataclass(frozen=True)
class Pair:
    """One clip by both systems, and optionally an image or a video of the real person."""

    clip: str
    a: Path
    b: Path
    truth: Path | None = None


@dataclasses.dataclass(frozen=True)
class Trial:
    """One comparison; an attention check if both sides show the same system.

    Attributes:
      id: Random name.
      question: Key of `QUESTIONS`.
      pair: Index of the pair.
      left, right: System on that side, "a" or "b".
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


def find_by_stem(folder: str, flag: str, suffixes: Sequence[str]) -> dict[str, Path]:
    """Finds the files of a folder with one of `suffixes`; hidden files are skipped.

    Returns:
      {relative path without suffix: file}.

    Raises:
      UserError: The folder does not exist, holds no such file, or two of the same name.
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
            raise UserError(f"--{flag}: {found[stem].name} and {path.name} have the same name")
        found[stem] = path
    if not found:
        raise UserError(f"--{flag}={folder} holds none of {', '.join(suffixes)}")
    return found


def find_pairs(a: str, b: str, truth: str | None, clips: int | None) -> tuple[list[Pair], int]:
    """Pairs the videos of two folders by name.

    Args:
      a: Folder of one system's videos.
      b: Folder of the other's.
      truth: Folder of images or videos of the real persons, or None.
      clips: Largest number of pairs, evenly spread; None for all.

    Returns:
      The pairs, sorted by name, and the number of videos without a counterpart.

    Raises:
      UserError: There is no pair, or a pair has no truth.
    """
    ours, theirs = find_by_stem(a, "a", VIDEOS), find_by_stem(b, "b", VIDEOS)
    names = sorted(ours.keys() & theirs.keys())
    alone = len(ours) + len(theirs) - 2 * len(names)
    if not names:
        raise UserError(f"no video in {a} has the name of one in {b}; give both the same names")
    if clips and clips < len(names):
        names = [names[i] for i in np.linspace(0, len(names) - 1, clips).round().astype(int)]
    real = find_by_stem(truth, "truth", VIDEOS + IMAGES) if truth else {}
    if truth and (missing := [name for name in names if name not in real]):
        raise UserError(
            f"--truth={truth} has no file for {missing[0]!r} ({len(missing)} of {len(names)} "
            "clips); name images or videos like the clips"
        )
    return [Pair(name, ours[name], theirs[name], real.get(name)) for name in names], alone


def make_random(pairs: Iterable[Pair], seed: int, settings: Sequence[Any]) -> random.Random:
    """Seeds a generator by the videos too, so that nobody can repeat the draw without them."""
    digest = hashlib.sha256(json.dumps([seed, *settings]).encode())
    for pair in pairs:
        for path in (pair.a, pair.b):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return random.Random(digest.digest())


def draw_trials(
    pairs: int, questions: Sequence[str], checks: int, rng: random.Random
) -> list[Trial]:
    """Draws one trial per question and pair, and the attention checks, sorted by their ids.

    For every question, each system is on the left in a random half of the pairs (with an odd number
    of pairs, one more or one fewer by chance).
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
    return sorted((Trial(_random_name(rng), *what) for what in planned), key=lambda trial: trial.id)


def render_page(
    title: str, questions: Sequence[str], trials: Sequence[Trial],
    files: dict[tuple[int, str], str], truth: bool,
) -> tuple[str, str]:  # fmt: skip
    """Renders the page.

    Args:
      title: Headline.
      questions: Keys of `QUESTIONS`, in the order in which they are asked.
      trials: Trials, in the order in which they are stored.
      files: {(pair, "a", "b" or "truth"): name of the copy}.
      truth: Whether identity is compared with the real person.

    Returns:
      The HTML text and its version.
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


def write_study(
    pairs: Sequence[Pair], out: Path, names: Sequence[str], questions: Sequence[str],
    checks: int, seed: int, title: str,
) -> dict[str, Any]:  # fmt: skip
    """Writes a study completely or not at all.

    Args:
      pairs: Result of `find_pairs`.
      out: Folder to write to; created if necessary.
      names: Names of the systems a and b; only the key contains them.
      questions: Keys of `QUESTIONS`.
      checks: Number of attention checks.
      seed: Seed of sides and file names.
      title: Headline for the raters.

    Returns:
      The key, as written.

    Raises:
      UserError: A study exists in the folder, or videos cannot be used.
    """
    for taken in (out / PAGE, out / KEY):
        if taken.exists():
            raise UserError(f"{taken} already exists; choose another --out or remove it")
    _check_lengths(pairs)
    rng = make_random(pairs, seed, [list(questions), checks, [pair.clip for pair in pairs]])
    trials = draw_trials(len(pairs), questions, checks, rng)
    truth = pairs[0].truth is not None
    copies = _name_copies(pairs, rng)
    files = {which: name for which, (name, _) in copies.items()}
    text, version = render_page(title, questions, trials, files, truth)
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
                remux.copy_image(source, part / name)
            else:
                remux.copy_video(source, part / name, sound=system != "truth")
        (part / "index.html").write_text(text, encoding="utf-8")
        write_json(out / KEY, key)
        part.rename(out / PAGE)
    except OSError as error:
        raise UserError(f"--out={out} cannot be written ({error}); choose another") from error
    finally:
        if not (out / PAGE).exists():  # a key alone would block the next attempt
            (out / KEY).unlink(missing_ok=True)
        shutil.rmtree(part, ignore_errors=True)
    return key


def _check_lengths(pairs: Iterable[Pair]) -> None:
    for pair in pairs:
        a, b = (remux.video_seconds(path) for path in (pair.a, pair.b))
        if abs(a - b) > _MAX_LENGTH_DIFFERENCE:
            raise UserError(
                f"{pair.clip!r} lasts {a:.1f} s in one folder and {b:.1f} s in the other; "
                "raters could tell them apart: cut them to the same length"
            )


def _name_copies(
    pairs: Sequence[Pair], rng: random.Random
) -> dict[tuple[int, str], tuple[str, Path]]:
    """Returns {(pair, "a", "b" or "truth"): (random name, original)}."""
    named = {}
    for index, pair in enumerate(pairs):
        for system in ("a", "b", "truth"):
            source = getattr(pair, system)
            if source is not None:
                suffix = ".png" if source.suffix.lower() in IMAGES else ".mp4"
                named[index, system] = (_random_name(rng) + suffix, source)
    return named


def _random_name(rng: random.Random) -> str:
    return f"{rng.getrandbits(64):016x}"
