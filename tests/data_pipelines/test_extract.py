import numpy as np
import pytest

from data_pipelines import extract
from data_pipelines.cut import PixelBox
from talkjax import conventions, head_pose
from talkjax.data import records, windows
from talkjax.media import audio
from tests.data_pipelines.synthetic import FakeMesh, make_video
from tests.sampling import fakes

OPTIONS = extract.ExtractOptions(crop_size=32)


def run(path, **changes):
    options = extract.ExtractOptions(**({"crop_size": 32} | changes))
    return extract.extract_video(path, "id", FakeMesh(), options)


def reason(path, **changes):
    with pytest.raises(extract.LeftOutError) as caught:
        run(path, **changes)
    return caught.value.reason


def test_a_plain_video_gives_one_record(tmp_path):
    result = run(make_video(tmp_path / "a.mkv", frames=30))
    (clip,) = result.clips
    assert clip.clip_id == "id" and clip.num_frames == 30 and clip.num_ticks == 30
    assert len(clip.mel) >= 4 * clip.num_ticks and clip.face_found.all()
    np.testing.assert_allclose(clip.timestamps, np.arange(30) / 25, atol=1e-3)
    np.testing.assert_allclose(clip.landmarks, clip.frame_landmarks, atol=1e-4)
    assert windows.decode_jpeg(clip.frames[0]).shape == (32, 32, 3)
    assert clip.source_fps == pytest.approx(25)
    records.check_record(clip)


def test_landmarks_lie_where_the_transform_says(tmp_path):
    (clip,) = run(make_video(tmp_path / "a.mkv")).clips
    mesh = FakeMesh().detect(np.full((64, 96, 3), 100, np.uint8))
    expected = head_pose.apply_transforms(conventions.select(mesh), clip.transforms[:1])
    np.testing.assert_allclose(clip.frame_landmarks[:1], expected, atol=1e-4)


@pytest.mark.parametrize("fps", [12.5, 30, 60])
def test_ticks_do_not_depend_on_the_frame_rate(tmp_path, fps):
    (clip,) = run(make_video(tmp_path / "a.mkv", frames=round(2 * fps), fps=fps)).clips
    assert abs(clip.num_ticks - 50) <= 2
    assert clip.timestamps[-1] * 25 >= clip.num_ticks - 1 - 1e-2


def test_short_gaps_are_interpolated_and_long_ones_split(tmp_path):
    result = run(make_video(tmp_path / "a.mkv", frames=40, black=range(10, 13)))
    (clip,) = result.clips
    assert not clip.face_found[10:13].any() and clip.face_found.sum() == 37
    assert result.frames_without_face == 3
    result = run(make_video(tmp_path / "b.mkv", frames=90, black=range(40, 50)), min_seconds=1.0)
    assert [c.clip_id for c in result.clips] == ["id#0", "id#1"]
    assert [c.num_frames for c in result.clips] == [40, 40]


def test_detection_begins_anew_at_a_cut(tmp_path):
    places = [16.0] * 15 + [30.0] * 15
    path = make_video(tmp_path / "a.mkv", frames=30, changes=[15])
    options = extract.ExtractOptions(crop_size=32, min_seconds=0.4)
    clips = extract.extract_video(path, "id", fakes.TrackingMesh([*places, 0.0]), options).clips
    for clip, x in zip(clips, (16.0, 30.0), strict=True):
        eyes = head_pose.invert(clip.transforms)[0] @ (*head_pose.EYE_CENTRE, 1)
        assert eyes[0] == pytest.approx(x + 0.5 * fakes.SIDE, abs=0.5)


@pytest.mark.parametrize("fps", [10, 50])
def test_gaps_count_in_seconds(tmp_path, fps):
    gap = range(fps, fps + round(0.3 * fps))
    clips = run(make_video(tmp_path / "a.mkv", 3 * fps, gap, fps=fps), max_gap_seconds=0.41).clips
    assert len(clips) == 1
    clips = run(make_video(tmp_path / "a.mkv", 3 * fps, gap, fps=fps), max_gap_seconds=0.29).clips
    assert len(clips) == 2


def test_a_part_in_the_middle_keeps_its_own_sound(tmp_path):
    path = make_video(tmp_path / "a.mkv", frames=80, changes=[37])
    first, second = run(path).clips
    assert second.num_frames == 43
    mel = audio.log_mel(audio.load_audio(path))
    start = round(37 / 25 * 100)
    np.testing.assert_array_equal(second.mel[:100], mel[start : start + 100])
    assert abs(second.timestamps[0]) <= 0.005
    assert len(first.mel) >= 4 * first.num_ticks


