"""The whole evaluation, on clips, a detector and models whose answers are known."""

import csv
import io
import json

import cv2
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.media.video import VideoReader
from talkjax.metrics import baselines, evaluator, measure, protocol, report
from talkjax.metrics.clip_evaluator import MetricModels
from talkjax.metrics.videos import EvaluationClip
from talkjax.metrics.workspace import Workspace
from tests.metrics.synthetic import LoudGenerator, PatchDetector, make_clip, opening_curve


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [
        EvaluationClip(f"{n}.mkv", make_clip(folder / f"{n}.mkv", seed, ticks))
        for n, seed, ticks in (("a", 1, 50), ("b", 2, 62), ("c", 3, 50))
    ]


def run(clips, folder, generator=None, detector=None, **settings):
    return evaluator.evaluate_model(
        clips, generator or LoudGenerator(), detector or PatchDetector(), folder / "work",
        evaluator.EvaluationSettings(**settings),
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(clips, tmp_path_factory):
    return run(clips, tmp_path_factory.mktemp("evaluation"))


def value(result, row, metric):
    return result.report["rows"][row][metric]["mean"]


NOT_GIVEN = {"closures"}.union(*(names for names, _ in evaluator.NEEDED_MODELS.values()))


def test_every_row_has_every_number_or_the_report_says_why_not(result):
    report = result.report
    assert report["protocol"] == "1" and list(report["rows"]) == list(protocol.ROWS)
    assert set(report["missing"]) == NOT_GIVEN and all(report["missing"].values())
    for row, metrics in report["rows"].items():
        assert set(metrics) == set(protocol.expected(row)) - NOT_GIVEN
        for name, entry in metrics.items():
            assert set(entry) == {"mean", "ci95", "n"}
            if name != "opening_lag_ms" or row != "copy_mouth":
                assert entry["n"] == 3
                assert entry["ci95"][0] <= entry["mean"] <= entry["ci95"][1], (row, name)
    json.dumps(report, allow_nan=False)


def test_a_perfect_model_is_told_from_what_cannot_lip_sync(result):
    for row in ("model", "cross_driven", "ground_truth", "autoencoder"):
        assert value(result, row, "opening_correlation") > 0.97, row
        assert value(result, row, "opening_lag_ms") == 0
    for row in ("copy_template", "wrong_audio"):
        assert abs(value(result, row, "opening_correlation")) < 0.7, row
    assert value(result, "copy_mouth", "articulation") < 0.1
    assert value(result, "model", "articulation") == pytest.approx(1, abs=0.15)
    assert value(result, "model", "jitter") == pytest.approx(1, abs=0.3)


def test_pictures_are_compared_at_the_same_time(result):
    assert value(result, "ground_truth", "psnr") > 38
    assert value(result, "model", "psnr") > value(result, "wrong_audio", "psnr") + 3
    assert value(result, "model", "psnr") > value(result, "copy_mouth", "psnr") + 3
    assert value(result, "model", "ssim") > value(result, "copy_mouth", "ssim")
    assert value(result, "model", "lmd") < value(result, "copy_mouth", "lmd")


def test_silence_does_not_leak_from_a_model_that_keeps_still(result):
    assert value(result, "silence", "silence_leak") < 0.05


def test_the_settings_are_pinned(result):
    settings = result.report["settings"]
    assert settings["clips"] == ["a.mkv", "b.mkv", "c.mkv"]
    assert settings["partners"] == {"a.mkv": "b.mkv", "b.mkv": "c.mkv", "c.mkv": "a.mkv"}
    assert settings["versions"]["facemesh worker: patch"] == "1"
    assert "numpy" in settings["versions"] and settings["crop_size"] == 64
    assert list(settings["rows"]) == list(protocol.ROWS)
    assert list(settings["metrics"]) == list(protocol.METRICS)


def test_the_table_shows_rows_and_what_is_missing(result):
    lines = report.format_markdown(result.report).splitlines()
    cells = [c.strip() for c in lines[0].split("|")[1:-1]]
    assert cells == ["", "best", *protocol.ROWS]
    table = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in table} == {len(cells) + 1}
    psnr = next(line for line in table if line.startswith("| psnr "))
    assert f"{value(result, 'model', 'psnr'):.2f} ± " in psnr
    assert "Missing: lpips: no weights given; add --lpips=FILE." in lines


def test_the_csv_has_every_clip(result):
    lines = list(csv.DictReader(io.StringIO(report.format_csv(result.scores))))
    assert len(lines) == 3 * len(protocol.ROWS)
    for row in protocol.ROWS:
        values = [float(x["face_found"]) for x in lines if x["row"] == row]
        assert np.mean(values) == value(result, row, "face_found")
    psnr = [float(x["psnr"]) for x in lines if x["row"] == "model"]
    assert np.mean(psnr) == pytest.approx(value(result, "model", "psnr"), rel=1e-6)
    assert {x["psnr"] for x in lines if x["row"] == "silence"} == {""}


