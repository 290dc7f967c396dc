"""Makes speech with exact landmarks and no pictures: much data for the landmark stage, quickly.

    python -m data_pipelines.synthesize_speech --out=SPEECH --clips=3000 --seed=1

Each clip has a face, a drawn voice and sentences of its own; what is left out of `synthesize` is
painting, drawing and finding the face again, which is nearly all of the work. SPEECH then holds
shards like those of `data_pipelines.prepare`, all of the training split, whose landmarks are the
avatars' own where `prepare` has what FaceMesh measures. Only the stage `landmark` can use them;
train on prepared videos afterwards, so that the network learns how FaceMesh sees a mouth.

Needs espeak-ng and numba: `pip install talkjax[speech]`. A run that was stopped is started again
with the same command and goes on; SPEECH/.cache may be deleted afterwards.
"""

import functools
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags
from tqdm import tqdm

from data_pipelines.packing import pack
from data_pipelines.preparation import make_packing
from data_pipelines.synthesize import check_installed
from data_pipelines.workers import cores
from talkjax import files
from talkjax.commands import exit_on_sigterm, parse_flags, run_main
from talkjax.conventions import SAMPLE_RATE, TICKS_PER_SECOND
from talkjax.data import records
from talkjax.errors import UserError

VERSION = 1  # raise it whenever the same plan gives other landmarks or sounds
_SECONDS_PER_CLIP = 300.0  # after which a clip counts as hung
_CLIPS_PER_JOB = 20


def synthesize_speech(
    out: str | os.PathLike, clips: int, seed: int, seconds: float, workers: int
) -> dict[str, Any]:
    """Makes the shards, or what is missing of them; see the module's docstring.

    Args:
      out: their folder.
      clips: how many.
      seed: of everything.
      seconds: about how long a clip is.
      workers: processes. The shards do not depend on their number.

    Returns:
      {"clips", "seconds" (of speech), "made", "elapsed_seconds"}.

    Raises:
      UserError: something is not installed, the folder cannot be written or is of other flags.
    """
    check_installed()
    from data_pipelines.synthetic.plan import Settings, plan_speech
    from data_pipelines.workers import JobError, run_jobs

    started, out = time.monotonic(), pathlib.Path(out)
    cache, settings = out / ".cache", Settings(seconds=seconds)
    wanted = {"format": "talkjax-speech", "version": VERSION, "seed": seed, "seconds": seconds}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _claim(out / "speech.json", wanted)
        plans = plan_speech(clips, seed, settings)
        todo = [p for p in plans if not (cache / f"{p.clip_id}.npz").is_file()]
        jobs = [todo[i : i + _CLIPS_PER_JOB] for i in range(0, len(todo), _CLIPS_PER_JOB)]
        work = functools.partial(make_work, os.fspath(cache), settings)
        with tqdm(total=clips, initial=clips - len(todo), desc="speaking", unit="clip") as bar:
            limit = _SECONDS_PER_CLIP * _CLIPS_PER_JOB
            for job, result in run_jobs(jobs, work, workers, limit):
                if isinstance(result, JobError):
                    first, last = job[0].clip_id, job[-1].clip_id
                    raise UserError(f"clips {first} to {last}: {result} (what is done is kept)")
                bar.update(len(job))
        outcomes = [_outcome(cache, p.clip_id) for p in plans]
        splits = {o["source"]: "train" for o in outcomes}
        pack(out, make_packing(outcomes, splits, cache, crop_size=0))
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {error.strerror or error}; make room there or choose "
            "another --out (what is done is kept)"
        ) from error
    ticks = sum(o["parts"][0]["ticks"] for o in outcomes)
    return {
        "clips": clips,
        "seconds": ticks / TICKS_PER_SECOND,
        "made": len(todo),
        "elapsed_seconds": round(time.monotonic() - started, 1),
    }


def _claim(path: pathlib.Path, wanted: dict[str, Any]) -> None:
    """Marks a folder as one for these flags, or makes sure that it is."""
    if not path.exists():
        files.write_json(path, wanted)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if found != wanted:
        raise UserError(
            f"{path.parent} holds speech made with another --seed or --seconds; choose another "
            "--out or remove it"
        )


def _outcome(cache: pathlib.Path, clip_id: str) -> dict[str, Any]:
    """What `make_packing` wants to know of a clip."""
    ticks = len(records.load_npz(cache / f"{clip_id}.npz").landmarks)
    return {
        "source": clip_id,
        "parts": [{"clip_id": clip_id, "file": f"{clip_id}.npz", "ticks": ticks}],
    }


def make_work(cache: str, settings) -> Callable[[list], list[str]]:
    """Prepares a process; gives the function that makes some clips and returns their ids."""
    return functools.partial(_make_clips, pathlib.Path(cache), settings)


def _make_clips(cache: pathlib.Path, settings, plans: Sequence) -> list[str]:
    for p in plans:
        records.save_npz(cache / f"{p.clip_id}.npz", make_record(p, settings))
    return [p.clip_id for p in plans]


def make_record(plan, settings) -> records.ClipRecord:
    """Speaks one clip and follows its face.

    Args:
      plan: a `plan.ClipPlan`.
      settings: a `plan.Settings`.

    Returns:
      A record as of `extract.extract_video`, with empty pictures.
    """
    import numpy as np
    import soxr

    from data_pipelines import extract
    from data_pipelines.synthetic import clip
    from talkjax import head_pose
    from talkjax.media import audio

    performance = clip.perform(plan, settings)
    points = clip.follow(plan, settings, performance)
    times = np.arange(len(points)) / settings.fps
    wave = soxr.resample(performance.samples, performance.rate, SAMPLE_RATE)
    return extract.make_record(
        plan.clip_id,
        times,
        points,
        head_pose.fit_transforms(points, times),
        np.ones(len(points), bool),
        [b""] * len(points),
        audio.log_mel(wave),
        len(wave) / SAMPLE_RATE,
        settings.fps,
    )


def main(argv: Sequence[str], values: flags.FlagValues) -> None:
    """The command; `values` are the flags of `define_flags`."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; options are written --name=value")
    if not values.out:
        raise UserError("say where the shards are to go: --out=SPEECH")
    report = synthesize_speech(
        values.out, values.clips, values.seed, values.seconds, values.workers or cores()
    )
    print(f"{report['clips']} clips, {report['seconds']:.0f} s of speech")
    if report["made"]:
        print(f"{report['made']} made in {report['elapsed_seconds']:.0f} s")


def define_flags() -> flags.FlagValues:
    """The command's flags, which exist only when it runs: other commands have some alike."""
    flags.DEFINE_string("out", None, "Folder of the shards.")
    flags.DEFINE_integer("clips", 3000, "Clips.", 1, 999_999)
    flags.DEFINE_integer("seed", 1, "Of everything.", lower_bound=0)
    flags.DEFINE_float("seconds", 4.0, "About how long a clip is.", 1.5, 600.0)
    flags.DEFINE_integer("workers", 0, "Processes; 0 for one per core.", lower_bound=0)
    return flags.FLAGS


if __name__ == "__main__":
    exit_on_sigterm()
    flag_values = define_flags()
    app.run(
        functools.partial(run_main, functools.partial(main, values=flag_values)),
        flags_parser=parse_flags,
    )
