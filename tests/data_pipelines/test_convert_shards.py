import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipelines import convert_shards
from talkjax import commands
from talkjax.data import loader, records, storage, stored_clips
from talkjax.errors import UserError
from tests.data_pipelines.old_shards import write_old_shards
from tests.data_pipelines.synthetic import make_record, write_shards

INDEX = {"fingerprint": "f00d", "crop_size": 32, "clips": {}, "ticks": {}}


@pytest.fixture(scope="module")
def splits():
    train = [make_record(f"train/c{i}.mp4", ticks=50 + i, fps=25 + 5 * (i == 2)) for i in range(5)]
    train[1].face_found[5:9] = False
    return {"train": train, "test": [make_record("test/t.mp4", ticks=60)]}


@pytest.fixture
def old(tmp_path, splits):
    write_old_shards(tmp_path / "old", splits, shards=1, index=INDEX)
    (tmp_path / "old" / "manifest.jsonl").write_text("{}\n")
    return tmp_path / "old"


def contents(data):
    folder = Path(storage.find_dataset(data))
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*array_record*")}
    found |= {path.name: np.load(path)["steps"].tobytes() for path in folder.glob("*.npz")}
    lists = json.loads((folder / storage.INDEX).read_text())
    return found, {name: lists[name] for name in ("clips", "ticks", "frames", "usable")}


def rename(found):
    return {name.replace("talkjax_clips", "video_folder"): value for name, value in found.items()}


def test_conversion_gives_what_preparation_would_have_given(old, splits, tmp_path):
    assert convert_shards.convert(old, tmp_path / "new") == {"train": 5, "test": 1}
    files, lists = contents(tmp_path / "new")
    expected = contents(write_shards(tmp_path, splits))
    assert lists == expected[1] and files == rename(expected[0])
    index = storage.read_index(tmp_path / "new")
    assert (index["fingerprint"], index["crop_size"]) == ("f00d", 32)
    assert (tmp_path / "new" / "manifest.jsonl").read_text() == "{}\n"
    again = tfds.builder_from_directory(storage.find_dataset(tmp_path / "new"))
    assert again.info.metadata["lists_sha256"] == {"list.txt": "00"}
    assert not list(storage.find_dataset(tmp_path / "new").glob(".*"))


def test_shards_may_take_the_place_of_the_old_ones(old, splits):
    refusal = re.escape(
        f"{old}/video_folder/1.0.0 has records of version 1, not 2; convert them with `python -m "
        f"data_pipelines.convert_shards --data={old}/video_folder/1.0.0 --out=NEW`"
    )
    options = loader.LoaderOptions(batch_size=2)
    with pytest.raises(UserError, match=refusal):
        loader.train_dataset(old, options, seed=0)
    convert_shards.main([f"--data={old}", f"--out={old}"])
    assert next(iter(loader.train_dataset(old, options, seed=0)))["mel"].shape[0] == 2
    assert [path.name for path in (old / "video_folder").iterdir()] == ["2.0.0"]
    with pytest.raises(UserError, match="records of version 2, not 1; there is nothing to convert"):
        convert_shards.convert(old, old)


def test_shards_from_before_there_was_an_index(splits, tmp_path):
    write_old_shards(tmp_path / "old", splits, name="hdtf", shards=2)
    convert_shards.convert(tmp_path / "old", tmp_path / "new")
    reader = stored_clips.ShardReader(tmp_path / "new", "train")
    assert reader.crop_size == 32
    for position, original in enumerate(splits["train"]):
        found = reader.read(position)
        assert found.frames == original.frames and found.clip_id == original.clip_id
        steady = records.with_normalized_pose(original)
        np.testing.assert_array_equal(found.frame_landmarks, steady.frame_landmarks)


def test_a_damaged_record_is_left_out(old, tmp_path, caplog):
    (shard,) = (old / "video_folder" / "1.0.0").glob("*train*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    assert convert_shards.convert(old, tmp_path / "new") == {"train": 4, "test": 1}
    assert re.search(rf"record \d of {shard}: .*; left out", caplog.text)
    assert len(storage.read_index(tmp_path / "new")["clips"]["train"]) == 4


def test_mistakes_leave_nothing(old, tmp_path, capsys):
    (shard,) = (old / "video_folder" / "1.0.0").glob("*train*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"the shard {shard} cannot be read"):
        convert_shards.convert(old, tmp_path / "new")
    shard.unlink()
    with pytest.raises(UserError, match="has 0 of the 1 shards of split 'train'"):
        convert_shards.convert(old, tmp_path / "new")
    with pytest.raises(UserError, match="nowhere holds no prepared data"):
        convert_shards.convert(tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    shard.write_bytes(whole)
    assert commands.run_main(convert_shards.main, [f"--data={old}", "--out=gs://x/y"]) == 2
    assert "error: --out=gs://x/y is in a bucket" in capsys.readouterr().err
