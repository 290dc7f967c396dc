"""`Sampler.generate`: length, size, rate, unchanged pixels, gaps, leaks, memory."""

import dataclasses
import itertools
import tracemalloc

import cv2
import jax
import numpy as np
import pytest

from talkjax import conventions
from talkjax.errors import UserError
from talkjax.media import audio, composite, detection, outline
from talkjax.media.playback import iterate_pictures
from talkjax.media.video import VideoReader, probe
from talkjax.sampling import Options, Sampler, faces
from tests.media_files import Sound, cut, make_media, tone, write_wav
from tests.sampling import fakes


def frames_of(path):
    return [frame.rgb for frame in VideoReader(path)]


def make(sampler, options, tmp_path, name="out.mp4", mesh=None, **files):
    mesh = mesh or fakes.ScriptedMesh()
    out = tmp_path / name
    summary = sampler.generate(out=out, options=options, detector=mesh, **files)
    return out, summary


def table_of(template, mesh=None):
    reader = VideoReader(template)
    mesh = mesh or fakes.ScriptedMesh()
    return faces.FaceTable(detection.detect_faces(reader, mesh), reader.info.fps)


def pasted(shape, face, landmarks, mask):
    """Where in a frame the generated face is seen alone: (H, W) bool."""
    alpha = composite.feathered_alpha(face.transform, (0, 0, *shape[:2]), mask)
    x, y = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    places = np.stack([x, y, np.ones_like(x)], -1) @ face.transform.T * outline.GRID
    column, row = np.clip(places.astype(int), 1, outline.GRID - 2).transpose(2, 0, 1)
    least = cv2.erode(outline.inside(landmarks, 0.0), np.ones((5, 5)))
    return (alpha == 1) & (least[row, column] > 0.9999)


@pytest.mark.parametrize(
    ("fps", "seconds", "count"),
    [(25, 1.0, 25), (25, 0.30, 8), (30000 / 1001, 1.0, 30), (60, 0.713, 43), (12.5, 1.01, 26)],
)
def test_output_is_as_long_as_the_speech(sampler, options, tmp_path, fps, seconds, count):
    template = fakes.make_template(tmp_path / "t.mp4", 12, fps=fps)
    speech = fakes.make_speech(tmp_path / "s.wav", seconds)
    out, summary = make(sampler, options, tmp_path, video=template, audio=speech)
    info = probe(out)
    assert (info.width, info.height) == (fakes.WIDTH, fakes.HEIGHT)
    rate = {12.5: 25}.get(fps, fps)  # pictures that stand for long are repeated
    assert info.fps == pytest.approx(rate, rel=1e-3) and summary.fps == pytest.approx(rate)
    assert len(frames_of(out)) == count == summary.frames
    assert 0 <= info.duration_s - seconds + 1e-3 < 1 / rate + 2e-3
    assert audio.audio_duration(out) == pytest.approx(seconds, abs=1e-3)
    times = [frame.time for frame in VideoReader(out)]
    np.testing.assert_allclose(times, np.arange(count) / rate, atol=1e-3)


def test_variable_rate_is_kept(sampler, options, tmp_path):
    times = [0.0, 0.04, 0.05, 0.09, 0.1, 0.14]
    template = fakes.make_template(tmp_path / "t.mp4", 6, times=times)
    speech = fakes.make_speech(tmp_path / "s.wav", 0.2)
    out, _ = make(sampler, options, tmp_path, video=template, audio=speech)
    expected = [*times, 0.18, 0.19]  # back by the same intervals; 0.23 is past the end
    assert [frame.time for frame in VideoReader(out)] == pytest.approx(expected, abs=1e-3)


def test_lips_move_on_where_a_picture_stands(sampler, options, tmp_path):
    template = fakes.make_template(tmp_path / "t.mkv", 4, times=[0.0, 0.04, 0.84, 0.88])
    speech = fakes.make_speech(tmp_path / "s.wav", 1.0)
    seen = []
    out, summary = make(
        sampler, options, tmp_path, video=template, audio=speech,
        callback=lambda at, face, landmarks, index: seen.append((index, landmarks)),
    )  # fmt: skip
    times = [frame.time for frame in VideoReader(out)]
    assert np.diff(times).max() <= 0.041 and summary.frames == len(times) == 25
    assert [index for index, _ in seen] == [0, *[1] * 20, 2, 3, 2, 2]
    standing = np.stack([landmarks for _, landmarks in seen[1:21]])
    assert np.ptp(standing[:, :74], axis=0).max() < 1e-5  # the head stands
    assert np.abs(np.diff(standing[:, 74:], axis=0)).max((1, 2)).min() > 1e-4  # the lips do not


