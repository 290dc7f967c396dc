"""Makes the synthetic corpus: videos of talking avatars with exact ground truth.

    python -m data_pipelines.synthesize --out=CORPUS --identities=300 --clips=2 --seed=0

The same seed always gives the same corpus. A run that was stopped continues with the same command,
and one with more identities or clips adds to the corpus. CORPUS then holds

    train/ID.mp4, test/ID.mp4    ordinary videos with sound
    .../ID.json, .../ID.npz      ground truth: landmarks, viseme curves, phonemes, the plan
    manifest.json                the settings, and the numbers of clips

No identity, voice or sentence is in both splits. Afterwards, `python -m data_pipelines.prepare
--source=CORPUS --out=SHARDS` prepares them for training. Needs espeak-ng and numba:
`pip install "talkjax[speech]"`.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from tqdm import tqdm

from talkjax import commands, files
from talkjax.errors import UserError

from .workers import JobError, cores, run_jobs

FORMAT = "talkjax-corpus"
VERSION = 3  # Raise it whenever the same plan gives other images or sounds.
_SECONDS_PER_CLIP = 600.0  # Time limit of a clip; a slow machine needs a tenth of it.
_STALE = 600.0  # Seconds after which an unfinished file belongs to a process that was killed.


def synthesize(
    out: str | os.PathLike,
    identities: int,
    clips: int,
    seed: int,
    *,
    test_identities: int | None = None,
    settings=None,
    workers: int = 1,
    make_work: Callable | None = None,
) -> dict[str, Any]:
    """Makes the clips of a corpus that do not exist yet; see the module's docstring for the files.

    Args:
      out: Folder of the corpus.
      identities: Number of people, including those of the test split.
      clips: Number of clips per person.
      seed: Seed of the corpus.
      test_identities: Number of people in the test split; None is a tenth.
      settings: `plan.CorpusSettings`; None is the default.
      workers: Number of processes, on which the corpus does not depend.
      make_work: Function that replaces `make_work` in tests.

    Returns:
      The manifest, and under "made" the numbers of new clips and frames and the seconds they took.

    Raises:
      UserError: A package is missing, `out` cannot be written or holds another corpus, or clips
        failed.
    """
    check_installed()
    from .synthetic import plan, sidecar

    settings = settings or plan.CorpusSettings()
    if test_identities is None:
        test_identities = max(1, identities // 10) if identities > 1 else 0
    if test_identities > identities:
        raise UserError(
            f"test_identities={test_identities} is more than identities={identities}; choose fewer"
        )
    out = pathlib.Path(out)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "seed": seed,
        "settings": asdict(settings),
        "identities": {"train": identities - test_identities, "test": test_identities},
        "clips_per_identity": clips,
        "talkjax": _installed_version(),
    }
    try:
        _open_folder(out, manifest, plan.SPLITS)
        plans = plan.plan_corpus(identities, clips, seed, test_identities, settings)
        todo = [
            p
            for p in plans
            if not sidecar.is_finished(_video_path(out, p), p.to_json(), asdict(settings))
        ]
        make_work = functools.partial(make_work or _make_work, os.fspath(out), settings)
        made, failures = _run(group_by_person(todo, workers), make_work, workers, len(plans))
        manifest |= {"splits": _count_clips(out, plans), "failed": failures}
        _write_manifest(out, manifest)
    except UserError:
        raise
    except OSError as error:
        raise files.WriteError(
            f"cannot write to {out} ({error.strerror or error}); make room or choose another "
            "folder (finished clips are kept)"
        ) from error
    if failures:
        raise UserError(
            f"{len(failures)} of {len(plans)} clips failed, first {failures[0]['clip_id']}: "
            f"{failures[0]['error']}; run the same command to try them again"
        )
    return manifest | {"made": made}


def check_installed() -> None:
    """Raises `UserError` if a package that only the synthetic corpus needs is missing."""
    for module, package in (("espeakng_loader", "espeakng-loader"), ("numba", "numba")):
        if importlib.util.find_spec(module) is None:
            raise UserError(f'{package} is not installed; run `pip install "talkjax[speech]"`')


def group_by_person(plans: Sequence, workers: int) -> list[list]:
    """Groups plans into jobs: all clips of a person, who is then painted once.

    Clips are single jobs if there are fewer people than processes.
    """
    people: dict[tuple, list] = {}
    for p in plans:
        people.setdefault(p.identity_key, []).append(p)
    if len(people) < workers:
        return [[p] for p in plans]
    return list(people.values())


def make_clips(out: str, settings, plans: Sequence) -> list[dict[str, Any]]:
    """Makes clips of one person.

    Returns:
      For each clip, the result of `clip.make_clip` or {"clip_id", "error"}. The last item is
      {"fatal"} if an error would stop all further clips as well.

    Raises:
      OSError: The folder cannot be written.
    """
    from .synthetic import clip

    person, outcomes = clip.make_person(plans[0].identity_key), []
    for p in plans:
        try:
            outcomes.append(clip.make_clip(p, settings, out, person))
        except UserError as error:
            return [*outcomes, {"fatal": str(error)}]
        except OSError:
            raise
        except Exception as error:  # A bug must not cost more than this clip.
            outcomes.append({"clip_id": p.clip_id, "error": f"{type(error).__name__}: {error}"})
    return outcomes


def _make_work(out: str, settings) -> Callable[[list], list[dict]]:
    """Initializes a worker process and returns its function."""
    import cv2

    cv2.setNumThreads(1)
    return functools.partial(make_clips, out, settings)


def _run(jobs, make_work, workers, total) -> tuple[dict[str, Any], list[dict]]:
    """Runs the jobs; returns the counts of what was made, and the failures."""
    made, failures = {"clips": 0, "frames": 0, "seconds": 0.0}, []
    started = time.monotonic()
    count = sum(map(len, jobs))
    limit = _SECONDS_PER_CLIP * max(map(len, jobs), default=1)
    with tqdm(
        total=total, initial=total - count, desc="synthesizing", unit="clip", smoothing=0.05
    ) as bar:
        for job, result in run_jobs(jobs, make_work, workers, limit):
            if isinstance(result, JobError):
                result = [{"clip_id": p.clip_id, "error": str(result)} for p in job]
            for outcome in result:
                if "fatal" in outcome:
                    raise UserError(f"{outcome['fatal']} (finished clips are kept)")
                if "error" in outcome:
                    failures.append(outcome)
                    continue
                made["clips"] += 1
                made["frames"] += outcome["frames"]
            made["seconds"] = round(time.monotonic() - started, 2)
            bar.set_postfix_str(f"{_frame_rate(made):.0f} frames/s", refresh=False)
            bar.update(len(job))
    return made, failures


def _frame_rate(made: dict[str, Any]) -> float:
    return made["frames"] / max(made["seconds"], 1e-9)


def _video_path(out: pathlib.Path, plan) -> pathlib.Path:
    return out / plan.split / f"{plan.clip_id}.mp4"


def _open_folder(out: pathlib.Path, wanted: dict[str, Any], splits: Sequence[str]) -> None:
    """Creates the folders, and checks that they hold no other corpus."""
    for split in splits:
        (out / split).mkdir(parents=True, exist_ok=True)
        for pattern in (".*.part", ".*.tmp.*"):  # Files of processes that were killed.
            for path in (out / split).glob(pattern):
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink(missing_ok=True)
    path = out / "manifest.json"
    if path.exists():
        remedy = "choose another folder or remove it"
        found = files.read_json_object(path, remedy)
        try:
            same = all(
                found[key] == wanted[key] for key in ("format", "version", "seed", "settings")
            )
            people = found["identities"]
            fewer = found["clips_per_identity"] > wanted["clips_per_identity"] or any(
                people[split] > wanted["identities"][split] for split in splits
            )
        except (KeyError, TypeError):
            raise UserError(f"{path} is not the manifest of a corpus; {remedy}") from None
        if not same or fewer:
            kind = "a larger" if same else "another"
            raise UserError(f"{out} holds {kind} corpus ({format_flags(found)}); {remedy}")
    _write_manifest(out, wanted)


def format_flags(manifest: dict[str, Any]) -> str:
    """Formats the flags that make the corpus of a manifest."""
    people, settings = manifest["identities"], manifest["settings"]
    values = {
        "identities": sum(people.values()),
        "test_identities": people["test"],
        "clips": manifest["clips_per_identity"],
        "seed": manifest["seed"],
        **settings,
    }
    return " ".join(f"--{k}={v:g}" for k, v in values.items())


def _write_manifest(out: pathlib.Path, manifest: dict[str, Any]) -> None:
    text = json.dumps({"command": format_flags(manifest)} | manifest, indent=1) + "\n"
    files.write_text(out / "manifest.json", text)


def _count_clips(out: pathlib.Path, plans: Sequence) -> dict[str, dict[str, Any]]:
    from .synthetic import sidecar

    totals: dict[str, dict[str, Any]] = {}
    for p in plans:
        info = sidecar.read_info(_video_path(out, p))
        if info is not None:
            total = totals.setdefault(p.split, {"clips": 0, "seconds": 0.0})
            total["clips"] += 1
            total["seconds"] = round(total["seconds"] + info["seconds"], 2)
    return totals


def _installed_version() -> str:
    try:
        return importlib.metadata.version("talkjax")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _even(text: str) -> int:
    """A flag type for frame sizes."""
    value = commands.bounded(int, 64, 2048)(text)
    if value % 2:
        raise argparse.ArgumentTypeError(f"{value} is odd; video sizes must be even")
    return value


def make_parser() -> commands.Parser:
    """Creates the parser of the command's flags."""
    parser = commands.Parser(__doc__, prog="python -m data_pipelines.synthesize")
    add = parser.add_argument
    add("--out", required=True, metavar="CORPUS", help="folder of the corpus (required)")
    add(
        "--identities",
        metavar="N",
        type=commands.bounded(int, 1, 99_999),
        default=20,
        help="number of people, including those of the test split (default: %(default)s)",
    )
    add(
        "--test_identities",
        metavar="N",
        type=commands.bounded(int, 0),
        help="number of people in the test split (default: a tenth of --identities)",
    )
    add(
        "--clips",
        metavar="N",
        type=commands.bounded(int, 1, 999),
        default=2,
        help="number of clips per person (default: %(default)s)",
    )
    add(
        "--seed",
        metavar="N",
        type=commands.bounded(int, 0),
        default=0,
        help="seed of the corpus (default: %(default)s)",
    )
    add(
        "--size",
        metavar="PIXELS",
        type=_even,
        default=256,
        help="width and height of the videos in pixels, an even number (default: %(default)s)",
    )
    add(
        "--fps",
        metavar="RATE",
        type=commands.bounded(float, 5.0, 120.0),
        default=25.0,
        help="frames per second (default: %(default)g)",
    )
    add(
        "--seconds",
        type=commands.bounded(float, 0.5, 600.0),
        default=4.0,
        help="approximate duration of a clip, which ends with a sentence (default: %(default)g)",
    )
    add(
        "--workers",
        metavar="N",
        type=commands.bounded(int, 0),
        default=0,
        help="number of processes; 0 starts one per core (default: %(default)s)",
    )
    add("--sheet", metavar="PNG", help="also write a contact sheet of the corpus to this file")
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    parser = make_parser()
    flags = parser.parse_args(argv)
    if flags.test_identities is not None and flags.test_identities > flags.identities:
        parser.error(
            f"--test_identities={flags.test_identities} is more than "
            f"--identities={flags.identities}"
        )
    check_installed()
    from .synthetic.plan import CorpusSettings

    workers = flags.workers or cores()
    report = synthesize(
        flags.out,
        flags.identities,
        flags.clips,
        flags.seed,
        test_identities=flags.test_identities,
        settings=CorpusSettings(flags.size, flags.fps, flags.seconds),
        workers=workers,
    )
    for split, total in report["splits"].items():
        print(f"{split}: {total['clips']} clips, {total['seconds']:.0f} s")
    made = report["made"]
    if made["clips"]:
        print(f"{made['frames']} frames at {_frame_rate(made):.1f} frames/s by {workers} processes")
    if flags.sheet:
        from .synthetic.contact_sheet import write_contact_sheet

        write_contact_sheet(flags.out, flags.sheet)
        print(f"wrote {flags.sheet}")


def run() -> NoReturn:
    """Runs the command on the program's arguments."""
    commands.run(main)


if __name__ == "__main__":
    run()
