"""Makes speech with exact landmarks but without images, a fast source of data for one stage.

    python -m data_pipelines.synthesize_speech --out=SPEECH --clips=3000 --seed=1

Every clip has its own face, its own randomly drawn voice and its own sentences. Compared with
`synthesize`, it skips painting, rendering and face detection, which are nearly all of the work.

Lips come from rules. The sound may come from espeak-ng, whose voices are artificial, from Kokoro,
whose voices are natural, and from recordings of real people:

    ... --voices=espeak,kokoro --kokoro_model=kokoro-v1.0.onnx --kokoro_voices=voices-v1.0.bin
    ... --voices= --recordings=TABLE.tsv [--alignments=PHONES.ctm]

The voices of a list take turns. TABLE has the columns path, speaker and text, and optionally
language and alignment: a TextGrid, CTM or JSON lines file with the times of the phones. English
recordings without one are aligned here. All recordings are used, whatever --clips says, except
those whose alignment is uncertain, which are counted.

SPEECH then holds shards like those of `data_pipelines.prepare`, all in the training split. Their
landmarks are the avatars' own, where `prepare` stores the measurements of FaceMesh. Only the stage
`landmark` can use them. Train on prepared videos afterwards, so that the network learns how
FaceMesh sees a mouth.

A run that was stopped continues with the same command. SPEECH/.cache may be deleted afterwards; it
keeps what Kokoro said and the alignments, so that a later version can make the shards anew without
them. Needs espeak-ng and numba: `pip install "talkjax[speech]"`; Kokoro and alignment need
`pip install "talkjax[voices]"`.
"""

import functools
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from tqdm import tqdm

from talkjax import commands, files
from talkjax.conventions import SAMPLE_RATE, TICKS_PER_SECOND
from talkjax.data import records
from talkjax.errors import UserError

from .packing import pack
from .preparation import list_counts, make_packing
from .speech_sources import VOICES, Sources, plan_sources
from .synthesize import check_installed
from .workers import JobError, cores, run_jobs

VERSION = 3  # Raise it whenever the same plan gives other landmarks or sounds.
_SECONDS_PER_CLIP = 300.0  # Time limit of a clip.
_CLIPS_PER_JOB = 20


