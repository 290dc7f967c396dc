"""The FaceMesh client with fake workers."""

import ast
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from talkjax import uv_scripts
from talkjax.errors import UserError
from talkjax.media import facemesh
from talkjax.media.facemesh import FaceMesh

FAKE = """
import json, os, struct, sys, time
mode, notes = sys.argv[1], sys.argv[2]
lives = len(os.listdir(notes))
open(os.path.join(notes, f"{os.getpid()}-{lives}"), "w").close()
out = sys.stdout.buffer
def send(kind, data):
    out.write(struct.pack("<IB", len(data), ord(kind)) + data); out.flush()
def read(n):
    data = b""
    while len(data) < n:
        more = sys.stdin.buffer.read(n - len(data))
        if not more: sys.exit(0)
        data += more
    return data
if mode == "garbage_hello":
    print("Hello! I print to stdout."); sys.stdout.flush(); time.sleep(60)
if mode == "silent": time.sleep(60)
if mode == "no_environment":
    print("error: no network for mediapipe", file=sys.stderr); sys.exit(1)
if mode == "chatty":
    for i in range(20000): print("noise", i, "x" * 50, file=sys.stderr)
send("H", json.dumps({"protocol": 99 if mode == "old" else 1, "mediapipe": "fake"}).encode())
seen = 0
while True:
    length, kind = struct.unpack("<IB", read(5))
    body = read(length)
    if chr(kind) == "Q":
        if mode == "stubborn": time.sleep(60)
        sys.exit(0)
    if chr(kind) == "R": seen = 0; continue
    seen += 1
    if mode == "dies_once" and lives == 0 or mode == "dies":
        print("Traceback ...\\nRuntimeError: graph broke", file=sys.stderr); sys.exit(3)
    if mode == "hangs_once" and lives == 0 or mode == "hangs": time.sleep(60)
    if mode == "garbage": out.write(b"x" * 4000); out.flush(); time.sleep(60)
    if mode == "wrong_length": send("L", struct.pack("<I", 3) + b"1234"); continue
    height, width = struct.unpack_from("<II", body)
    face = [[seen, height, width]] + [[sum(body[8:]) % 256, int(sys.argv[3][-1]), 0]] * 477
    send("L", struct.pack("<I", 1) + b"".join(struct.pack("<3f", *p) for p in face))
"""


@pytest.fixture
def fake(tmp_path):
    """fake(mode, **options) -> FaceMesh on a fake worker; `fake.starts()` counts its lives."""
    script, notes = tmp_path / "fake.py", tmp_path / "notes"
    script.write_text(FAKE)
    notes.mkdir()
    made = []

    def make(mode, **options):
        options.setdefault("frame_timeout", 20.0)
        command = [sys.executable, str(script), mode, str(notes)]
        made.append(FaceMesh(command=command, **options))
        return made[-1]

    make.starts = lambda: len(list(notes.iterdir()))
    make.pids = lambda: [int(path.name.split("-")[0]) for path in notes.iterdir()]
    yield make
    for mesh in made:
        mesh.close()


def frame(height=6, width=5, value=1):
    return np.full((height, width, 3), value, np.uint8)


