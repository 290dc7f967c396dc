import dataclasses
import hashlib
import re
from pathlib import Path

import pytest

from data_pipelines import datasets
from data_pipelines.datasets import hdtf, voxceleb2
from talkjax.errors import UserError
from tests.data_pipelines.layouts import HDTF_LISTS, VOX_TRAIN, write_hdtf_lists


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def read(name, source, **kwargs):
    return datasets.read_catalog(name, source, source / "out", **kwargs)


@pytest.fixture
def speeches(tmp_path):
    """HDTF's layout, of empty files."""
    write_hdtf_lists(tmp_path)
    touch(tmp_path, "clips/RD_Radio1_000.mp4", "Radio2_0.mp4", "Radio2_0.wav", "AdamSchiff.mp4")
    touch(tmp_path, "WDA_JoeManchin0.mp4", "JohnKasich_0.mp4", "JohnKasich.mp4", "out/x.mp4")
    return tmp_path


def test_hdtf_clips_are_found_under_every_name(speeches):
    touch(speeches, "holiday.mp4", "elsewhere/RD_Radio1_000.mp4", "RandPaul.mp4")
    found = read("hdtf", speeches)
    clips = {clip.clip_id: clip for clip in found.clips}
    assert list(clips) == [
        "JohnKasich_0.mp4", "Radio2_0.mp4", "WDA_AdamSchiff_000.mp4", "WDA_JoeManchin0_000.mp4",
        "clips/RD_Radio1_000.mp4",
    ]  # fmt: skip
    cut = clips["WDA_AdamSchiff_000.mp4"]
    assert Path(cut.path).name == "AdamSchiff.mp4" and cut.interval == (1.0, 3.0)
    assert dataclasses.astuple(cut.box) == (64, 0, 128, 128, 128)
    assert clips["Radio2_0.mp4"].interval is None and clips["Radio2_0.mp4"].box is None
    assert clips["Radio2_0.mp4"].audio == str(speeches / "Radio2_0.wav") and cut.audio is None
    assert {(a.clip_id, a.reason) for a in found.absent} == {
        ("RD_Radio2_001.mp4", "no_crop"), ("WRA_RandPaul1_000.mp4", "missing"),
        ("elsewhere/RD_Radio1_000.mp4", "duplicate"), ("holiday.mp4", "not_listed"),
        ("RandPaul.mp4", "not_listed"),
    }  # fmt: skip


def test_hdtf_crops_are_read_as_x_width_y_height(speeches):
    (speeches / "WDA_crop_wh.txt").write_text("AdamSchiff_0.mp4 608 726 14 700\n")
    (clip,) = (c for c in read("hdtf", speeches).clips if "Schiff" in c.clip_id)
    assert (clip.box.x, clip.box.y, clip.box.width, clip.box.height) == (608, 14, 726, 700)


def test_hdtf_splits_are_by_speaker():
    names = ["JamesClyburn", "JamesClyburn1", "WhipJimClyburn", "AmyKlobuchar0", "AmyKlobuchar1"]
    names += [f"{first}{last}{i}" for first in ("Al", "Bo") for last in "AeBiCoDu" for i in (0, 1)]
    sides = {}
    for name in names:
        speaker = re.findall("[A-Z][a-z]*", name.rstrip("01"))[-1]
        sides.setdefault(speaker, set()).add(hdtf.split_of("WDA", name))
    assert all(len(side) == 1 for side in sides.values())
    assert {hdtf.split_of("RD", f"Radio{i}") for i in range(60)} == {"train"}
    drawn = [hdtf.split_of("WRA", f"X{chr(97 + i // 26)}{chr(97 + i % 26)}") for i in range(600)]
    assert 0.05 < drawn.count("test") / 600 < 0.15 and drawn.count("validation") > 10
    assert [hdtf.split_of("WDA", n) for n in ("JoeManchin", "JohnKasich", "AdamSchiff")] == [
        "test", "validation", "train",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("RD_annotion_time.txt", "Radio9.mp4 20-01:35"),
        ("RD_annotion_time.txt", "Radio9.mp4 01:35-01:35"),
        ("WDA_crop_wh.txt", "Radio9_0.mp4 483 390 0"),
        ("WDA_crop_wh.txt", "Radio9.mp4 483 390 0 390"),
        ("WRA_resolution.txt", "<!DOCTYPE html>"),
        ("WRA_video_url.txt", "Radio9"),
    ],
)
def test_a_malformed_list_is_named_with_its_line(speeches, name, line):
    (speeches / name).write_text(f"{(speeches / name).read_text()}\n{line}\n")
    number = len((speeches / name).read_text().splitlines())
    with pytest.raises(UserError, match=re.escape(f"{name}:{number}: {line!r} is not of the form")):
        read("hdtf", speeches)


