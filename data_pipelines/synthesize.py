"""Makes the synthetic corpus: videos of avatars that speak, with the exact truth beside them.

    python -m data_pipelines.synthesize --out=CORPUS --identities=300 --clips=2 --seed=0

Needs espeak-ng and numba: `pip install talkjax[speech]`. A run that was stopped, by whatever, is
started again with the same command and goes on; with more identities or clips it adds them.
Afterwards CORPUS holds

    train/ID.mp4, test/ID.mp4    ordinary videos with sound
    .../ID.json, .../ID.npz      the truth: landmarks, viseme curves, phonemes, plan (`sidecar`)
    manifest.json                what was asked for, and the counts

No identity, voice or sentence is in both folders, and `python -m data_pipelines.prepare
--source=CORPUS --out=SHARDS` takes them for its splits.
"""

import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from absl import app, flags
from tqdm import tqdm

from data_pipelines.workers import cores
from talkjax import files
from talkjax.commands import exit_on_sigterm, parse_flags, run_main
from talkjax.errors import UserError

FORMAT = "talkjax-corpus"
VERSION = 1  # raise it whenever the same plan gives other pictures or sounds
_SECONDS_PER_CLIP = 600.0  # after which a clip counts as hung; a slow machine needs a tenth
_STALE = 600.0  # seconds after which an unfinished file is nobody's any more
SHEET_CLIPS = 40


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
    """Makes a corpus, or what is missing of it; see the module's docstring for the files.

    Args:
      out: its folder.
      identities: people, those of the test split included.
      clips: of each.
      seed: of everything.
      test_identities: how many of the people make the test split; a tenth by default.
      settings: `plan.Settings`.
      workers: processes. The corpus does not depend on their number.
      make_work: `make_work` or a stand-in for it.

    Returns:
      The manifest, and under "made" how many clips and frames were new and how long they took.

    Raises:
      UserError: something is not installed, the folder cannot be written or holds another corpus,
        or clips failed.
    """
    check_installed()
    from data_pipelines.synthetic import sidecar
    from data_pipelines.synthetic.plan import SPLITS, Settings, plan
    from data_pipelines.workers import JobError, run_jobs

    settings = settings or Settings()
    if test_identities is None:
        test_identities = max(1, identities // 10) if identities > 1 else 0
    if test_identities > identities:
        raise UserError(
            f"--test_identities={test_identities} of --identities={identities}: give fewer"
        )
    out = pathlib.Path(out)
    wanted = {
        "format": FORMAT,
        "version": VERSION,
        "seed": seed,
        "settings": asdict(settings),
        "identities": {"train": identities - test_identities, "test": test_identities},
        "clips_per_identity": clips,
        "talkjax": _own_version(),
    }
    failures, made = [], {"clips": 0, "frames": 0, "seconds": 0.0}
    try:
        _open_folder(out, wanted, SPLITS)
        plans = plan(identities, clips, seed, test_identities, settings)
        todo = [
            p
            for p in plans
            if not sidecar.is_finished(
                out / p.split / f"{p.clip_id}.mp4", p.to_json(), asdict(settings)
            )
        ]
        jobs = group(todo, workers)
        work = functools.partial(make_work or globals()["make_work"], os.fspath(out), settings)
        started = time.monotonic()
        with tqdm(
            total=len(plans), initial=len(plans) - len(todo), desc="synthesizing", unit="clip",
            smoothing=0.05,
        ) as bar:  # fmt: skip
            for job, result in run_jobs(jobs, work, workers, _SECONDS_PER_CLIP * max(clips, 1)):
                if isinstance(result, JobError):
                    result = [{"clip_id": p.clip_id, "error": str(result)} for p in job]
                for outcome in result:
                    if "fatal" in outcome:
                        raise UserError(f"{outcome['fatal']} (what is done is kept)")
                    if "error" in outcome:
                        failures.append(outcome)
                        continue
                    made["clips"] += 1
                    made["frames"] += outcome["frames"]
                made["seconds"] = round(time.monotonic() - started, 2)
                rate = made["frames"] / max(made["seconds"], 1e-9)
                bar.set_postfix_str(f"{rate:.0f} frames/s", refresh=False)
                bar.update(len(job))
        manifest = wanted | {"splits": _count(out, plans), "failed": failures}
        _write(out / "manifest.json", manifest)
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {error.strerror or error}; make room there or choose "
            "another --out (what is done is kept)"
        ) from error
    if failures:
        raise UserError(
            f"{len(failures)} of {len(plans)} clips failed, the first: "
            f"{failures[0]['clip_id']}: {failures[0]['error']}; the same command tries them again"
        )
    return manifest | {"made": made}


