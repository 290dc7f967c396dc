import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipelines import builder, extract, preparation, prepare
from talkjax.conventions import SAMPLE_RATE
from talkjax.data import loader, records, storage, stored_clips
from talkjax.errors import UserError
from talkjax.media import audio
from tests.data_pipelines import layouts
from tests.data_pipelines.synthetic import begun, make_fake_work, make_video

EXTRACT = extract.ExtractOptions(crop_size=32)
LOADER = loader.LoaderOptions(stage="joint", batch_size=2, frames=2)


def settings(log=None, **kwargs):
    work = functools.partial(make_fake_work, log=log)
    return preparation.PrepareOptions(extract=EXTRACT, workers=2, make_work=work, **kwargs)


def make_folder(folder):
    for name in ("a", "b", "c"):
        make_video(folder / f"{name}.mkv", frames=60)
    return folder


MAKERS = {
    "video_folder": make_folder,
    "hdtf": layouts.make_hdtf,
    "voxceleb2": layouts.make_voxceleb2,
}
SPLITS = {
    "video_folder": {"train": 2, "test": 1},
    "hdtf": {"train": 3, "test": 1},
    "voxceleb2": {"train": 2, "test": 1},
}
LEFT_OUT = {
    "video_folder": {},
    "hdtf": {
        "RD_Radio2_001.mp4": "no_crop", "WRA_JohnKasich_000.mp4": "unreadable",
        "WRA_RandPaul1_000.mp4": "missing", "holiday.mp4": "not_listed",
        "copy/RD_Radio1_000.mp4": "duplicate",
    },
    "voxceleb2": {
        "dev/mp4/id00012/2DLq_Kkc1r8/00003.mp4": "bad_audio", "dev/mp4/id00099": "missing",
        "dev/mp4/id55555/2DLq_Kkc1r8/00001.mp4": "not_listed",
        "test/mp4/id00012/2DLq_Kkc1r8/00009.mp4": "wrong_set",
    },
}  # fmt: skip


def with_tfds(name, source, data_dir, how):
    config = tfds.download.DownloadConfig(manual_dir=str(source))
    made = builder.BUILDERS[name](data_dir=str(data_dir), settings=how)
    made.download_and_prepare(download_config=config)
    return made


def shard_bytes(folder):
    found = {
        (part, path.name): path.read_bytes()
        for part in records.PARTS
        for path in storage.part_folder(storage.find_dataset(folder), part).glob("*array_record*")
    }
    assert found
    return found


def check_batches(data_dir):
    """A batch, and the same samples whether one process reads them or two."""
    alone = iter(loader.train_dataset(data_dir, LOADER, 0))
    part = loader.LoaderOptions(stage="joint", batch_size=1, frames=2)
    pair = [iter(loader.train_dataset(data_dir, part, 0, p, 2)) for p in range(2)]
    for _ in range(4):
        batch, rows = next(alone), [next(iterator) for iterator in pair]
        assert batch["target"].shape[:2] == (2, 2) and batch["target"].std() > 0
        for key in batch:
            np.testing.assert_array_equal(batch[key], np.concatenate([row[key] for row in rows]))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """name -> a folder with the data set's imitation in `in`, prepared by the command in `out`."""

    @functools.cache
    def make(name):
        folder = tmp_path_factory.mktemp(name)
        prepare.prepare(MAKERS[name](folder / "in"), folder / "out", settings(), name)
        return folder

    return make


def with_cache(folder, data):
    """A folder for TFDS that finds extracted clips, so that it needs no worker."""
    data.mkdir()
    os.symlink(folder / "out" / ".cache", data / ".cache")
    return data


@pytest.mark.parametrize("name", MAKERS)
def test_a_data_set_becomes_shards(name, prepared):
    out = prepared(name) / "out"
    lines = map(json.loads, (out / "manifest.jsonl").read_text().splitlines())
    left_out = {line["source"]: line["reason"] for line in lines if not line["parts"]}
    assert left_out == LEFT_OUT[name]
    assert storage.list_splits(out) == SPLITS[name]
    check_batches(out)


@pytest.mark.parametrize("name", MAKERS)
def test_tfds_makes_the_same_shards(name, prepared, tmp_path):
    folder = prepared(name)
    data = with_cache(folder, tmp_path / "data")
    made = with_tfds(name, folder / "in", data, settings())
    assert shard_bytes(data) == shard_bytes(folder / "out") == shard_bytes(data / name)
    again = tfds.builder(name, data_dir=str(data))
    summary = json.loads((folder / "out" / "summary.json").read_text())
    assert again.info.metadata["lists_sha256"] == summary["lists_sha256"]
    assert len(summary["lists_sha256"]) == {"hdtf": 12, "voxceleb2": 1}.get(name, 0)
    assert bool(again.info.citation) == (name != "video_folder")
    source = again.as_data_source(split="train")
    reader = stored_clips.ShardReader(data, "train")
    ids = [source[i]["clip_id"].decode() for i in range(len(source))]
    assert ids == [clip.clip_id for clip in reader.scan()]
    index = json.loads((data / name / "2.0.0" / "index.json").read_text())
    assert index["clips"]["train"] == ids
    for file in ("manifest.jsonl", "summary.json"):
        assert (data / name / "2.0.0" / file).is_file()
    assert str(made.data_dir) == str(storage.find_dataset(data))