def gone(pid: int) -> bool:
    """Whether the process has ended and been reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_round_trip_and_shutdown(fake):
    with fake("good", max_faces=3) as mesh:
        faces = mesh.detect(frame())
        assert faces.shape == (1, 478, 3) and faces.dtype == np.float32
        assert faces[0, 0].tolist() == [1, 6, 5]
        assert faces[0, 1].tolist() == [90, 3, 0]  # the pixels' sum; max_faces arrived
        assert mesh.versions["mediapipe"] == "fake"
        faces[:] = 0  # writable: nobody else's memory
    assert all(map(gone, fake.pids()))
    with pytest.raises(RuntimeError, match="closed"):
        mesh.detect(frame())
    mesh.close()


def test_frames_need_not_be_contiguous(fake):
    with fake("good") as mesh:
        view = np.zeros((4, 9, 3), np.uint8)[::2, ::-3]
        assert mesh.detect(view)[0, 0].tolist() == [1, 2, 3]
        assert mesh.detect(np.zeros((0, 4, 3), np.uint8)).shape == (0, 478, 3)


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))]
)
def test_wrong_arrays_are_refused(fake, bad):
    with pytest.raises(ValueError, match="uint8"):
        fake("good").detect(bad)
    assert fake.starts() == 0


def test_reset_forgets(fake):
    with fake("good") as mesh:
        counts = [mesh.detect(frame())[0, 0, 0] for _ in range(3)]
        mesh.reset()
        assert counts == [1, 2, 3] and mesh.detect(frame())[0, 0, 0] == 1
        assert fake.starts() == 1
    fake("good").reset()  # before the start: nothing to forget


def test_starts_by_itself(fake):
    assert len(fake("good").detect(frame())) == 1


@pytest.mark.parametrize("mode", ["dies_once", "hangs_once"])
def test_restarts_and_retries(fake, mode):
    with fake(mode, frame_timeout=20.0 if mode == "dies_once" else 1.5) as mesh:
        assert mesh.detect(frame())[0, 0].tolist() == [1, 6, 5]
        assert fake.starts() == 2


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("dies", r"exit code 3\): Traceback ... RuntimeError: graph broke"),
        ("hangs", "no answer within 1 s"),
        ("garbage", "not a message"),
        ("wrong_length", "wrong length"),
    ],
)
def test_second_failure_is_the_users(fake, mode, says):
    mesh = fake(mode, frame_timeout=1.0 if mode == "hangs" else 20.0)
    with pytest.raises(UserError, match=says) as error:
        mesh.detect(frame())
    assert "\n" not in str(error.value) and fake.starts() == 2
    assert all(map(gone, fake.pids()))


def test_interrupted_exchange_leaves_no_stale_answer(fake, monkeypatch):
    with fake("good") as mesh:
        mesh.detect(frame(value=1))

        def interrupt(kind):
            raise KeyboardInterrupt

        monkeypatch.setattr(mesh._worker, "read", interrupt)
        with pytest.raises(KeyboardInterrupt):
            mesh.detect(frame(value=2))
        assert mesh.detect(frame(2, 2, value=3))[0, 1, 0] == 2 * 2 * 3 * 3
        assert fake.starts() == 2


def test_hang_while_writing(fake):
    """A frame larger than any pipe, to a worker that has stopped reading."""
    mesh = fake("hangs", frame_timeout=1.0)
    mesh.__enter__()
    mesh._worker.write(b"F", b"\0" * 8)  # it now sleeps, and reads no more
    start = time.monotonic()
    mesh._frame_timeout = 1.0
    with pytest.raises(UserError, match="no answer"):
        mesh.detect(frame(2000, 2000))
    assert time.monotonic() - start < 15


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("no_environment", "no network for mediapipe"),
        ("garbage_hello", "not a message"),
        ("silent", "no answer within 1 s"),
        ("old", "protocol 99"),
    ],
)
def test_failing_start(fake, mode, says):
    mesh = fake(mode, start_timeout=1.0 if mode == "silent" else 20.0)
    with pytest.raises(UserError, match=says) as error, mesh:
        pass
    assert "uv sync --script" in str(error.value) and "\n" not in str(error.value)
    assert all(map(gone, fake.pids()))


def test_missing_program():
    with pytest.raises(UserError, match="No such file"), FaceMesh(command=["/nonexistent/uv"]):
        pass


def test_missing_uv(monkeypatch):
    monkeypatch.setitem(sys.modules, "uv", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="pip install uv"):
        facemesh.worker_command()


FAKE_UV = """#!{python}
import os, sys
with open({log!r}, "a") as log:
    print(*sys.argv[1:], file=log)