def test_missing_lists_and_footage_say_where_to_get_them(speeches, tmp_path):
    (speeches / "WDA_crop_wh.txt").unlink()
    with pytest.raises(UserError, match=r"list WDA_crop_wh\.txt is neither.*github.com/MRzzm/HDTF"):
        read("hdtf", speeches)
    bare = write_hdtf_lists(tmp_path / "bare" / "HDTF_dataset").parent
    with pytest.raises(UserError, match=r"has no video of HDTF's lists; .*GROUP_NAME_INDEX\.mp4"):
        read("hdtf", bare)
    with pytest.raises(UserError, match=r"vox2_meta\.csv is not in .*robots\.ox\.ac\.uk"):
        read("voxceleb2", bare)
    with pytest.raises(UserError, match="is not a folder"):
        read("hdtf", tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"dataset=grid is unknown; use one of video_folder, hdtf"):
        read("grid", bare)


def test_voxceleb2_goes_by_its_list(tmp_path):
    (tmp_path / "vox2_meta.csv").write_text(
        "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set\nid00012 ,n000012 ,m ,dev\n"
        "id00017 ,n000017 ,m ,test\nid00099 ,n000099 ,f ,dev\n"
    )
    touch(tmp_path, *VOX_TRAIN, "test/mp4/id00017/x/00001.mp4", "test/mp4/id00012/x/00001.mp4")
    touch(tmp_path, "dev/aac/id00012/2DLq_Kkc1r8/00001.m4a", "dev/mp4/id55555/x/1.mp4", "x.mp4")
    found = read("voxceleb2", tmp_path)
    assert [(c.clip_id, c.split) for c in found.clips] == [
        (VOX_TRAIN[0], "train"), (VOX_TRAIN[1], "train"), ("test/mp4/id00017/x/00001.mp4", "test"),
    ]  # fmt: skip
    assert [Path(c.audio).name if c.audio else None for c in found.clips] == [
        "00001.m4a", None, None,
    ]  # fmt: skip
    assert {(a.clip_id, a.reason) for a in found.absent} == {
        ("test/mp4/id00012/x/00001.mp4", "wrong_set"), ("dev/mp4/id00099", "missing"),
        ("dev/mp4/id55555/x/1.mp4", "not_listed"), ("x.mp4", "not_listed"),
    }  # fmt: skip
    (tmp_path / "vox2_meta.csv").write_text("id00012,dev\n")
    with pytest.raises(UserError, match=r"vox2_meta\.csv:1: 'id00012,dev' is not of the form"):
        read("voxceleb2", tmp_path)


def test_voxceleb2_holds_identities_of_dev_out_for_validation():
    drawn = [voxceleb2.split_of(f"id{i:05d}", "dev") for i in range(5994)]
    assert 80 < drawn.count("validation") < 160 and "test" not in drawn
    assert voxceleb2.split_of("id00001", "test") == "test"


def test_lists_are_hashed_and_compared(speeches):
    found = read("hdtf", speeches)
    assert len(found.lists) == 12
    text = HDTF_LISTS["RD"]["crop_wh"].encode()
    assert found.lists["RD_crop_wh.txt"] == hashlib.sha256(text).hexdigest()
    sums = speeches / "sums"
    lines = [f"{digest}  HDTF_dataset/{name}" for name, digest in found.lists.items()]
    sums.write_text("\n".join(lines))
    assert read("hdtf", speeches, lists_sha256=sums) == found
    sums.write_text("\n".join(lines[1:]))
    with pytest.raises(UserError, match=f"has no hash of {next(iter(found.lists))}"):
        read("hdtf", speeches, lists_sha256=sums)
    sums.write_text("\n".join(lines))
    with (speeches / "RD_crop_wh.txt").open("a") as file:
        file.write("Radio3_0.mp4 1 2 3 4\n")
    with pytest.raises(UserError, match=r"RD_crop_wh\.txt has SHA-256 .* fetch the list again"):
        read("hdtf", speeches, lists_sha256=sums)
    sums.write_text("abc  RD_crop_wh.txt")
    with pytest.raises(UserError, match=r"sums:1: expected `HASH  FILE`"):
        read("hdtf", speeches, lists_sha256=sums)
