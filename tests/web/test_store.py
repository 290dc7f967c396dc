"""Nobody's files stay longer than they are used, and nobody loses another's."""

import os
import time

import pytest

from talkjax.errors import UserError
from talkjax.web.store import Store


def put(store, name="a.mp4", folder="hash"):
    path = store.uploads / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"content")
    return path


def test_an_upload_of_two_visitors_goes_with_the_last(store):
    path = put(store)
    assert store.take("anna", "template", path) == str(path)
    store.take("ben", "template", path)
    store.leave("anna")
    assert path.exists() and store.get("ben", "template") == str(path)
    store.take("ben", "template", put(store, "b.mp4", "other"))  # it takes the first one's place
    assert not path.exists() and not path.parent.exists()
    store.drop("ben", "template")
    assert not list(store.uploads.iterdir()) and store.get("ben", "template") is None


def test_files_of_others_are_refused(store, tmp_path):
    outside = tmp_path / "private.mp4"
    outside.write_bytes(b"private")
    for path in (outside, store.uploads / ".." / ".." / "private.mp4"):
        with pytest.raises(UserError, match=r"private.mp4: was not uploaded to this page"):
            store.take("anna", "template", path)
    with pytest.raises(UserError, match="was removed after use"):
        store.take("anna", "template", store.uploads / "hash" / "gone.mp4")
    assert outside.exists()


def test_nothing_is_removed_under_work(store):
    path = put(store)
    store.take("anna", "template", path)
    folder = store.folder("anna")
    with store.busy("anna"):
        store.leave("anna")
        assert path.exists() and folder.exists() and store.folder("anna") == folder
    assert not path.exists() and not folder.exists()


def test_the_sweep(tmp_path):
    store = Store(0.2, str(tmp_path))
    old, taken, young = (put(store, f"{name}.mp4", name) for name in ("old", "taken", "young"))
    for path in (old, taken):
        os.utime(path, (1, 1))
    store.take("anna", "template", taken)
    store.sweep()
    assert not old.exists() and taken.exists() and young.exists()
    folder = store.folder("anna")
    with store.busy("anna"):
        time.sleep(0.3)
        store.sweep()
        assert taken.exists() and folder.exists()
    time.sleep(0.3)
    store.sweep()
    assert not taken.exists() and not folder.exists() and not young.exists()
    assert store.used_bytes() == 0
    store.close()
    assert not store.root.exists()


def test_what_is_left_of_an_upload_that_broke_off(store):
    broken, complete, going = store.uploads / "tmp1", put(store), store.uploads / "tmp2"
    for path in (broken, going):
        path.write_bytes(b"half")
    for path in (broken, complete):  # nothing came for more than two minutes
        os.utime(path, (time.time() - 130,) * 2)
    store._keep = 600.0
    store.sweep()
    assert not broken.exists() and complete.exists() and going.exists()


def test_what_a_killed_server_left_is_removed(tmp_path):
    alive = Store(60, str(tmp_path))
    killed = Store(60, str(tmp_path))
    put(killed)
    killed._lock_file.close()  # as the system does where a process ends
    other = Store(60, str(tmp_path))
    assert not killed.root.exists() and alive.root.exists()
    for store in (alive, other):
        store.close()
    assert not list(tmp_path.iterdir())