def test_a_listed_piece_of_a_video_is_cut_out_of_picture_and_sound(prepared):
    folder = prepared("hdtf")
    clips = {c.clip_id: c for c in stored_clips.ShardReader(folder / "out", "train").scan()}
    cut = clips["WDA_AdamSchiff_000.mp4"]
    assert cut.num_frames == 50 and cut.face_found.all()
    np.testing.assert_allclose(cut.timestamps, np.arange(50) / 25, atol=1e-3)
    wave = audio.load_audio(folder / "in" / "AdamSchiff.mp4")
    expected = audio.log_mel(wave[SAMPLE_RATE : 3 * SAMPLE_RATE])
    np.testing.assert_array_equal(cut.mel[:190], expected[:190])
    silent = clips["clips/Radio2_0.mp4"]
    beside = audio.log_mel(audio.load_audio(folder / "in" / "clips" / "Radio2_0.wav"))
    np.testing.assert_array_equal(silent.mel[:190], beside[:190])


def test_sound_of_voxceleb2_comes_from_the_m4a(prepared, tmp_path):
    source, log = prepared("voxceleb2") / "in", tmp_path / "log"
    data = with_cache(source.parent, tmp_path / "out")
    path = source / "dev/aac/id00012/2DLq_Kkc1r8/00001.m4a"
    before = stored_clips.ShardReader(source.parent / "out", "train").read(0)
    mel = audio.log_mel(audio.load_audio(path))
    np.testing.assert_array_equal(before.mel[:200], mel[:200])
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))  # as if it were another one
    prepare.prepare(source, data, settings(log), "voxceleb2")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert begun(log) == [layouts.VOX_TRAIN[0]]


def test_a_tfds_run_that_failed_goes_on(prepared, tmp_path):
    folder, log = prepared("video_folder"), tmp_path / "log"
    data = with_cache(folder, tmp_path / "data")
    with pytest.raises(UserError, match="holdout=3 leaves nothing to train on"):
        with_tfds("video_folder", folder / "in", data, settings(log, holdout=3))
    with_tfds("video_folder", folder / "in", data, settings(log, holdout=1))
    assert not log.exists() and storage.list_splits(data) == {"train": 2, "test": 1}


def test_what_users_get_wrong(prepared, tmp_path):
    with pytest.raises(UserError, match=r"hdtf: the manual directory is .*github\.com/MRzzm/HDTF"):
        with_tfds("hdtf", tmp_path / "nothing", tmp_path / "data", settings())
    vox, videos = prepared("voxceleb2"), prepared("video_folder")
    with pytest.raises(UserError, match="voxceleb2 has splits of its own"):
        prepare.prepare(vox / "in", vox / "out", settings(holdout=1), "voxceleb2")
    with pytest.raises(UserError, match="out holds voxceleb2; choose another folder"):
        prepare.prepare(videos / "in", vox / "out", settings())
    both = with_cache(vox, tmp_path / "both")
    with_tfds("voxceleb2", vox / "in", both, settings())
    (both / ".cache").unlink()
    os.symlink(videos / "out" / ".cache", both / ".cache")
    with_tfds("video_folder", videos / "in", both, settings())
    with pytest.raises(
        UserError, match="both holds video_folder, voxceleb2; give the folder of one of them"
    ):
        storage.find_dataset(both)
    assert storage.list_splits(both / "voxceleb2") == SPLITS["voxceleb2"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKERS)
def test_real_footage(name, shared_data, tmp_path):
    videos = sorted((shared_data / "grid_s1").glob("*.mkv"))[:3]
    source = layouts.link_real(tmp_path / "in", videos, name)
    command = [sys.executable, "-m", "data_pipelines.prepare", f"--dataset={name}"]
    command += [f"--source={source}", f"--out={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert sum(storage.list_splits(tmp_path / "out").values()) == 3
    for split in storage.list_splits(tmp_path / "out"):
        for clip in stored_clips.ShardReader(tmp_path / "out", split).scan():
            assert clip.face_found.mean() > 0.95
            assert clip.num_frames == (50 if "Schiff" in clip.clip_id else 75)
    check_batches(tmp_path / "out")