def check_installed() -> None:
    """Raises `UserError` if a package is missing that nothing but the synthetic corpus needs."""
    for module, package in (("espeakng_loader", "espeakng-loader"), ("numba", "numba")):
        if importlib.util.find_spec(module) is None:
            raise UserError(f"{package} is not installed; `pip install talkjax[speech]`")


def group(plans: Sequence, workers: int) -> list[list]:
    """The work of one process at a time: all clips of a person, who is then painted once.

    With fewer people than processes, single clips.
    """
    people: dict[tuple, list] = {}
    for p in plans:
        people.setdefault(p.identity_key, []).append(p)
    if len(people) < workers:
        return [[p] for p in plans]
    return list(people.values())


def make_work(out: str, settings) -> Callable[[list], list[dict]]:
    """Prepares a process; gives the function that makes some clips of one person."""
    import cv2

    cv2.setNumThreads(1)
    return functools.partial(make_clips, out, settings)


def make_clips(out: str, settings, plans: Sequence) -> list[dict[str, Any]]:
    """Makes clips of one person.

    Returns:
      For each what `clip.make_clip` returns, or {"clip_id", "error"}; {"fatal"} last of all for
      what will stop every further clip as well.

    Raises:
      OSError: the folder cannot be written.
    """
    from data_pipelines.synthetic import clip

    person, outcomes = clip.make_person(plans[0].identity_key), []
    for p in plans:
        try:
            outcomes.append(clip.make_clip(p, settings, out, person))
        except UserError as error:
            return [*outcomes, {"fatal": str(error)}]
        except OSError:
            raise
        except Exception as error:  # a bug: this clip's loss alone
            outcomes.append({"clip_id": p.clip_id, "error": f"{type(error).__name__}: {error}"})
    return outcomes


def _open_folder(out: pathlib.Path, wanted: dict[str, Any], splits: Sequence[str]) -> None:
    """Makes the folders, and makes sure that they hold no other corpus."""
    for split in splits:
        (out / split).mkdir(parents=True, exist_ok=True)
        for pattern in (".*.part", ".*.tmp.*"):  # of processes that were killed
            for path in (out / split).glob(pattern):
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink(missing_ok=True)
    path = out / "manifest.json"
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            same = all(
                found[key] == wanted[key] for key in ("format", "version", "seed", "settings")
            )
            people = found["identities"]
            fewer = found["clips_per_identity"] > wanted["clips_per_identity"] or any(
                people[split] > wanted["identities"][split] for split in splits
            )
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path} is not a corpus's manifest; choose another --out or remove it"
            ) from None
        if not same or fewer:
            differs = "a larger" if same else "another"
            raise UserError(
                f"{out} holds {differs} corpus ({command(found)}); choose another --out or "
                "remove it"
            )
    _write(path, wanted)


def command(manifest: dict[str, Any]) -> str:
    """The flags that make a corpus, from its manifest."""
    people, settings = manifest["identities"], manifest["settings"]
    values = {
        "identities": sum(people.values()),
        "test_identities": people["test"],
        "clips": manifest["clips_per_identity"],
        "seed": manifest["seed"],
        **settings,
    }
    return " ".join(f"--{k}={v:g}" for k, v in values.items())


def _write(path: pathlib.Path, manifest: dict[str, Any]) -> None:

    text = json.dumps({"command": command(manifest)} | manifest, indent=1) + "\n"
    files.write_text(path, text)


