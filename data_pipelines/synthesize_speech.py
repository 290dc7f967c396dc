"""Makes speech with exact landmarks but without images, a fast source of data for one stage.

    python -m data_pipelines.synthesize_speech --out=SPEECH --clips=3000 --seed=1

Every clip has its own face, its own randomly drawn voice and its own sentences. Compared with
`synthesize`, it skips painting, rendering and face detection, which are nearly all of the work.

SPEECH then holds shards like those of `data_pipelines.prepare`, all in the training split. Their
landmarks are the avatars' own, where `prepare` stores the measurements of FaceMesh. Only the stage
`landmark` can use them. Train on prepared videos afterwards, so that the network learns how
FaceMesh sees a mouth.

A run that was stopped continues with the same command. SPEECH/.cache may be deleted afterwards.
Needs espeak-ng and numba: `pip install "talkjax[speech]"`.
"""

import functools
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from tqdm import tqdm

from talkjax import commands, files
from talkjax.conventions import SAMPLE_RATE, TICKS_PER_SECOND
from talkjax.data import records
from talkjax.errors import UserError

from .packing import pack
from .preparation import make_packing
from .synthesize import check_installed
from .workers import JobError, cores, run_jobs

VERSION = 2  # Raise it whenever the same plan gives other landmarks or sounds.
_SECONDS_PER_CLIP = 300.0  # Time limit of a clip.
_CLIPS_PER_JOB = 20


def synthesize_speech(
    out: str | os.PathLike, clips: int, seed: int, seconds: float, workers: int
) -> dict[str, Any]:
    """Makes the clips that do not exist yet and packs all of them into shards.

    Args:
      out: Folder of the shards.
      clips: Number of clips.
      seed: Seed of all clips.
      seconds: Approximate duration of a clip in seconds.
      workers: Number of processes, on which the shards do not depend.

    Returns:
      {"clips", "seconds", "made", "elapsed_seconds"}: the number of clips and their duration, the
      number of new clips and the time taken.

    Raises:
      UserError: A package is missing, or `out` cannot be written or was made with other settings.
    """
    check_installed()
    from .synthetic.plan import CorpusSettings, plan_speech

    started, out = time.monotonic(), pathlib.Path(out)
    cache, settings = out / ".cache", CorpusSettings(seconds=seconds)
    wanted = {"format": "talkjax-speech", "version": VERSION, "seed": seed, "seconds": seconds}
    try:
        cache.mkdir(parents=True, exist_ok=True)
        _claim_folder(out, wanted)
        plans = plan_speech(clips, seed, settings)
        todo = [p for p in plans if not (cache / f"{p.clip_id}.npz").is_file()]
        jobs = [todo[i : i + _CLIPS_PER_JOB] for i in range(0, len(todo), _CLIPS_PER_JOB)]
        make_work = functools.partial(_make_work, cache, settings)
        limit = _SECONDS_PER_CLIP * _CLIPS_PER_JOB
        with tqdm(total=clips, initial=clips - len(todo), desc="speaking", unit="clip") as bar:
            for job, result in run_jobs(jobs, make_work, workers, limit):
                if isinstance(result, JobError):
                    first, last = job[0].clip_id, job[-1].clip_id
                    raise UserError(
                        f"clips {first} to {last} failed: {result} (finished clips are kept)"
                    )
                bar.update(len(job))
        outcomes = [_describe_clip(cache, p.clip_id) for p in plans]
        splits = {o["source"]: "train" for o in outcomes}
        pack(out, make_packing(outcomes, splits, cache, crop_size=0))
    except UserError:
        raise
    except OSError as error:
        raise files.WriteError(
            f"cannot write to {out} ({error.strerror or error}); make room or choose another "
            "folder (finished clips are kept)"
        ) from error
    ticks = sum(o["parts"][0]["ticks"] for o in outcomes)
    return {
        "clips": clips,
        "seconds": ticks / TICKS_PER_SECOND,
        "made": len(todo),
        "elapsed_seconds": round(time.monotonic() - started, 1),
    }


def _claim_folder(out: pathlib.Path, wanted: dict[str, Any]) -> None:
    """Marks a folder with its settings, or checks that they are these."""
    path, remedy = out / "speech.json", "choose another folder or remove it"
    if not path.exists():
        files.write_json(path, wanted)
    elif files.read_json_object(path, remedy) != wanted:
        raise UserError(f"{out} holds speech of another seed or duration; {remedy}")


def _describe_clip(cache: pathlib.Path, clip_id: str) -> dict[str, Any]:
    """Returns what `make_packing` needs to know of a clip."""
    ticks = len(records.load_npz(cache / f"{clip_id}.npz").landmarks)
    return {
        "source": clip_id,
        "parts": [{"clip_id": clip_id, "file": f"{clip_id}.npz", "ticks": ticks}],
    }


def _make_work(cache: pathlib.Path, settings) -> Callable[[list], list[str]]:
    """Initializes a worker process and returns its function."""
    return functools.partial(_make_clips, cache, settings)


def _make_clips(cache: pathlib.Path, settings, plans: Sequence) -> list[str]:
    for p in plans:
        records.save_npz(cache / f"{p.clip_id}.npz", make_speech_record(p, settings))
    return [p.clip_id for p in plans]


def make_speech_record(plan, settings) -> records.ClipRecord:
    """Makes the record of one clip.

    Args:
      plan: A `plan.ClipPlan`.
      settings: A `plan.CorpusSettings`.

    Returns:
      A record like those of `extract.extract_video`, with empty images.
    """
    import numpy as np
    import soxr

    from talkjax import head_pose
    from talkjax.media import audio

    from . import extract
    from .synthetic import clip

    performance = clip.make_performance(plan, settings)
    points = clip.compute_landmarks(plan, settings, performance)
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


def make_parser() -> commands.Parser:
    """Creates the parser of the command's flags."""
    parser = commands.Parser(__doc__, prog="python -m data_pipelines.synthesize_speech")
    add = parser.add_argument
    add("--out", required=True, metavar="SPEECH", help="folder of the shards (required)")
    add(
        "--clips",
        metavar="N",
        type=commands.bounded(int, 1, 999_999),
        default=3000,
        help="number of clips (default: %(default)s)",
    )
    add(
        "--seed",
        metavar="N",
        type=commands.bounded(int, 0),
        default=1,
        help="seed of all clips (default: %(default)s)",
    )
    add(
        "--seconds",
        type=commands.bounded(float, 1.5, 600.0),
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
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    flags = make_parser().parse_args(argv)
    report = synthesize_speech(
        flags.out, flags.clips, flags.seed, flags.seconds, flags.workers or cores()
    )
    print(f"{report['clips']} clips, {report['seconds']:.0f} s of speech")
    if report["made"]:
        print(f"{report['made']} new clips in {report['elapsed_seconds']:.0f} s")


def run() -> NoReturn:
    """Runs the command on the program's arguments."""
    commands.run(main)


if __name__ == "__main__":
    run()
