"""Speech with landmarks alone: real clips, few of them."""

import numpy as np
import pytest

from data_pipelines import synthesize_speech
from data_pipelines.speech_sources import Sources
from data_pipelines.synthetic import clip, sidecar
from data_pipelines.synthetic.animation.turns import Turns
from data_pipelines.synthetic.plan import CorpusSettings, plan_speech
from data_pipelines.synthetic.speech import espeak
from data_pipelines.synthetic.speech.voices import Voice
from talkjax import conventions
from talkjax.data import loader, storage, stored_clips
from talkjax.errors import UserError
from tests.media_files import write_wav


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    out = tmp_path_factory.mktemp("speech")
    report = synthesize_speech.synthesize_speech(out, 3, 5, 1.5, workers=1)
    assert report["clips"] == report["made"] == 3 and report["seconds"] > 4
    return out


def test_what_is_said_and_what_is_seen_are_those_of_a_real_clip(speech, tmp_path, monkeypatch):
    """The same plan, drawn: the record has the sidecar's landmarks and the video's sound."""
    monkeypatch.setattr(clip, "sample_turns", lambda rng: Turns())  # which only videos have
    p = plan_speech(1, 5, CorpusSettings(seconds=1.5))[0]
    settings = CorpusSettings(seconds=1.5, size=64)
    (tmp_path / p.split).mkdir()
    clip.make_clip(p, settings, tmp_path)
    truth = sidecar.load_truth(tmp_path / p.split / f"{p.clip_id}.mp4")
    record = stored_clips.ShardReader(speech, "train").read(0)
    assert record.clip_id == p.clip_id and record.num_frames == len(truth.times)
    points = conventions.select(truth.landmarks) * 4  # that picture is a quarter as large
    points = np.einsum("tij,tkj->tki", record.transforms[..., :2], points)
    points += record.transforms[:, None, :, 2]
    content = slice(conventions.NUM_POSE, None)  # the pose in shards is the steady one
    np.testing.assert_allclose(record.frame_landmarks[:, content], points[:, content], atol=1e-4)
    opening = conventions.mouth_opening(record.landmarks)
    loud = record.mel[: 4 * record.num_ticks].reshape(-1, 4 * 80).mean(1)
    assert np.corrcoef(opening, loud)[0, 1] > 0.2 and opening.max() > 0.1


def test_only_the_landmark_stage_can_use_it(speech):
    options = loader.LoaderOptions(stage="landmark", batch_size=2)
    batch = next(iter(loader.train_dataset(speech, options, seed=0)))
    assert batch["content"].shape == (2, 25, 57, 2)
    with pytest.raises(UserError, match="cannot be decoded"):
        next(iter(loader.train_dataset(speech, loader.LoaderOptions(stage="autoencoder"), seed=0)))


def run_in_process(jobs, make_work, workers, timeout):
    work = make_work()
    for job in jobs:
        yield job, work(job)


def test_it_goes_on_and_refuses_other_flags(speech, monkeypatch):
    monkeypatch.setattr(synthesize_speech, "run_jobs", run_in_process)
    assert synthesize_speech.synthesize_speech(speech, 3, 5, 1.5, workers=1)["made"] == 0
    made = speech / ".cache" / f"clips_{synthesize_speech.VERSION}"
    (made / "speech_00001_000.npz").unlink()
    before = stored_clips.ShardReader(speech, "train").read(1)
    assert synthesize_speech.synthesize_speech(speech, 4, 5, 1.5, workers=1)["made"] == 2
    after = stored_clips.ShardReader(speech, "train").read(1)
    np.testing.assert_array_equal(before.mel, after.mel)
    assert storage.list_splits(speech) == {"train": 4}
    with pytest.raises(UserError, match="another seed, duration or source"):
        synthesize_speech.synthesize_speech(speech, 3, 6, 1.5, workers=1)


def test_recordings_get_faces_that_say_them(tmp_path, monkeypatch):
    """A recording with given phone times: its sound, and lips that follow the phones."""
    monkeypatch.setattr(synthesize_speech, "run_jobs", run_in_process)
    spoken = espeak.speak("Papa bought a box of apples for Bob.", Voice("en-us", "m3"))
    write_wav(tmp_path / "one.wav", spoken.samples[None], spoken.rate)
    (tmp_path / "phones.ctm").write_text(
        "\n".join(f"one 1 {p.start:.3f} {p.end - p.start:.3f} {p.symbol}" for p in spoken.phonemes)
    )
    rows = ("path\tspeaker\ttext\tlanguage", "one.wav\tanna\tPapa\ten", "one.wav\tbob\tPapa\tde")
    (tmp_path / "table.tsv").write_text("\n".join(rows))
    (tmp_path / "texts.txt").write_text("MY BOAT.\n")
    sources = Sources(
        voices=("espeak",),
        texts=str(tmp_path / "texts.txt"),
        recordings=str(tmp_path / "table.tsv"),
        alignments=str(tmp_path / "phones.ctm"),
    )
    report = synthesize_speech.synthesize_speech(tmp_path / "out", 1, 5, 1.5, 1, sources, drawn=1)
    assert (tmp_path / "out/videos/train/speech_00000_000.mp4").is_file()
    assert report["clips"] == 3 and not report["dropped"]
    reader = stored_clips.ShardReader(tmp_path / "out", "train")
    clips = {r.clip_id: r for r in (reader.read(i) for i in range(3))}
    assert sorted(clips) == ["recording_00000_000", "recording_00001_000", "speech_00000_000"]
    one, two = clips["recording_00000_000"], clips["recording_00001_000"]
    seconds = len(spoken.samples) / spoken.rate
    assert one.num_ticks == two.num_ticks == pytest.approx(25 * seconds, abs=2)
    opening = conventions.mouth_opening(one.landmarks)
    closed = [p.start - 0.01 for p in spoken.phonemes if p.symbol == "b"]
    assert all(opening[round(25 * t)] < 0.03 for t in closed) and opening.max() > 0.1
    assert np.abs(one.landmarks - two.landmarks).max() > 0.01  # another face
    with pytest.raises(UserError, match="another seed, duration or source"):
        synthesize_speech.synthesize_speech(tmp_path / "out", 1, 5, 1.5, 1)


@pytest.mark.parametrize(
    "sources,message",
    [
        (Sources(("kokoro",)), "--kokoro_model"),
        (Sources(("kokoro",), "none.onnx", "none.bin"), "none.onnx cannot be read"),
        (Sources(("festival",)), "no voices 'festival'"),
        (Sources(()), "nobody speaks"),
        (Sources(alignments="x.ctm"), "--recordings"),
        (Sources(texts="none.txt"), "none.txt cannot be read"),
        (Sources((), recordings="none.tsv"), "none.tsv cannot be read"),
    ],
)
def test_missing_sources(tmp_path, sources, message):
    with pytest.raises(UserError, match=message):
        synthesize_speech.synthesize_speech(tmp_path / "out", 1, 5, 1.5, 1, sources)
    assert not (tmp_path / "out").exists()  # the right flags may follow
