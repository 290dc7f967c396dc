"""Measures how far real mouths lead or follow the rules of the synthetic corpus.

    python -m benchmarks.viseme_timing --videos=TABLE [--per_speaker=20]

TABLE is a tab-separated file with the columns path, speaker and text: videos of people, and what
they say in English. The sound is aligned with the words; the phones move the mouth of an avatar by
`data_pipelines.synthetic.animation.visemes`, and its opening and width are compared with those that
FaceMesh finds in the video. A positive lag means that the rules are late. Lags by class come from
0.4 s around each phone; rounded sounds are compared by the mouth's width, the others by its
opening. The intervals are 95% bootstrap intervals over phones.
"""

import collections
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from data_pipelines.synthetic import scene
from data_pipelines.synthetic.animation import visemes
from data_pipelines.synthetic.geometry.face import FaceGeometry
from data_pipelines.synthetic.geometry.shape import Shape
from data_pipelines.synthetic.speech import arpabet, forced_alignment, recordings
from data_pipelines.synthetic.speech.phonemes import Phoneme, add_holds
from talkjax import commands, conventions
from talkjax.media.facemesh import FaceMesh
from talkjax.media.video import VideoReader

RATE = 100  # Hz of the compared curves.
_MOST = 25  # Steps of the longest lag.
_HALF = 20  # Steps on either side of a phone.
_STILL = dict.fromkeys(("yaw", "pitch", "roll", "x", "y", "z", "blink", "brow", "breath"), 0.0)


@dataclass(frozen=True, eq=False)
class Clip:
    """A video: phonemes, and (T,) opening and width of its mouth and of the rules' at `RATE`."""

    speaker: str
    phonemes: tuple[Phoneme, ...]
    real: dict[str, np.ndarray]
    rule: dict[str, np.ndarray]


def measure_mouth(points: np.ndarray) -> dict[str, np.ndarray]:
    """Measures (T, 131, 2) landmarks: opening and width in interocular distances, (T,) each."""
    left, right = conventions.positions((61, 291))
    width = np.linalg.norm(points[:, left] - points[:, right], axis=-1)
    return {
        "opening": conventions.mouth_opening(points),
        "width": width / conventions.interocular(points),
    }


def read_mouth(mesh: FaceMesh, path: str) -> dict[str, np.ndarray] | None:
    """Measures a video's mouth at `RATE`; None if faces are missing."""
    mesh.reset()
    times, points = [], []
    with VideoReader(path) as video:
        for frame in video:
            found = mesh.detect(frame.rgb)
            if len(found):
                times.append(frame.time)
                points.append(conventions.select(found[0]).astype(float))
    if len(times) < 0.95 * (frame.index + 1):
        return None
    at = np.arange(int(times[-1] * RATE)) / RATE
    return {k: CubicSpline(times, v)(at) for k, v in measure_mouth(np.stack(points)).items()}


def compute_mouth(phonemes, steps: int, face: FaceGeometry) -> dict[str, np.ndarray]:
    """Computes the rules' mouth on the mean face, looking straight ahead."""
    camera = scene.sample_camera(np.random.default_rng(0))
    curves = visemes.compute_curves(phonemes, steps / RATE, RATE)[:steps]
    poses = (scene.Pose(**_STILL, gaze=(0.0, 0.0), visemes=tuple(map(float, c))) for c in curves)
    mesh = np.stack([face.landmarks(pose, camera, 256) for pose in poses])
    return measure_mouth(conventions.select(mesh).astype(float))


def read_clips(rows: Sequence[recordings.Recording]) -> tuple[list[Clip], dict[str, int]]:
    """Reads videos; returns those that can be used, and the numbers of the others by reason."""
    clips, dropped = [], collections.Counter()
    aligner, face = forced_alignment.Aligner(), FaceGeometry(Shape())
    with FaceMesh() as mesh:
        for row in rows:
            samples = recordings.load(row.path)
            found = aligner.align(samples, row.text)
            if fault := recordings.find_fault(found, row, len(samples) / recordings.RATE):
                dropped[fault] += 1
                continue
            real = read_mouth(mesh, row.path)
            if real is None:
                dropped["no face"] += 1
                continue
            phonemes = [
                Phoneme(arpabet.to_ipa(p.label, p.end - p.start), p.start, p.end)
                for p in found.phones
                if not arpabet.is_pause(p.label)
            ]
            phonemes = add_holds(phonemes, samples, recordings.RATE)
            rule = compute_mouth(phonemes, len(real["opening"]), face)
            clips.append(Clip(row.speaker, phonemes, real, rule))
    return clips, dict(dropped)