def _count(out: pathlib.Path, plans: Sequence) -> dict[str, dict[str, Any]]:
    from data_pipelines.synthetic import sidecar

    totals: dict[str, dict[str, Any]] = {}
    for p in plans:
        info = sidecar.read_info(out / p.split / f"{p.clip_id}.mp4")
        if info is not None:
            total = totals.setdefault(p.split, {"clips": 0, "seconds": 0.0})
            total["clips"] += 1
            total["seconds"] = round(total["seconds"] + info["seconds"], 2)
    return totals


def _own_version() -> str:
    try:
        return importlib.metadata.version("talkjax")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def draw_sheet(out: str | os.PathLike, path: str | os.PathLike, count: int = SHEET_CLIPS) -> None:
    """Writes a contact sheet (PNG): a frame from each of some clips, evenly chosen.

    Raises:
      UserError: it cannot be written, or there is no clip.
    """
    import cv2
    import numpy as np

    from talkjax.media.video import VideoReader

    videos = sorted(pathlib.Path(out).glob("t*/*.mp4"))
    if not videos:
        raise UserError(f"{out} holds no clip to draw a sheet of")
    chosen = np.unique(np.linspace(0, len(videos) - 1, min(count, len(videos))).round().astype(int))
    tiles = []
    for number, video in enumerate(videos[i] for i in chosen):
        wanted = 20 + 7 * (number % 5)
        for frame in VideoReader(video):
            picture = frame.rgb
            if frame.index == wanted:
                break
        tiles.append(picture)
    columns = min(8, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    done, encoded = cv2.imencode(".png", cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))
    try:
        pathlib.Path(path).write_bytes(encoded.tobytes() if done else b"")
    except OSError as error:
        raise UserError(f"--sheet={path} cannot be written ({error.strerror})") from error


def main(argv: Sequence[str], values: flags.FlagValues) -> None:
    """The command; `values` are the flags of `define_flags`."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; options are written --name=value")
    if not values.out:
        raise UserError("say where the corpus is to go: --out=CORPUS")
    if values.size % 2:
        raise UserError(f"--size={values.size} is odd; videos have even sizes")
    check_installed()
    from data_pipelines.synthetic.plan import Settings

    workers = values.workers or cores()
    report = synthesize(
        values.out, values.identities, values.clips, values.seed,
        test_identities=values.test_identities,
        settings=Settings(values.size, values.fps, values.seconds), workers=workers,
    )  # fmt: skip
    for split, total in report["splits"].items():
        print(f"{split}: {total['clips']} clips, {total['seconds']:.0f} s")
    made = report["made"]
    if made["clips"]:
        rate = made["frames"] / max(made["seconds"], 1e-9)
        print(f"{made['frames']} frames made at {rate:.1f} frames/s on {workers} processes")
    if values.sheet:
        draw_sheet(values.out, values.sheet)
        print(f"wrote {values.sheet}")


def define_flags() -> flags.FlagValues:
    """The command's flags, which exist only when it runs: other commands have some alike."""
    flags.DEFINE_string("out", None, "Folder of the corpus.")
    flags.DEFINE_integer("identities", 20, "People, those of the test split included.", 1, 99999)
    flags.DEFINE_integer("test_identities", None, "How many of them; a tenth by default.", 0)
    flags.DEFINE_integer("clips", 2, "Clips of each.", 1, 999)
    flags.DEFINE_integer("seed", 0, "Of everything.", lower_bound=0)
    flags.DEFINE_integer("size", 256, "Side of the frames, px.", 64, 2048)
    flags.DEFINE_float("fps", 25.0, "Frames a second.", 5.0, 120.0)
    flags.DEFINE_float("seconds", 4.0, "About how long a clip is.", 0.5, 600.0)
    flags.DEFINE_integer("workers", 0, "Processes; 0 for one per core.", lower_bound=0)
    flags.DEFINE_string("sheet", None, "Draw a contact sheet into this PNG file.")
    return flags.FLAGS


if __name__ == "__main__":
    exit_on_sigterm()
    flag_values = define_flags()
    app.run(
        functools.partial(run_main, functools.partial(main, values=flag_values)),
        flags_parser=parse_flags,
    )