if sys.argv[1:3] == ["python", "find"]:
    sys.exit({code})
os.execv({python!r}, [{python!r}, {script!r}, "good", {notes!r}, sys.argv[-1]])
"""


@pytest.mark.parametrize("found", [True, False])
def test_download_of_python_is_announced(fake, tmp_path, monkeypatch, caplog, found):
    uv, log = tmp_path / "uv", tmp_path / "log"
    script, notes, code = tmp_path / "fake.py", tmp_path / "notes", 0 if found else 2
    values = {"python": sys.executable, "script": str(script), "notes": str(notes)}
    uv.write_text(FAKE_UV.format(log=str(log), code=code, **values))
    uv.chmod(0o700)
    monkeypatch.setattr(uv_scripts, "find_uv", lambda purpose: str(uv))
    with FaceMesh() as mesh:
        assert len(mesh.detect(frame())) == 1
    first, second = log.read_text().splitlines()
    assert first.endswith("--no-python-downloads >=3.11,<3.13")
    assert second.startswith("run ") and str(facemesh.WORKER) in second
    messages = [record.getMessage() for record in caplog.records]
    expected = "Python 3.11 or 3.12, and this machine has neither; uv downloads one"
    assert len(messages) == (0 if found else 1)
    assert all(expected in message and "\n" not in message for message in messages)


def test_python_of_the_worker():
    assert f'# requires-python = "{facemesh._PYTHONS}"\n' in facemesh.WORKER.read_text()


def test_stderr_is_drained(fake):
    with fake("chatty") as mesh:  # over a megabyte: an undrained pipe would block the worker
        assert len(mesh.detect(frame())) == 1
        assert len(mesh._worker.stderr) <= 40


def test_stubborn_worker_is_killed(fake, monkeypatch):
    mesh = fake("stubborn")
    mesh.detect(frame())
    worker, mesh._worker = mesh._worker, None
    start = time.monotonic()
    worker.close(0.5)
    assert time.monotonic() - start < 10 and all(map(gone, fake.pids()))


def test_forgotten_client_ends_its_worker(fake, tmp_path):
    mesh = FaceMesh(
        command=[sys.executable, str(tmp_path / "fake.py"), "good", str(tmp_path / "notes")]
    )
    mesh.detect(frame())
    del mesh
    assert all(map(gone, fake.pids()))


def test_worker_ends_with_a_killed_client(fake, tmp_path):
    code = (
        "import os, sys, numpy as np\n"
        "from talkjax.media.facemesh import FaceMesh\n"
        "FaceMesh(command=[sys.executable, *sys.argv[1:]]).detect(np.ones((4, 4, 3), np.uint8))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    arguments = [str(tmp_path / "fake.py"), "good", str(tmp_path / "notes")]
    root = str(pathlib.Path(facemesh.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=root, check=False, timeout=60)
    (pid,) = fake.pids()
    deadline = time.monotonic() + 10
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (
        gone(pid) or pathlib.Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] == "Z"
    )


def test_threads_take_turns(fake):
    with fake("good") as mesh:
        answers = []
        threads = [
            threading.Thread(target=lambda v=v: answers.append((v, mesh.detect(frame(3, 3, v)))))
            for v in range(1, 6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {v: int(a[0, 1, 0]) for v, a in answers} == {v: 27 * v for v in range(1, 6)}


def test_worker_script_stands_alone():
    """It runs where neither talkjax nor matplotlib is installed, and every pin is exact."""
    text = facemesh.WORKER.read_text()
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    third_party = imported - set(sys.stdlib_module_names)
    assert third_party == {"cv2", "mediapipe", "numpy"}
    header = text.split("# ///")[1]
    for name in ("mediapipe", "numpy", "opencv-python-headless", "protobuf", "absl-py", "attrs"):
        assert f'"{name}==' in header
    assert f"PROTOCOL_VERSION = {facemesh.PROTOCOL_VERSION}\n" in text


# The real worker.