def find_events(clips: Sequence[Clip], kind: str) -> np.ndarray:
    """Compares real and rule around all phones of a class.

    Returns:
      (n, 3, 2 * _MOST + 1): products, and the energies of the two, for each lag.
    """
    signal = "width" if kind == "rounded" else "opening"
    lags, out = range(-_MOST, _MOST + 1), []
    for clip in clips:
        real, rule = (
            (c - c.mean()) / max(c.std(), 1e-9) for c in (clip.real[signal], clip.rule[signal])
        )
        for p in clip.phonemes:
            middle = round(RATE * (p.start + p.end) / 2)
            if visemes.classify(p.symbol) != kind or not (
                _HALF + _MOST <= middle < min(len(real), len(rule)) - _HALF - _MOST
            ):
                continue
            x = real[middle - _HALF : middle + _HALF]
            x = x - x.mean()
            shifted = (rule[middle - _HALF + k : middle + _HALF + k] for k in lags)
            ys = [y - y.mean() for y in shifted]
            out.append([[x @ y for y in ys], [x @ x] * len(ys), [y @ y for y in ys]])
    return np.array(out).reshape(-1, 3, len(lags))


def find_peak(events: np.ndarray) -> tuple[float, float]:
    """Returns the lag in milliseconds at which correlation is highest, and its value at lag 0."""
    product, one, two = events.sum(0)
    curve = product / np.sqrt(one * two)
    i = int(curve.argmax())
    offset = 0.0
    if 0 < i < 2 * _MOST:
        before, here, after = curve[i - 1 : i + 2]
        offset = 0.5 * (before - after) / (before - 2 * here + after)
    return 1000 / RATE * (i - _MOST + offset), float(curve[_MOST])


def report(clips: Sequence[Clip], rng: np.random.Generator) -> dict[str, dict]:
    """Measures each class: number of phones, lag, its interval, and correlation at lag 0."""
    out = {}
    for kind in sorted({visemes.classify(p.symbol) for c in clips for p in c.phonemes}):
        events = find_events(clips, kind)
        if len(events) < 5:
            continue
        lag, correlation = find_peak(events)
        drawn = [find_peak(events[rng.integers(len(events), size=len(events))])[0]
                 for _ in range(200)]  # fmt: skip
        out[kind] = {
            "phones": len(events),
            "lag_ms": round(lag, 1),
            "interval_ms": np.percentile(drawn, (2.5, 97.5)).round(1).tolist(),
            "correlation": round(correlation, 3),
        }
    return out


def make_parser() -> commands.Parser:
    """Returns the parser of this command's flags."""
    parser = commands.Parser(__doc__, prog="python -m benchmarks.viseme_timing")
    add = parser.add_argument
    add("--videos", metavar="TSV", required=True, help="table of videos with their words")
    add(
        "--per_speaker",
        type=commands.bounded(int, 1),
        default=20,
        help="most videos of a speaker, the first in the table (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Measures the videos of a table and prints a line per class, then one of JSON."""
    flags = make_parser().parse_args(argv)
    taken: collections.Counter[str] = collections.Counter()
    rows = []
    for row in recordings.read_table(flags.videos):
        taken[row.speaker] += 1
        rows += [row] if taken[row.speaker] <= flags.per_speaker else []
    clips, dropped = read_clips(rows)
    classes = report(clips, np.random.default_rng(0))
    fits = [np.corrcoef(c.real["opening"], c.rule["opening"])[0, 1] for c in clips]
    for kind, row in classes.items():
        low, high = row["interval_ms"]
        print(f"{kind:12} {row['phones']:5} phones, lag {row['lag_ms']:6.1f} ms [{low}, {high}], "
              f"correlation {row['correlation']:.2f}")  # fmt: skip
    summary = {"clips": len(clips), "speakers": len(taken), "dropped": dropped, "classes": classes}
    print(json.dumps(summary | {"opening_correlation": round(float(np.mean(fits)), 3)}))


if __name__ == "__main__":
    commands.run(main)
