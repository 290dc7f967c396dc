import functools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data_pipelines import clip_cache, datasets, extract, preparation, prepare
from talkjax.data import storage, stored_clips
from talkjax.errors import UserError
from tests.data_pipelines.synthetic import begun, make_fake_work, make_video

OPTIONS = extract.ExtractOptions(crop_size=32)


def run(source, out, log=None, options=OPTIONS, workers=2, **kwargs):
    work = functools.partial(make_fake_work, log=log)
    kwargs = {"holdout": 1} | kwargs
    settings = preparation.PrepareOptions(
        extract=options, workers=workers, make_work=work, **kwargs
    )
    return prepare.prepare(source, out, settings)


def manifest(out):
    lines = (out / "manifest.jsonl").read_text().splitlines()
    return {line["source"]: line for line in map(json.loads, lines)}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name in ("a", "b", "sub/c", "sub/d"):
        make_video(folder / f"{name}.mkv", frames=30)
    make_video(folder / "dark.mkv", black=range(30))
    make_video(folder / "crash.mkv")
    (folder / "junk.mp4").write_bytes(b"junk")
    (folder / "notes.txt").write_text("not a video")
    return folder


def test_a_folder_becomes_shards_and_a_manifest(videos, tmp_path):
    log = tmp_path / "log"
    summary = run(videos, tmp_path / "out", log)
    assert summary["videos"] == 7 and summary["kept"] == 4
    assert summary["left_out"] == {"no_face": 1, "crash": 1, "unreadable": 1}
    lines = manifest(tmp_path / "out")
    assert {name: line["reason"] for name, line in lines.items() if line["status"] != "kept"} == {
        "dark.mkv": "no_face", "crash.mkv": "crash", "junk.mp4": "unreadable",
    }  # fmt: skip
    assert [n for n, line in lines.items() if line["split"] == "test"] == ["sub/d.mkv"]
    assert lines["a.mkv"]["frames"] == 30 and lines["a.mkv"]["seconds"] == pytest.approx(1.2)
    assert storage.list_splits(tmp_path / "out") == {"train": 3, "test": 1}
    reader = stored_clips.ShardReader(tmp_path / "out", "train")
    assert [reader.read(i).clip_id for i in range(3)] == ["a.mkv", "b.mkv", "sub/c.mkv"]
    assert reader.ticks.tolist() == [30, 30, 30]
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary


def test_a_second_run_does_nothing_and_a_new_video_only_itself(videos, tmp_path):
    source, out, log = tmp_path / "in", tmp_path / "out", tmp_path / "log"
    for name in ("a", "b"):
        source.mkdir(exist_ok=True)
        os.link(videos / f"{name}.mkv", source / f"{name}.mkv")
    assert run(source, out, log)["packed_again"]
    again = run(source, out, log)
    assert again["videos_extracted_now"] == 0 and not again["packed_again"]
    os.link(videos / "sub/c.mkv", source / "c.mkv")
    assert run(source, out, log)["videos_extracted_now"] == 1
    assert sorted(begun(log)) == ["a.mkv", "b.mkv", "c.mkv"]
    assert storage.list_splits(out) == {"train": 2, "test": 1}
    other = run(source, out, log, options=extract.ExtractOptions(crop_size=48))
    assert other["videos_extracted_now"] == 3 and other["packed_again"]


def test_a_damaged_cache_entry_is_made_again(videos, tmp_path):
    out = tmp_path / "out"
    run(videos / "sub", out)
    victim = next((out / ".cache").glob("*.npz"))
    victim.write_bytes(victim.read_bytes()[:100])
    assert run(videos / "sub", out)["videos_extracted_now"] == 1


def test_after_sigkill_nothing_finished_is_done_again(tmp_path):
    source, out, log = tmp_path / "in", tmp_path / "out", tmp_path / "log"
    names = [f"v{i}.mkv" for i in range(6)]
    for name in names:
        make_video(source / name, frames=26)
    script = tmp_path / "script.py"
    script.write_text(
        "import functools\n"
        "from data_pipelines import extract, prepare, preparation\n"
        "from tests.data_pipelines.synthetic import make_fake_work\n"
        "if __name__ == '__main__':\n"
        f"    work = functools.partial(make_fake_work, log={str(log)!r}, delay=0.3)\n"
        "    options = extract.ExtractOptions(crop_size=32)\n"
        "    settings = preparation.PrepareOptions(options, workers=1, holdout=1, make_work=work)\n"
        f"    prepare.prepare({str(source)!r}, {str(out)!r}, settings)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    process = subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list((out / ".cache").glob("*.json"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1.5)  # its child finishes the clip in hand, sees the closed pipe and ends
    clips = datasets.read_catalog("video_folder", source, out).clips
    jobs = clip_cache.make_jobs(clips, OPTIONS)
    finished = [j.clip_id for j in jobs if clip_cache.read_outcome(out / ".cache", j)]
    assert 2 <= len(finished) < 6
    first = begun(log)
    subprocess.run([sys.executable, script], env=environment, check=True, capture_output=True)
    second = begun(log)[len(first) :]
    assert sorted(finished + second) == names
    assert storage.list_splits(out) == {"train": 5, "test": 1}


def test_interrupt_ends_with_130_and_leaves_no_process(videos, tmp_path):
    log = tmp_path / "log"
    script = tmp_path / "script.py"
    script.write_text(
        "import functools, sys\n"
        "from data_pipelines import prepare, preparation\n"
        "from talkjax.commands import run_main\n"
        "from tests.data_pipelines.synthetic import make_fake_work\n"
        "def main(_):\n"
        f"    work = functools.partial(make_fake_work, log={str(log)!r}, delay=30.0)\n"
        f"    prepare.prepare({str(videos)!r}, {str(tmp_path / 'out')!r},\n"
        "                    preparation.PrepareOptions(workers=2, make_work=work))\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(run_main(main, []))\n"
    )
    process = subprocess.Popen(
        [sys.executable, script], env=os.environ | {"PYTHONPATH": os.getcwd()},
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        # Tests that a shell started in the background ignore it, and so would their children.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not log.is_file() or len(begun(log)) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, said = process.communicate(timeout=180)
    assert process.returncode == 130 and "Traceback" not in said
    for line in log.read_text().splitlines():
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.split()[1]), 0)