def test_a_second_evaluation_makes_nothing_anew(clips, tmp_path):
    first, detector = LoudGenerator(), PatchDetector()
    clips = clips[:2]
    before = run(clips, tmp_path, first, detector).report
    assert len(first.calls) == 6  # self, cross and silence of two clips
    again, idle = LoudGenerator(), PatchDetector()
    after = run(clips, tmp_path, again, idle).report
    assert not again.calls and not idle.frames
    assert after == before
    other = LoudGenerator(name="another")
    run(clips[:1], tmp_path, other)
    assert len(other.calls) == 2
    (tmp_path / "work").joinpath(next((tmp_path / "work").glob("cross-*.mp4")).name).unlink()
    run(clips, tmp_path, again, idle)
    assert len(again.calls) == 1


def test_an_interrupted_file_is_not_taken_for_a_whole_one(clips, tmp_path):
    class Broken(LoudGenerator):
        def generate(self, *, video, audio, out):
            out.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(clips, tmp_path, Broken())
    assert not list((tmp_path / "work").glob("*self*"))
    assert value(run(clips[:1], tmp_path), "model", "opening_correlation") > 0.97


def test_a_late_model_is_seen_to_be_late(clips, tmp_path):
    late = run(clips, tmp_path, LoudGenerator(late=3), rows=("model", "ground_truth"))
    assert value(late, "model", "opening_lag_ms") == 120
    assert value(late, "ground_truth", "opening_lag_ms") == 0


def test_long_clips_are_cut(clips, tmp_path):
    result = run(clips[:2], tmp_path, seconds=1.2)
    assert {len(c.curves["opening"]) for c in result.scores["model"].values()} == {30}
    assert value(result, "cross_driven", "opening_correlation") > 0.95
    assert len(list((tmp_path / "work").glob("audio-*.wav"))) == 2


def test_one_clip_alone_has_no_partner(clips, tmp_path):
    result = run(clips[:1], tmp_path)
    for row in protocol.NEEDS_PARTNER:
        assert row not in result.report["rows"]
        assert result.report["missing"][row] == "needs a second clip"
    assert result.report["rows"]["model"]["jitter"]["ci95"] is None
    assert value(result, "model", "opening_correlation") > 0.97


def test_a_failing_clip_is_reported_and_the_rest_goes_on(clips, tmp_path):
    class Picky(LoudGenerator):
        def generate(self, *, video, audio, out):
            if "b.mkv" in str(video):
                raise UserError("b cannot be done; try c")
            super().generate(video=video, audio=audio, out=out)

    result = run(clips, tmp_path, Picky())
    assert result.report["rows"]["model"]["psnr"]["n"] == 2
    assert {f["row"] for f in result.report["failures"]} == {
        "model",
        "cross_driven",
        "silence",
        "wrong_audio",
    }
    assert "b cannot be done" in report.format_markdown(result.report)


def test_nothing_measured_is_an_error(tmp_path):
    bad = tmp_path / "bad.mkv"
    bad.write_bytes(b"no video")
    with pytest.raises(UserError, match="no clip could be measured"):
        run([EvaluationClip("bad.mkv", bad)], tmp_path)
    with pytest.raises(UserError, match="no clip"):
        run([], tmp_path)


def test_closures_are_measured_where_phoneme_times_are_known(tmp_path):
    due = {"a": [[0.4, 0.48]], "b": [[0.9, 0.98]]}
    clips = []
    for seed, (name, times) in enumerate(due.items(), 1):
        clips.append(
            EvaluationClip(f"{name}.mkv", make_clip(tmp_path / f"{name}.mkv", seed, shut=times))
        )
        content = {"format": "talkjax-truth", "bilabial": times}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    made = run(clips, tmp_path)
    for row in ("model", "cross_driven", "ground_truth"):
        assert value(made, row, "closures") == 1, row
    for row in ("copy_template", "copy_mouth"):
        assert value(made, row, "closures") == 0, row
    for row in ("silence", "wrong_audio"):
        assert made.report["rows"][row].get("closures", {"n": 0})["n"] == (
            2 if row == "wrong_audio" else 0
        )
    assert "| closures" in report.format_markdown(made.report)


def test_extras_are_measured_where_they_are_given(clips, tmp_path):
    class Embedding:
        def __call__(self, face):
            vector = face.astype(float).mean((0, 1))
            return vector / np.linalg.norm(vector)

    def perceptual(a, b):
        assert a.shape == b.shape and a.dtype == np.uint8
        assert a.shape[1:] in ((40, 56, 3), (64, 64, 3))
        return np.abs(a.astype(float) - b).mean((1, 2, 3)) / 255

    class Features:
        sha256 = "0"

        def __call__(self, images):
            return images.astype(np.float32).mean((1, 2))

    models = MetricModels(perceptual=perceptual, embedding=Embedding(), features=Features())
    made = evaluator.evaluate_model(
        clips[:2], LoudGenerator(), PatchDetector(), tmp_path, models=models
    )
    for ending in ("", "_crop"):
        for metric in ("lpips", "fid"):
            name = f"{metric}{ending}"
            assert value(made, "ground_truth", name) < value(made, "copy_mouth", name)
    assert value(made, "model", "csim") > 0.99
    for name in ("csim", "fid"):
        assert name not in made.report["rows"]["wrong_audio"]
    assert set(made.report["missing"]) == {"closures", "lse_c", "lse_d", "av_offset_ms"}


