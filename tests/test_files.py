import json
import os
import threading

import pytest

from talkjax import files
from talkjax.errors import UserError


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "x.json"
    files.write_text(path, "old")

    def fail():
        with files.replacing(path) as temporary:
            assert temporary.suffix == ".json"  # writers choose a format by it
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(files.WriteError, match=r"x\.json: cannot be written \(No space left"):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.json"]


def test_written_files_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_bytes(tmp_path / "x", b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_a_folder_is_held_by_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE", 0.2)
    folder = tmp_path / "new"
    with files.held(folder, "wait"):
        second = files.held(folder, "wait")
        with pytest.raises(UserError, match="new is in use by another process; wait"):
            second.__enter__()
        with files.held(tmp_path, "wait"):
            pass
    with files.held(folder, "wait"):
        pass


def test_a_folder_that_is_let_go_soon_is_waited_for(tmp_path):
    first = files.held(tmp_path, "wait")
    first.__enter__()
    threading.Timer(0.3, first.__exit__, (None, None, None)).start()
    with files.held(tmp_path, "wait"):
        pass


def test_what_cannot_be_locked_is_not(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "in it", "gs://bucket/run"):
        with files.held(folder, "wait"):
            pass


def test_json_round_trip_and_refusals(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"b": 1, "a": [2.5]})
    assert files.read_json_object(path, "r") == {"b": 1, "a": [2.5]}
    assert list(json.loads(path.read_text())) == ["b", "a"]
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})
    for content in (b"{", b"[1]", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"x\.json .*; do this$"):
            files.read_json_object(path, "do this")
    with pytest.raises(UserError, match="does not exist; do this"):
        files.read_json_object(tmp_path / "none", "do this")