def test_splits():
    def kept(*names):
        return [{"source": n, "parts": [1]} for n in names]

    def assign(outcomes, holdout, holdout_fraction):
        settings = preparation.PrepareOptions(holdout=holdout, holdout_fraction=holdout_fraction)
        return preparation.assign_splits(outcomes, {}, settings)

    assert assign(kept("test/a", "train/b", "train/c"), None, 0.1) == {
        "test/a": "test", "train/b": "train", "train/c": "train",
    }  # fmt: skip
    assert assign(kept("a", "b", "c"), 2, 0.1) == {"a": "train", "b": "test", "c": "test"}
    assert assign(kept("a"), None, 0.1) == {"a": "train"}
    assert assign(kept("a", "train/b"), None, 0.5) == {"a": "train", "train/b": "test"}
    left_out = [{"source": "z", "parts": []}]
    assert assign(kept("a", "b") + left_out, 1, 0.1) == {"a": "train", "b": "test"}
    with pytest.raises(UserError, match="holdout=2 leaves nothing to train on"):
        assign(kept("a", "b"), 2, 0.1)


def test_what_users_get_wrong(videos, tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        run(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no video"):
        run(tmp_path / "empty", tmp_path / "out")
    make_video(tmp_path / "dark" / "a.mkv", black=range(30))
    with pytest.raises(
        UserError, match=r"none of the 1 videos .* can be used .1 no_face.*manifest"
    ):
        run(tmp_path / "dark", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        run(videos, tmp_path / "file")


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "data_pipelines.prepare", *arguments],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_command_ends_with_code_2_and_one_line(tmp_path):
    done = command(f"--source={tmp_path / 'none'}", f"--out={tmp_path}")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: --source=")
    done = command(f"--source={tmp_path}", "--face=tallest", f"--out={tmp_path}")
    assert done.returncode == 2 and "--face=tallest" in done.stderr
    done = command()
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "the following arguments are required: --source, --out" in done.stderr
    done = command(f"--source={tmp_path}", "--out=gs://bucket/shards")
    assert done.returncode == 2
    assert done.stderr == (
        "error: --out=gs://bucket/shards is in a bucket; write to a local folder and copy it\n"
    )


def test_the_console_command_is_the_module(monkeypatch, capsys):
    from talkjax import prepare as console

    monkeypatch.setattr(sys, "argv", ["talkjax-prepare", "--help"])
    with pytest.raises(SystemExit) as end:
        console.run()
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert (
        said.startswith("usage: python -m data_pipelines.prepare") and "--holdout_fraction" in said
    )


def test_workers_end_if_collecting_fails():
    """The traceback of an error would keep their iterator open."""
    closed = []

    def outcomes():
        try:
            yield {}, False
        finally:
            closed.append(True)

    with pytest.raises(KeyError) as caught:
        preparation._collect([], outcomes())
    assert closed and caught.tb


def test_the_output_may_lie_inside_of_the_source(tmp_path):
    for name in ("a.mkv", "b.mkv", ".hidden/c.mkv", "out/d.mkv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    clips = datasets.read_catalog("video_folder", tmp_path, tmp_path / "out").clips
    jobs = clip_cache.make_jobs(clips, OPTIONS)
    assert [job.clip_id for job in jobs] == ["a.mkv", "b.mkv"]
    assert len({job.key for job in jobs}) == 2


@pytest.mark.slow
def test_real_footage(shared_data, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for path in sorted((shared_data / "grid_s1").glob("*.mkv"))[:3]:
        os.symlink(path, source / path.name)
    done = command(f"--source={source}", f"--out={tmp_path / 'out'}", "--holdout=1")
    assert done.returncode == 0, done.stderr
    clip = stored_clips.ShardReader(tmp_path / "out", "test").read(0)
    assert clip.num_frames == 75 and np.isfinite(clip.landmarks).all()