@pytest.mark.parametrize(
    ("mode", "count", "shown"),
    [("loop", 25, [*range(12), *range(12), 0]), ("cut_off", 12, [*range(12)]),
     ("hold", 25, [*range(12), *[11] * 13])],
)  # fmt: skip
def test_a_template_that_is_too_short(
    sampler, options, tmp_path, template, speech, mode, count, shown
):
    seen = []
    out, summary = make(
        sampler, dataclasses.replace(options, sync_mode=mode), tmp_path, video=template,
        audio=speech, callback=lambda at, face, landmarks, index: seen.append(index),
    )  # fmt: skip
    assert seen == shown and summary.frames == count == len(frames_of(out))
    seconds = 0.48 if mode == "cut_off" else 1.0
    assert audio.audio_duration(out) == pytest.approx(seconds, abs=0.05)
    ends = "the output ends with the template, after 0.48 s of 1.00 s of speech"
    assert (ends in summary.text()) == (mode == "cut_off")


def test_only_the_mask_changes(sampler, options, tmp_path, template, speech):
    seen = []
    out, summary = make(
        sampler, options, tmp_path, video=template, audio=speech,
        callback=lambda *values: seen.append(values),
    )  # fmt: skip
    made = frames_of(out)
    table, changed = table_of(template), 0
    shown = zip(made, iterate_pictures(template), seen, strict=False)
    for rgb, frame, (_, _, landmarks, _) in shown:
        window = (0, 0, *rgb.shape[:2])
        face = table.face(frame.index)
        alpha = composite.feathered_alpha(face.transform, window, sampler.mask)
        np.testing.assert_array_equal(rgb[alpha == 0], frame.rgb[alpha == 0])
        here = pasted(rgb.shape, face, landmarks, sampler.mask)
        changed += (rgb[here] != frame.rgb[here]).mean() > 0.5
        assert here.sum() > 100
    assert changed == len(made) == summary.frames_generated == 25
    assert summary.faces_missed == [] and not summary.template_damaged


def test_template_plays_back_and_forth_and_is_detected_once(
    sampler, options, tmp_path, template, speech
):
    mesh = fakes.ScriptedMesh()
    out, _ = make(sampler, options, tmp_path, mesh=mesh, video=template, audio=speech)
    assert mesh.calls == 12
    made = frames_of(out)
    corner = np.s_[:8, :8]
    shown = itertools.islice(iterate_pictures(template), 25)
    for rgb, frame in zip(made, shown, strict=True):
        np.testing.assert_array_equal(rgb[corner], frame.rgb[corner])


def test_same_seed_same_video_whatever_the_batch(sampler, options, tmp_path, template, speech):
    def run(name, **changes):
        changed = dataclasses.replace(options, **changes)
        files = {"video": template, "audio": speech}
        return np.stack(frames_of(make(sampler, changed, tmp_path, name, **files)[0])).astype(int)

    first = run("a.mp4")
    np.testing.assert_array_equal(first, run("b.mp4"))
    assert np.abs(first - run("c.mp4", batch=7)).max() <= 2
    assert np.abs(first - run("d.mp4", seed=1)).max() > 10


def test_many_devices_agree_with_one(checkpoint, sampler, options, tmp_path, template, speech):
    many = Sampler.from_pretrained(checkpoint)
    assert len(jax.devices()) == 8 and many.batch_size(options) == 8
    files = {"video": template, "audio": speech}
    one, several = (
        np.stack(frames_of(make(s, options, tmp_path, n, **files)[0])).astype(int)
        for n, s in (("one.mp4", sampler), ("many.mp4", many))
    )
    assert np.abs(one - several).max() <= 2


def test_frames_without_a_face_pass_through(sampler, options, tmp_path, speech):
    template = fakes.make_template(tmp_path / "t.mp4", 40)
    gone = {0, 1, *range(8, 22), 24}

    def script(i):
        return [] if i in gone else [fakes.face_at(i)]

    mesh = fakes.ScriptedMesh(script)
    out, summary = make(sampler, options, tmp_path, mesh=mesh, video=template, audio=speech)
    made, source = frames_of(out), frames_of(template)
    same = [i for i in range(25) if np.array_equal(made[i], source[i])]
    assert same == [0, 1, *range(8, 22)]
    assert summary.faces_missed == [[0, 1], [8, 21]]
    assert summary.frames_interpolated == 1 and summary.frames_generated == 9
    assert "no face was found in 16 frames (0-1, 8-21)" in summary.text()