def test_a_report_that_would_hold_nan_is_valid_json(clips, tmp_path):
    class Features:
        sha256 = "0"

        def __call__(self, images):
            return np.full((len(images), 2), np.nan, np.float32)

    made = evaluator.evaluate_model(
        clips[:2], LoudGenerator(), PatchDetector(), tmp_path,
        evaluator.EvaluationSettings(rows=("model",), more={"guidance": float("nan")}),
        MetricModels(features=Features(), perceptual=lambda a, b: np.full(len(a), np.inf)),
    ).report  # fmt: skip
    json.dumps(made, allow_nan=False)
    assert made["rows"]["model"]["fid"] == {"mean": None, "ci95": None, "n": 2}
    assert made["rows"]["model"]["lpips"] == {"mean": None, "ci95": None, "n": 0}
    assert made["settings"]["guidance"] is None


def test_a_reader_is_closed_when_its_user_fails(clips, monkeypatch):
    """At the error, and not when the traceback that holds the frame is collected."""
    closed = []

    class Reader:
        def __init__(self, path):
            self.reader = VideoReader(path)
            self.info = self.reader.info

        def __iter__(self):
            try:
                yield from self.reader
            finally:
                closed.append(True)

    monkeypatch.setattr(measure, "VideoReader", Reader)

    class Failing(PatchDetector):
        def detect(self, rgb):
            raise UserError("the detector failed")

    with pytest.raises(UserError) as kept:
        measure.measure_video(clips[0].path, Failing())
    assert kept.traceback and closed == [True]
    pairs = measure.read_frame_pairs(clips[0].path, clips[1].path, {0: 0, 1: 1})
    next(pairs)
    pairs.close()
    assert len(closed) == 3


def test_sheets_and_plots_are_drawn_of_the_best_the_median_and_the_worst(result, clips, tmp_path):
    names = evaluator.write_sheets(result, clips, tmp_path / "sheets")
    assert [name.split("-")[0] for name in names] == ["best", "median", "worst"]
    distance = {name: one.numbers["lmd"] for name, one in result.scores["model"].items()}
    best = min(distance, key=distance.get)
    assert names[0] == f"best-{best}.png"
    image = cv2.imread(str(tmp_path / "sheets" / names[0]))
    # Rows of the truth, the model, the autoencoder and the copy, then two plots.
    assert image.shape[0] > 4 * 80 + 600 and image.shape[1] > 8 * 112


def test_the_reference_copy_touches_nothing_outside_of_the_mouth(clips, tmp_path):
    clip, detector = clips[0], PatchDetector()
    measured = measure.measure_video(clip.path, detector)
    chosen = baselines.choose_reference_frames(measured)
    # Sampling prefers a moderately open mouth.
    curve = opening_curve(1)
    assert len(set(chosen)) == 1 and abs(curve[chosen[0]] - np.quantile(curve, 0.7)) < 0.05
    out = tmp_path / "copy.mp4"
    baselines.write_copied_mouth(clip.path, out, measured, chosen, 64, None)
    copied = measure.measure_video(out, detector)
    assert len(copied.times) == len(measured.times)
    assert np.ptp(copied.opening()) < 0.05 * np.ptp(measured.opening())
    pairs = measure.match_frames(measured, copied)
    for number, a, b in measure.read_frame_pairs(clip.path, out, pairs):
        # The mean of 8 x 8 px: a codec moves single pixels by 15 and more.
        difference = cv2.blur(np.abs(a.astype(np.float32) - b), (8, 8))
        assert difference[:56].max() < 8 and difference[:, :36].max() < 8, number


def test_frames_without_a_face_are_left_out():
    times = np.arange(4) / 25
    transforms = np.tile(np.eye(2, 3), (4, 1, 1))
    transforms[1] = np.nan
    landmarks = np.zeros((4, 131, 2), np.float32)
    size = np.array([160, 160])
    seen, cuts = np.ones(4, bool), np.zeros(4, bool)
    truth = measure.Measurement(times, landmarks, seen, transforms, size, cuts)
    other = measure.Measurement(
        times[:3] + 0.001, landmarks[:3], seen[:3], transforms[:3], size, cuts[:3]
    )
    assert measure.match_frames(truth, other) == {0: 0, 2: 2}


def test_the_work_folder_makes_things_once(tmp_path):
    space, calls = Workspace(tmp_path / "w"), []

    def make(path):
        calls.append(path)
        path.write_text("x")

    one = space.get_or_make("kind", "a b/c", {"x": 1}, ".txt", make)
    assert space.get_or_make("kind", "a b/c", {"x": 1}, ".txt", make) == one and len(calls) == 1
    assert space.get_or_make("kind", "a b/c", {"x": 2}, ".txt", make) != one
    assert one.name.startswith("kind-a_b_c-") and one.suffix == ".txt"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="work folder"):
        Workspace(tmp_path / "file")