def synthesize_speech(
    out: str | os.PathLike,
    clips: int,
    seed: int,
    seconds: float,
    workers: int,
    sources: Sources | None = None,
    drawn: int = 0,
) -> dict[str, Any]:
    """Makes the clips that do not exist yet and packs all of them into shards.

    Args:
      out: Folder of the shards.
      clips: Number of clips of synthesizers.
      seed: Seed of all clips.
      seconds: Approximate duration of a clip in seconds.
      workers: Number of processes, on which the shards do not depend.
      sources: Where the sound comes from; None is espeak-ng.
      drawn: Number of clips, spread over all of them, that are drawn as videos as well.

    Returns:
      {"clips", "seconds", "made", "elapsed_seconds", "dropped"}: the number of clips and their
      duration, the number of new clips and the time taken, and the numbers of recordings that were
      left out, by reason.

    Raises:
      UserError: A package or a file is missing, `out` cannot be written or was made with other
        settings, or no recording can be used.
    """
    check_installed()
    from .synthetic.plan import CorpusSettings
    from .synthetic.speech.speaking import KokoroFiles

    sources = sources or Sources()
    started, out = time.monotonic(), pathlib.Path(out)
    cache, settings = out / ".cache", CorpusSettings(seconds=seconds)
    made, spoken = cache / f"clips_{VERSION}", cache / "kokoro"
    try:
        sources.check()
        wanted = {"format": "talkjax-speech", "seed": seed, "seconds": seconds}
        wanted |= sources.describe()
        claimed = _check_folder(out, wanted)
        for folder in (made, spoken):
            folder.mkdir(parents=True, exist_ok=True)
        plans, dropped = plan_sources(sources, clips, seed, settings, cache, workers)
        if not claimed:
            files.write_json(out / "speech.json", wanted)
        kokoro = None
        if "kokoro" in sources.voices:
            kokoro = KokoroFiles(sources.kokoro_model, sources.kokoro_voices, spoken)
        todo = [p for p in plans if not (made / f"{p.clip_id}.npz").is_file()]
        _run(_make_clips, made, todo, len(plans), settings, kokoro, workers)
        if drawn:
            chosen = [plans[i * len(plans) // drawn] for i in range(min(drawn, len(plans)))]
            videos = out / "videos"
            (videos / "train").mkdir(parents=True, exist_ok=True)
            _run(_draw_clips, videos, chosen, drawn, settings, kokoro, workers)
        outcomes = [_describe_clip(made, p.clip_id) for p in plans]
        splits = {o["source"]: "train" for o in outcomes}
        pack(out, make_packing(outcomes, splits, made, crop_size=0))
    except UserError:
        raise
    except OSError as error:
        raise files.WriteError(
            f"cannot write to {out} ({error.strerror or error}); make room or choose another "
            "folder (finished clips are kept)"
        ) from error
    ticks = sum(o["parts"][0]["ticks"] for o in outcomes)
    return {
        "clips": len(plans),
        "seconds": ticks / TICKS_PER_SECOND,
        "made": len(todo),
        "elapsed_seconds": round(time.monotonic() - started, 1),
        "dropped": dropped,
    }


def _run(work: Callable, folder: pathlib.Path, todo: Sequence, total: int, *how) -> None:
    """Does `work(folder, settings, speak, plans)` for some clips at a time."""
    settings, kokoro, workers = how
    jobs = [todo[i : i + _CLIPS_PER_JOB] for i in range(0, len(todo), _CLIPS_PER_JOB)]
    make_work = functools.partial(_make_work, work, folder, settings, kokoro)
    limit = _SECONDS_PER_CLIP * _CLIPS_PER_JOB
    desc = "speaking" if work is _make_clips else "drawing"
    with tqdm(total=total, initial=max(total - len(todo), 0), desc=desc, unit="clip") as bar:
        for job, result in run_jobs(jobs, make_work, workers, limit):
            if isinstance(result, JobError):
                first, last = job[0].clip_id, job[-1].clip_id
                raise UserError(
                    f"clips {first} to {last} failed: {result} (finished clips are kept)"
                )
            if result is not None:
                raise UserError(f"{result} (finished clips are kept)")
            bar.update(len(job))


def _check_folder(out: pathlib.Path, wanted: dict[str, Any]) -> bool:
    """Returns whether a folder was made with these settings; False if it is new."""
    path, remedy = out / "speech.json", "choose another folder or remove it"
    if not path.exists():
        return False
    if files.read_json_object(path, remedy) != wanted:
        raise UserError(f"{out} holds speech of another seed, duration or source; {remedy}")
    return True


def _describe_clip(cache: pathlib.Path, clip_id: str) -> dict[str, Any]:
    """Returns what `make_packing` needs to know of a clip."""
    ticks = len(records.load_npz(cache / f"{clip_id}.npz").landmarks)
    return {
        "source": clip_id,
        "parts": [{"clip_id": clip_id, "file": f"{clip_id}.npz", "ticks": ticks}],
    }


def _make_work(work: Callable, folder: pathlib.Path, settings, kokoro) -> Callable:
    """Initializes a worker process and returns its function."""
    from .synthetic.speech.speaking import make_speak

    return functools.partial(_do, work, folder, settings, make_speak(kokoro))


def _do(work: Callable, folder: pathlib.Path, settings, speak, plans: Sequence) -> str | None:
    """Works on a job; returns the message of a `UserError`."""
    try:
        work(folder, settings, speak, plans)
    except files.WriteError:
        raise
    except UserError as error:
        return str(error)
    return None


def _make_clips(cache: pathlib.Path, settings, speak, plans: Sequence) -> None:
    for p in plans:
        records.save_npz(cache / f"{p.clip_id}.npz", make_speech_record(p, settings, speak))


def _draw_clips(out: pathlib.Path, settings, speak, plans: Sequence) -> None:
    from .synthetic import clip, sidecar

    for p in plans:
        video = out / p.split / f"{p.clip_id}.mp4"
        if not sidecar.is_finished(video, p.to_json(), asdict(settings)):
            clip.make_clip(p, settings, out, speak=speak)


def make_speech_record(plan, settings, speak=None) -> records.ClipRecord:
    """Makes the record of one clip.

    Args:
      plan: A `plan.ClipPlan`.
      settings: A `plan.CorpusSettings`.
      speak: A `speaking.Speak`; None is espeak-ng's.

    Returns:
      A record like those of `extract.extract_video`, with empty images.
    """
    import numpy as np
    import soxr

    from talkjax import head_pose
    from talkjax.media import audio

    from . import extract
    from .synthetic import clip
    from .synthetic.speech import speaking

    performance = clip.make_performance(plan, settings, speak or speaking.make_speak())
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
        "--voices",
        metavar="KINDS",
        type=commands.comma_separated,
        default=["espeak"],
        help=f"voices that take turns, separated by commas: {', '.join(VOICES)} (default: espeak)",
    )
    add("--kokoro_model", metavar="ONNX", help="Kokoro's model, kokoro-v1.0.onnx")
    add("--kokoro_voices", metavar="BIN", help="Kokoro's voices, voices-v1.0.bin")
    add(
        "--texts",
        metavar="TXT",
        help="English sentences for half of the English clips, a line each",
    )
    add("--recordings", metavar="TSV", help="recordings with the columns path, speaker and text")
    add(
        "--alignments",
        metavar="FILE",
        help="phone times of all recordings (.ctm, .jsonl); without it, they are aligned here",
    )
    add(
        "--draw",
        metavar="N",
        type=commands.bounded(int, 0),
        default=0,
        help="also draw N of the clips as videos with ground truth, into SPEECH/videos",
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
    sources = Sources(
        tuple(flags.voices),
        flags.kokoro_model,
        flags.kokoro_voices,
        flags.texts,
        flags.recordings,
        flags.alignments,
    )
    report = synthesize_speech(
        flags.out,
        flags.clips,
        flags.seed,
        flags.seconds,
        flags.workers or cores(),
        sources,
        flags.draw,
    )
    print(f"{report['clips']} clips, {report['seconds']:.0f} s of speech")
    if report["made"]:
        print(f"{report['made']} new clips in {report['elapsed_seconds']:.0f} s")
    if report["dropped"]:
        print(f"recordings left out: {list_counts(report['dropped'])}")


def run() -> NoReturn:
    """Runs the command on the program's arguments."""
    commands.run(main)


if __name__ == "__main__":
    run()