def test_a_face_that_comes_after_the_speech(sampler, options, tmp_path):
    template = fakes.make_template(tmp_path / "t.mp4", 40)
    speech = fakes.make_speech(tmp_path / "s.wav", 0.4)
    mesh = fakes.ScriptedMesh(lambda i: [] if i < 30 else [fakes.face_at(i)])
    out, summary = make(sampler, options, tmp_path, mesh=mesh, video=template, audio=speech)
    assert summary.faces_missed == [[0, 9]] and summary.frames == 10
    for a, b in zip(frames_of(out), frames_of(template), strict=False):
        np.testing.assert_array_equal(a, b)


def test_no_face_anywhere(sampler, options, tmp_path, template, speech):
    mesh = fakes.ScriptedMesh(lambda i: [])
    with pytest.raises(UserError, match="no face was found"):
        make(sampler, options, tmp_path, mesh=mesh, video=template, audio=speech)
    assert list(tmp_path.iterdir()) == []


def test_second_face(sampler, options, tmp_path, speech):
    template = fakes.make_template(tmp_path / "t.mp4", 5, size=(192, 80))
    mesh = fakes.ScriptedMesh(lambda i: [fakes.face_at(i, x=112.0), fakes.face_at(i)])
    right = dataclasses.replace(options, face="1")
    out, _ = make(sampler, right, tmp_path, mesh=mesh, video=template, audio=speech)
    difference = (frames_of(out)[0] != frames_of(template)[0]).any(-1)
    assert difference[:, 112:].any() and not difference[:, :100].any()
    with pytest.raises(UserError, match=r"^face=2"):
        right = dataclasses.replace(options, face=2)
        make(sampler, right, tmp_path, mesh=mesh, video=template, audio=speech)


def test_template_that_is_cut_short(sampler, options, tmp_path, speech):
    template = cut(fakes.make_template(tmp_path / "t.mkv", 60, gop=6), 0.6)
    out, summary = make(sampler, options, tmp_path, video=template, audio=speech)
    assert summary.template_damaged and "truncated or damaged" in summary.text()
    assert len(frames_of(out)) == summary.frames == summary.frames_generated == 25


def test_a_checkpoint_has_defaults_of_its_own_for_videos_and_photographs(tmp_path):
    own = {"sampling.steps": 0, "sampling.image_steps": 2}
    sampler = Sampler.from_pretrained(fakes.save_checkpoint(tmp_path, **own))
    assert [sampler.steps_of(Options(), photograph=p) for p in (False, True)] == [0, 2]
    assert sampler.steps_of(Options(steps=5), photograph=True) == 5
    sampler = Sampler.from_pretrained(fakes.save_checkpoint(tmp_path, **{"sampling.steps": 3}))
    assert sampler.steps_of(Options(), photograph=True) == 3


@pytest.mark.parametrize(("kind", "steps"), [("image", 2), ("video", 2), (None, 0)])
def test_a_photograph_takes_its_own_number_of_steps(kind, steps, tmp_path, speech, monkeypatch):
    own = {"sampling.steps": 0, "sampling.image_steps": 2}
    sampler = Sampler.from_pretrained(fakes.save_checkpoint(tmp_path, **own))
    compiled, compile_batch = [], sampler.compile
    monkeypatch.setattr(sampler, "compile", lambda o: compiled.append(o.steps) or compile_batch(o))
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), fakes.picture(0)[..., ::-1])
    template = {kind: path} if kind else {"video": fakes.make_template(tmp_path / "t.mp4", 5)}
    make(sampler, Options(batch=8), tmp_path, audio=speech, **template)
    assert compiled == [steps]


def test_photograph(sampler, options, tmp_path, speech):
    path = tmp_path / "p.png"
    cv2.imwrite(str(path), fakes.picture(0)[..., ::-1])
    out, summary = make(sampler, options, tmp_path, image=path, audio=speech)
    made = frames_of(out)
    assert len(made) == 25 and summary.fps == 25
    np.testing.assert_array_equal(made[3][:8], fakes.picture(0)[:8])


