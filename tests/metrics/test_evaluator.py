"""The whole evaluation, on clips, a detector and models whose answers are known."""

import json

import cv2
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.metrics import baselines, evaluator, measure, report, rows
from talkjax.metrics.videos import Clip
from talkjax.metrics.workspace import Workspace
from tests.metrics.synthetic import LoudGenerator, PatchDetector, make_clip, opening_curve


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [
        Clip(f"{n}.mkv", make_clip(folder / f"{n}.mkv", seed, ticks))
        for n, seed, ticks in (("a", 1, 50), ("b", 2, 62), ("c", 3, 50))
    ]


def run(clips, folder, generator=None, detector=None, **settings):
    return evaluator.evaluate(
        clips, generator or LoudGenerator(), detector or PatchDetector(), folder / "work",
        evaluator.Settings(**settings),
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(clips, tmp_path_factory):
    return run(clips, tmp_path_factory.mktemp("evaluation"))


def value(result, row, metric):
    return result.report["rows"][row]["metrics"][metric]["value"]


def test_every_row_has_every_number_or_says_why_not(result):
    assert list(result.report["rows"]) == list(rows.ROWS)
    for row, content in result.report["rows"].items():
        assert content["clips"] == 3
        assert list(content["metrics"]) == list(rows.expected(row))
        for name, entry in content["metrics"].items():
            if name in ("closures", "lpips", "csim", "fid", "lse_c", "lse_d"):
                assert list(entry) == ["missing"] and entry["missing"]
            elif name != "offset" or row != "copy_reference":
                assert entry["low"] <= entry["value"] <= entry["high"], (row, name)
    json.dumps(result.report, allow_nan=False)


def test_a_perfect_model_is_told_from_what_cannot_lip_sync(result):
    for row in ("self", "cross", "ground_truth", "round_trip"):
        assert value(result, row, "opening_correlation") > 0.97, row
        assert value(result, row, "offset") == 0
    for row in ("copy_template", "wrong_audio"):
        assert abs(value(result, row, "opening_correlation")) < 0.7, row
    assert value(result, "copy_reference", "articulation") < 0.1
    assert value(result, "self", "articulation") == pytest.approx(1, abs=0.15)
    assert value(result, "self", "jitter") == pytest.approx(1, abs=0.3)


def test_pictures_are_compared_at_the_same_time(result):
    assert value(result, "ground_truth", "psnr") > 38
    assert value(result, "self", "psnr") > value(result, "wrong_audio", "psnr") + 3
    assert value(result, "self", "psnr") > value(result, "copy_reference", "psnr") + 3
    assert value(result, "self", "ssim") > value(result, "copy_reference", "ssim")
    assert value(result, "self", "lmd") < value(result, "copy_reference", "lmd")


def test_silence_does_not_leak_from_a_model_that_keeps_still(result):
    assert value(result, "silence", "leak") < 0.05
    assert value(result, "silence", "leak_std") < 0.05


def test_the_protocol_is_pinned(result):
    protocol = result.report["protocol"]
    assert protocol["version"] == report.PROTOCOL
    assert protocol["clips"] == ["a.mkv", "b.mkv", "c.mkv"]
    assert protocol["partners"] == {"a.mkv": "b.mkv", "b.mkv": "c.mkv", "c.mkv": "a.mkv"}
    assert protocol["versions"]["facemesh worker: patch"] == "1"
    assert "numpy" in protocol["versions"] and protocol["crop_size"] == 64


def test_the_table_shows_rows_and_what_is_missing(result):
    text = report.table(result.report)
    for row in rows.ROWS:
        assert f"\n{row} " in text
    assert "missing: LPIPS: no weights given" in text and "missing: FID:" in text
    assert max(map(len, text.splitlines())) < 200


def test_a_second_evaluation_makes_nothing_anew(clips, tmp_path):
    first, detector = LoudGenerator(), PatchDetector()
    before = run(clips, tmp_path, first, detector).report
    assert len(first.calls) == 9  # self, cross and silence of three clips
    again, idle = LoudGenerator(), PatchDetector()
    after = run(clips, tmp_path, again, idle).report
    assert not again.calls and not idle.frames
    assert after["per_clip"] == before["per_clip"] and after["rows"] == before["rows"]
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
    assert value(run(clips[:1], tmp_path), "self", "opening_correlation") > 0.97


def test_a_late_model_is_seen_to_be_late(clips, tmp_path):
    late = run(clips, tmp_path, LoudGenerator(late=3))
    assert value(late, "self", "offset") == 3
    assert value(late, "self", "offset_audio") - value(late, "ground_truth", "offset_audio") == 3


def test_long_clips_are_cut(clips, tmp_path):
    result = run(clips[:2], tmp_path, seconds=1.2)
    assert {len(c["opening"]) for c in result.curves["self"].values()} == {30}
    assert value(result, "cross", "opening_correlation") > 0.95
    assert len(list((tmp_path / "work").glob("audio-*.wav"))) == 2


def test_one_clip_alone_has_no_partner(clips, tmp_path):
    result = run(clips[:1], tmp_path)
    for row in rows.NEEDS_PARTNER:
        assert result.report["rows"][row]["metrics"]["jitter"] == {"missing": "needs a second clip"}
    assert value(result, "self", "opening_correlation") > 0.97


def test_a_failing_clip_is_reported_and_the_rest_goes_on(clips, tmp_path):
    class Picky(LoudGenerator):
        def generate(self, *, video, audio, out):
            if "b.mkv" in str(video):
                raise UserError("b cannot be done; try c")
            super().generate(video=video, audio=audio, out=out)

    result = run(clips, tmp_path, Picky())
    assert result.report["rows"]["self"]["clips"] == 2
    assert {f["row"] for f in result.report["failures"]} == {
        "self",
        "cross",
        "silence",
        "wrong_audio",
    }
    assert "b cannot be done" in report.table(result.report)


def test_nothing_measured_is_an_error(tmp_path):
    bad = tmp_path / "bad.mkv"
    bad.write_bytes(b"no video")
    with pytest.raises(UserError, match="no clip could be measured"):
        run([Clip("bad.mkv", bad)], tmp_path)
    with pytest.raises(UserError, match="no clip"):
        run([], tmp_path)


def test_closures_are_measured_where_phoneme_times_are_known(tmp_path):
    due = {"a": [[0.4, 0.48]], "b": [[0.9, 0.98]]}
    clips = []
    for seed, (name, times) in enumerate(due.items(), 1):
        clips.append(Clip(f"{name}.mkv", make_clip(tmp_path / f"{name}.mkv", seed, shut=times)))
        content = {"format": "talkjax-truth", "bilabial": times}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    made = run(clips, tmp_path)
    for row in ("self", "cross", "ground_truth"):
        assert value(made, row, "closures") == 1, row
    for row in ("copy_template", "copy_reference"):
        assert value(made, row, "closures") == 0, row
    for row in ("silence", "wrong_audio"):
        assert "closures" not in made.report["rows"][row]["metrics"]
    assert " closed " in report.table(made.report)


def test_extras_are_measured_where_they_are_given(clips, tmp_path):
    class Embedding:
        def __call__(self, face):
            vector = face.astype(float).mean((0, 1))
            return vector / np.linalg.norm(vector)

    def perceptual(a, b):
        assert a.shape == b.shape and a.dtype == np.uint8 and a.shape[1:] == (40, 56, 3)
        return np.abs(a.astype(float) - b).mean((1, 2, 3)) / 255

    made = evaluator.evaluate(
        clips[:2], LoudGenerator(), PatchDetector(), tmp_path, perceptual=perceptual,
        embedding=Embedding(),
    )  # fmt: skip
    assert value(made, "ground_truth", "lpips") < value(made, "copy_reference", "lpips")
    assert value(made, "self", "csim") > 0.99
    assert "csim" not in made.report["rows"]["wrong_audio"]["metrics"]


def test_sheets_and_plots_are_drawn(result, clips, tmp_path):
    names = evaluator.draw(result, clips, tmp_path / "sheets", 2)
    assert len(names) == 2
    image = cv2.imread(str(tmp_path / "sheets" / names[0]))
    # A mouth that is wide open in the truth is bright there and in the generated row below.
    assert image.shape[0] > 4 * 80 and image.shape[1] > 8 * 112


def test_the_reference_copy_touches_nothing_outside_of_the_mouth(clips, tmp_path):
    clip, detector = clips[0], PatchDetector()
    measured = measure.measure(clip.path, detector)
    chosen = baselines.reference_frame(measured)
    # Sampling prefers a moderately open mouth.
    curve = opening_curve(1)
    assert abs(curve[chosen] - np.quantile(curve, 0.7)) < 0.05
    out = tmp_path / "copy.mp4"
    baselines.copy_reference(clip.path, out, measured, chosen, 64, None)
    copied = measure.measure(out, detector)
    assert len(copied.times) == len(measured.times)
    assert np.ptp(copied.opening()) < 0.05 * np.ptp(measured.opening())
    pairs = measure.matches(measured, copied)
    for number, a, b in measure.paired_frames(clip.path, out, pairs):
        difference = np.abs(a.astype(int) - b)
        assert difference[:60].max() < 16 and difference[:, :40].max() < 16, number


def test_frames_without_a_face_are_left_out():
    times = np.arange(4) / 25
    transforms = np.tile(np.eye(2, 3), (4, 1, 1))
    transforms[1] = np.nan
    landmarks = np.zeros((4, 131, 2), np.float32)
    size = np.array([160, 160])
    truth = measure.Measurement(times, landmarks, np.ones(4, bool), transforms, size)
    other = measure.Measurement(
        times[:3] + 0.001, landmarks[:3], np.ones(3, bool), transforms[:3], size
    )
    assert measure.matches(truth, other) == {0: 0, 2: 2}


def test_the_work_folder_makes_things_once(tmp_path):
    space, calls = Workspace(tmp_path / "w"), []

    def make(path):
        calls.append(path)
        path.write_text("x")

    one = space.get("kind", "a b/c", {"x": 1}, ".txt", make)
    assert space.get("kind", "a b/c", {"x": 1}, ".txt", make) == one and len(calls) == 1
    assert space.get("kind", "a b/c", {"x": 2}, ".txt", make) != one
    assert one.name.startswith("kind-a_b_c-") and one.suffix == ".txt"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="work folder"):
        Workspace(tmp_path / "file")