def test_long_clips_are_split_evenly(tmp_path):
    result = run(make_video(tmp_path / "a.mkv", frames=75), max_seconds=1.2)
    assert [c.num_frames for c in result.clips] == [25, 25, 25]


def test_frames_that_were_not_buffered_are_decoded_again(tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mkv", frames=40, changes=[15], black=[30])
    kept = run(path, min_seconds=0.4).clips
    monkeypatch.setattr(extract, "_BUFFER_BYTES", 10)
    again = run(path, min_seconds=0.4).clips
    assert [c.frames for c in kept] == [c.frames for c in again]


def test_audio_that_ends_early_limits_the_clip(tmp_path):
    (clip,) = run(make_video(tmp_path / "a.mkv", frames=75, seconds=1.5)).clips
    assert 36 <= clip.num_ticks <= 40
    assert clip.num_frames <= clip.num_ticks + 1


def test_reasons(tmp_path):
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(b"no video")
    assert reason(junk) == "unreadable"
    assert reason(tmp_path / "missing.mp4") == "unreadable"
    assert reason(make_video(tmp_path / "mute.mkv", seconds=0)) == "no_audio"
    assert reason(make_video(tmp_path / "dark.mkv", black=range(30))) == "no_face"
    assert reason(make_video(tmp_path / "short.mkv", frames=10)) == "too_short"
    assert reason(make_video(tmp_path / "cuts.mkv", frames=30, changes=range(6, 30, 6))) == "cut"
    assert reason(make_video(tmp_path / "lost.mkv", black=range(10, 20))) == "face_lost"
    assert reason(make_video(tmp_path / "quiet.mkv", seconds=0.3)) == "audio_too_short"
    assert reason(make_video(tmp_path / "one.mkv"), face="1") == "face_choice"


def test_a_piece_is_extracted_as_if_it_were_a_file(tmp_path):
    whole = make_video(tmp_path / "a.mkv", frames=80, black=range(80))
    box = PixelBox(32, 0, 64, 64)  # the corner that tells FakeMesh of a face lies outside
    result = extract.extract_video(whole, "id", FakeMesh(), OPTIONS, interval=(1.0, 2.6), box=box)
    (clip,) = result.clips
    assert result.frames == clip.num_frames == 40 and clip.timestamps[0] == 0
    mel = audio.log_mel(audio.load_audio(whole)[16000:41600])
    np.testing.assert_array_equal(clip.mel[:155], mel[:155])
    with pytest.raises(extract.LeftOutError, match="no_face"):
        extract.extract_video(whole, "id", FakeMesh(), OPTIONS, interval=(1.0, 2.6))
    for piece, message in (
        ({"interval": (4.0, 6.0)}, "unreadable: the video ends before second 4"),
        (
            {"box": PixelBox(200, 0, 64, 64)},
            "unreadable: the listed crop 64x64 at .200, 0. lies outside",
        ),
        ({"interval": (2.9, 6.0), "box": box}, "too_short"),
        ({"audio_path": tmp_path / "none.m4a"}, "bad_audio"),
    ):
        with pytest.raises(extract.LeftOutError, match=message):
            extract.extract_video(whole, "id", FakeMesh(), OPTIONS, **piece)


def test_boxes_scale_with_the_picture_and_end_at_its_edge():
    rgb = np.arange(40 * 80 * 3).reshape(40, 80, 3)
    np.testing.assert_array_equal(PixelBox(20, 10, 30, 20, 0).crop(rgb), rgb[10:30, 20:50])
    np.testing.assert_array_equal(PixelBox(20, 10, 30, 20, 20).crop(rgb), rgb[20:40, 40:80])
    np.testing.assert_array_equal(PixelBox(20, 10, 30, 20, 80).crop(rgb), rgb[5:15, 10:25])


def test_names_of_any_bytes_become_valid_ids():
    assert extract.safe_id("a/\udcff.mp4") == "a/\\xff.mp4"
    assert extract.safe_id("ü/x.mp4") == "ü/x.mp4"


@pytest.mark.slow
def test_real_footage(shared_data):
    from talkjax.media.facemesh import FaceMesh

    path = sorted((shared_data / "grid_s1").glob("*.mkv"))[0]
    with FaceMesh(1) as mesh:
        (clip,) = extract.extract_video(path, path.name, mesh, extract.ExtractOptions()).clips
    assert clip.num_ticks == 75 and clip.face_found.all()
    assert (clip.frame_landmarks > 0).all() and (clip.frame_landmarks < 1).all()
    opening = conventions.mouth_opening(clip.landmarks)
    assert opening.max() - opening.min() > 0.05