def test_speech_decides_the_mouth(sampler, options, tmp_path, template):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 8000)).astype(np.float32)
    made = []
    for name, wave in (("silence", np.zeros_like(noise)), ("noise", noise)):
        speech = write_wav(tmp_path / f"{name}.wav", wave, 16000)
        out, summary = make(sampler, options, tmp_path, f"{name}.mp4", video=template, audio=speech)
        assert summary.frames == 13
        made.append(np.stack(frames_of(out)))
    assert (made[0] != made[1]).any()


def test_nothing_leaks_from_the_mouth_of_the_template(sampler, options, tmp_path, speech):
    """Jaw, lips and pixels of the mouth after the first pass do not change the result."""
    count, known = 20, 8
    # What changes in the mouth's pixels here is taken for a thing before it, and would be kept.
    options = dataclasses.replace(options, first_pass=(known - 1) / 25, keep_occlusions=False)
    content = list(conventions.CONTENT)

    def script(i, moved):
        face = fakes.face_at(i, 0.02 * (i % 4))
        if moved and i >= known:
            face[content] += np.random.default_rng(i).normal(0, 6, (len(content), 3))
        return [face]

    def pictures(moved):
        for i in range(count):
            rgb = fakes.picture(i)
            if moved and i >= known:  # well inside of the mask (crop 0.44 to 0.94, 0.13 to 0.88)
                rgb[42:62, 32:64] = np.random.default_rng(i).integers(0, 256, (20, 32, 3))
            yield rgb

    made, seen = [], {}
    for moved in (False, True):
        template = make_media(
            tmp_path / f"t{moved}.mkv", list(pictures(moved)), codec="libx264rgb", pix_fmt="rgb24",
            options={"qp": "0"},
        )  # fmt: skip
        mesh = fakes.ScriptedMesh(lambda i, moved=moved: script(i, moved))
        out, _ = make(
            sampler, options, tmp_path, f"{moved}.mp4", mesh=mesh, video=template, audio=speech,
            callback=lambda *values, moved=moved: seen.setdefault(moved, []).append(values[2]),
        )  # fmt: skip
        made.append(frames_of(out)[:count])
    table = table_of(template)
    np.testing.assert_array_equal(seen[False], seen[True])
    for i, (a, b) in enumerate(zip(*made, strict=True)):
        here = pasted(a.shape, table.face(i), seen[False][i], sampler.mask)
        np.testing.assert_array_equal(a[here], b[here])
        assert here.sum() > 100


def test_memory_does_not_grow_with_the_length(sampler, options, tmp_path):
    options = dataclasses.replace(options, pixel_cache=1 << 16, first_pass=0.4)
    peaks = []
    for seconds in (0.2, 3.0, 9.0):  # the first compiles; from 3 s on every look-ahead is full
        template = fakes.make_template(tmp_path / "t.mp4", round(25 * seconds), gop=25)
        speech = fakes.make_speech(tmp_path / "s.wav", seconds)
        tracemalloc.start()
        make(sampler, options, tmp_path, video=template, audio=speech)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    decoded = 150 * fakes.picture(0).nbytes  # what 6 s more would take if they were kept
    assert peaks[2] - peaks[1] < 0.3 * decoded, peaks


def test_interrupted_run_leaves_nothing(sampler, options, tmp_path, template, speech):
    folder = tmp_path / "out"
    folder.mkdir()

    def script(i):
        if i == 9:
            assert len(list(folder.iterdir())) == 1  # the unfinished file, under another name
            raise KeyboardInterrupt
        return [fakes.face_at(i)]

    options = dataclasses.replace(options, first_pass=0.1)
    with pytest.raises(KeyboardInterrupt):
        make(
            sampler, options, folder, mesh=fakes.ScriptedMesh(script), video=template, audio=speech
        )
    assert list(folder.iterdir()) == []


def test_template_that_drives_itself_keeps_its_clock(sampler, options, tmp_path):
    times = [0.1 + i / 25 for i in range(10)]  # the picture starts after the sound
    images = [fakes.picture(i) for i in range(10)]
    template = make_media(
        tmp_path / "t.mkv", images, times=times, sound=Sound(tone(0.5, 16000), 16000, "pcm_s16le")
    )
    out, _ = make(sampler, options, tmp_path, "o.mkv", video=template, audio=template)
    got = [frame.time for frame in VideoReader(out)]
    assert got[0] == pytest.approx(0.1, abs=2e-3) and got[-1] < 0.5
