import json

import pytest

from talkjax.errors import UserError
from talkjax.metrics import clips, workspace
from talkjax.metrics.evaluator import assign_partners
from talkjax.metrics.videos import EvaluationClip
from talkjax.metrics.workspace import hash_checkpoint


@pytest.fixture
def folder(tmp_path):
    for name in ("s1/b.mp4", "s1/a.mkv", "c.MOV", "notes.txt", ".cache/d.mp4", "s1/.e.mp4"):
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "videos"


def names(found):
    return [clip.name for clip in found]


def test_folders_are_searched_in_order(folder):
    found = clips.find_clips(folder)
    assert names(found) == ["c.MOV", "s1/a.mkv", "s1/b.mp4"]
    assert all(clip.path.is_file() for clip in found)
    with pytest.raises(UserError, match="not a folder"):
        clips.find_clips(folder / "none")
    empty = folder / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="holds no video"):
        clips.find_clips(empty)


def test_lists_choose_by_name_with_or_without_suffix(folder, tmp_path):
    found = clips.find_clips(folder)
    path = tmp_path / "list.txt"
    path.write_text("# held out\ns1/b\n\nc.MOV\ns1/b.mp4\n")
    assert names(clips.select_listed(found, path)) == ["s1/b.mp4", "c.MOV"]
    path.write_text("s1/z\n")
    with pytest.raises(UserError, match="'s1/z'"):
        clips.select_listed(found, path)
    path.write_text("\n")
    with pytest.raises(UserError, match="names no video"):
        clips.select_listed(found, path)
    with pytest.raises(UserError, match="cannot be read"):
        clips.select_listed(found, tmp_path / "none.txt")


def test_the_manifest_names_a_split(folder, tmp_path):
    data = tmp_path / "shards"
    data.mkdir()
    lines = [("s1/b.mp4", "test"), ("s1/a.mkv", "train"), ("c.MOV", "test"), ("bad.mp4", None)]
    text = "\n".join(json.dumps({"source": n, "split": s, "parts": []}) for n, s in lines)
    (data / "manifest.jsonl").write_text(text)
    assert names(clips.find_split_clips(data, "test", folder)) == ["c.MOV", "s1/b.mp4"]
    with pytest.raises(UserError, match="--videos"):
        clips.find_split_clips(data, "test")
    (data / "summary.json").write_text(json.dumps({"source": str(folder)}))
    assert names(clips.find_split_clips(data, "train")) == ["s1/a.mkv"]
    with pytest.raises(UserError, match="has test, train"):
        clips.find_split_clips(data, "validation", folder)
    with pytest.raises(UserError, match="2 of 2 videos are missing"):
        clips.find_split_clips(data, "test", tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        clips.find_split_clips(tmp_path, "test")


def test_evenly():
    assert clips.take_evenly(range(10), 3) == [0, 4, 9]
    assert clips.take_evenly(range(3), 5) == [0, 1, 2] and clips.take_evenly(range(3), None) == [
        0,
        1,
        2,
    ]


def test_partners_are_far_away_and_never_oneself():
    for count in range(2, 9):
        many = [EvaluationClip(str(i), None) for i in range(count)]
        partners = assign_partners(many)
        assert sorted(p.name for p in partners.values()) == sorted(c.name for c in many)
        assert all(partners[c.name] != c for c in many)
    assert partners["0"].name == "4"


def test_a_checkpoint_is_known_by_its_weights(tmp_path):
    with pytest.raises(UserError, match="holds no weights"):
        hash_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"1")
    (tmp_path / "config.json").write_text("{}")
    first = hash_checkpoint(tmp_path)
    assert hash_checkpoint(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"2")
    assert hash_checkpoint(tmp_path) != first
    for step in (5, 10):
        (tmp_path / "run" / "checkpoints" / str(step) / "state").mkdir(parents=True)
        (tmp_path / "run" / "checkpoints" / str(step) / "state" / "w").write_text(str(step))
    newest = hash_checkpoint(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "5" / "state" / "w").write_text("changed")
    assert hash_checkpoint(tmp_path / "run") == newest


def test_videos_of_two_folders_are_paired_by_name(tmp_path):
    for name in ("made/a.mp4", "made/deep/b.avi", "made/x.mp4", "real/a.mkv", "real/deep/b.mp4",
                 "real/c.mp4"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    files, found, unmatched = clips.match_by_name(tmp_path / "made", tmp_path / "real")
    assert [clip.name for clip in found] == ["a.mkv", "deep/b.mp4"]
    assert files == {
        "a.mkv": tmp_path / "made" / "a.mp4",
        "deep/b.mp4": tmp_path / "made" / "deep" / "b.avi",
    }
    assert unmatched == ["c", "x"]
    (tmp_path / "made" / "a.mov").write_bytes(b"")
    with pytest.raises(UserError, match="have the same name"):
        clips.match_by_name(tmp_path / "made", tmp_path / "real")
    with pytest.raises(UserError, match="has the name of one in"):
        clips.match_by_name(tmp_path / "made" / "deep", tmp_path / "real")
    with pytest.raises(UserError, match=r"--generated=.* is not a folder"):
        clips.match_by_name(tmp_path / "none", tmp_path / "real")


def test_changed_conventions_change_the_hash_of_the_code(monkeypatch):
    """Generated videos depend on them: old files must not be reused."""
    before = workspace.hash_code()
    hash_tree = workspace.hash_tree
    for name in ("conventions.py", "head_pose.py"):
        monkeypatch.setattr(
            workspace, "hash_tree",
            lambda path, *rest, name=name: "x" if path.name == name else hash_tree(path, *rest),
        )  # fmt: skip
        assert workspace.hash_code() != before
