"""Apache Beam on its runner for one machine; skipped where the extra `beam` is not installed."""

import functools
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from data_pipelines import clip_cache, datasets, extract, preparation, prepare, shards
from talkjax.data import records, storage
from talkjax.errors import UserError
from tests.data_pipelines.synthetic import begun, make_fake_work, make_video

pytest.importorskip("apache_beam", reason="the extra `beam` is not installed")

EXTRACT = extract.ExtractOptions(crop_size=32)
DIRECT = ("--runner=FnApiRunner",)
TWO = (*DIRECT, "--direct_running_mode=multi_processing", "--direct_num_workers=2")


def run(source, out, log=None, **kwargs):
    work = functools.partial(make_fake_work, log=log)
    how = preparation.PrepareOptions(
        extract=EXTRACT, workers=1, holdout=1, make_work=work, **kwargs
    )
    return prepare.prepare(source, out, how)


def shard_bytes(out):
    return {
        (part, path.name): path.read_bytes()
        for part in records.PARTS
        for path in storage.part_folder(storage.find_dataset(out), part).glob("*array_record*")
    }


def manifest(out):
    lines = map(json.loads, (out / "manifest.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "elapsed"} for line in lines]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name in "abcdef":
        make_video(folder / f"{name}.mkv", frames=26)
    make_video(folder / "crash.mkv")
    return folder


def test_shards_and_manifest_do_not_depend_on_the_runner(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 100_000)
    log = tmp_path / "log"
    run(videos, tmp_path / "plain")
    summary = run(videos, tmp_path / "one", log, beam_options=DIRECT)
    assert summary["videos_extracted_now"] == 7 and summary["packed_again"]
    pids = {line.split()[1] for line in log.read_text().splitlines()}
    assert len(pids) == 2  # one worker, and one more after the crash
    run(videos, tmp_path / "two", beam_options=TWO)
    plain = shard_bytes(tmp_path / "plain")
    assert len(plain) > 2
    for out in (tmp_path / "one", tmp_path / "two"):
        assert shard_bytes(out) == plain
        assert manifest(out) == manifest(tmp_path / "plain")
        assert json.loads((storage.find_dataset(out) / "index.json").read_text()) == json.loads(
            (storage.find_dataset(tmp_path / "plain") / "index.json").read_text()
        )
    again = run(videos, tmp_path / "one", log, beam_options=DIRECT)
    assert again["videos_extracted_now"] == 0 and not again["packed_again"]


def make_broken(cache, options):
    raise UserError("no face finder here")


def test_a_pipeline_that_fails_is_one_line(videos, tmp_path):
    how = preparation.PrepareOptions(extract=EXTRACT, make_work=make_broken, beam_options=DIRECT)
    with pytest.raises(UserError, match=r"the Beam pipeline failed .*no face finder here"):
        prepare.prepare(videos, tmp_path / "out", how)
    with pytest.raises(UserError, match="the Beam pipeline failed"):
        run(videos, tmp_path / "out", beam_options=("--runner=NoSuchRunner",))


def test_a_killed_pipeline_goes_on(videos, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log"
    script = tmp_path / "script.py"
    script.write_text(
        "import functools\n"
        "from data_pipelines import extract, preparation, prepare\n"
        "from tests.data_pipelines.synthetic import make_fake_work\n"
        "if __name__ == '__main__':\n"
        f"    work = functools.partial(make_fake_work, log={str(log)!r}, delay=0.5)\n"
        "    settings = preparation.PrepareOptions(\n"
        "        extract.ExtractOptions(crop_size=32), holdout=1, make_work=work,\n"
        f"        beam_options={DIRECT!r})\n"
        f"    prepare.prepare({str(videos)!r}, {str(out)!r}, settings)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    process = subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while len(list((out / ".cache").glob("*.json"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    worker = int(log.read_text().split()[1])
    while time.monotonic() < deadline:  # it ends with the clip in hand: nobody listens any more
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    clips = datasets.read_catalog("video_folder", videos, out).clips
    jobs = clip_cache.make_jobs(clips, EXTRACT)
    finished = [j.clip_id for j in jobs if clip_cache.read_outcome(out / ".cache", j)]
    assert 2 <= len(finished) < 7
    before = len(begun(log))
    run(videos, out, log, beam_options=DIRECT)
    assert sorted(finished + begun(log)[before:]) == sorted(job.clip_id for job in jobs)
    assert storage.list_splits(out) == {"train": 5, "test": 1}
