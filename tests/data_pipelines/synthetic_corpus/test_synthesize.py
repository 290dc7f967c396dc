"""The command: what is made, made again, added, refused. Clips are stand-ins except in one test."""

import functools
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import synthesize
from data_pipelines.synthetic import sidecar
from data_pipelines.synthetic.plan import CorpusSettings, plan_corpus
from talkjax import commands, files
from talkjax.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


def fake_clip(out, settings, failing, plans):
    outcomes = []
    for p in plans:
        if p.clip_id in failing:
            outcomes.append({"clip_id": p.clip_id, "error": "ValueError: bad luck"})
            continue
        if "full" in failing:
            return [*outcomes, {"fatal": "x.mp4: the disk is full; free some space"}]
        if "oserror" in failing:
            raise OSError(28, "No space left on device")
        if "crash" in failing:
            os._exit(3)
        path = Path(out) / p.split / f"{p.clip_id}.mp4"
        path.write_bytes(p.clip_id.encode())
        arrays = {name: np.zeros(2) for name in ("times", "landmarks", "curves", "poses")}
        info = {"plan": p.to_json(), "settings": asdict(settings), "seconds": 2.0}
        sidecar.save_truth(
            path, sidecar.GroundTruth(**arrays, bilabial=np.zeros((0, 2)), info=info)
        )
        outcomes.append({"clip_id": p.clip_id, "split": p.split, "frames": 50, "seconds": 2.0})
    return outcomes


def fake_work(out, settings, failing=()):
    return functools.partial(fake_clip, out, settings, failing)


def run_in_process(jobs, make_work, workers, timeout):
    work = make_work()
    for job in jobs:
        yield job, work(job)


def run(out, identities=4, clips=2, seed=0, failing=(), processes=False, **more):
    work = functools.partial(fake_work, failing=failing)
    with pytest.MonkeyPatch.context() as patch:
        if not processes:
            patch.setattr(synthesize, "run_jobs", run_in_process)
        return synthesize.synthesize(out, identities, clips, seed, make_work=work, **more)


def names(out):
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*.mp4"))


def test_a_corpus_is_made_once(tmp_path):
    report = run(tmp_path, test_identities=1)
    assert names(tmp_path) == [
        "test/test_00000_000.mp4", "test/test_00000_001.mp4",
        *(f"train/train_0000{i}_00{k}.mp4" for i in range(3) for k in range(2)),
    ]  # fmt: skip
    assert report["made"]["clips"] == 8 and report["made"]["frames"] == 400
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["splits"] == {
        "train": {"clips": 6, "seconds": 12.0}, "test": {"clips": 2, "seconds": 4.0},
    }  # fmt: skip
    assert manifest["failed"] == [] and manifest["seed"] == 0
    assert manifest["command"].startswith("--identities=4 --test_identities=1 --clips=2 --seed=0")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mp4")}
    assert run(tmp_path, test_identities=1)["made"]["clips"] == 0
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mp4")}
    (tmp_path / "test" / "test_00000_001.json").unlink()
    assert run(tmp_path, test_identities=1)["made"]["clips"] == 1


def test_a_corpus_grows_and_does_not_shrink_or_change(tmp_path):
    run(tmp_path)
    assert run(tmp_path, identities=5, clips=3, test_identities=1)["made"]["clips"] == 7
    with pytest.raises(UserError, match=r"holds a larger corpus .*--identities=5"):
        run(tmp_path, identities=4)
    for changes in ({"seed": 1}, {"settings": CorpusSettings(size=128)}):
        with pytest.raises(UserError, match="holds another corpus"):
            run(tmp_path, identities=5, clips=3, **changes)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="is not the manifest of a corpus"):
        run(tmp_path)


def test_the_number_of_processes_changes_nothing(tmp_path):
    run(tmp_path / "a", workers=1)
    run(tmp_path / "b", workers=2, processes=True)
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for path in (tmp_path / "a").rglob("*.*"):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_failed_clips_are_told_and_tried_again(tmp_path):
    with pytest.raises(UserError, match=r"2 of 8 clips failed, first train_00001_000: ValueE"):
        run(tmp_path, failing=("train_00001_000", "test_00000_001"))
    assert len(names(tmp_path)) == 6
    failed = json.loads((tmp_path / "manifest.json").read_text())["failed"]
    assert {f["clip_id"] for f in failed} == {"train_00001_000", "test_00000_001"}
    assert run(tmp_path)["made"]["clips"] == 2
    with pytest.raises(UserError, match=r"1 of 1 clips failed.*exit code 3"):
        run(tmp_path / "other", identities=1, clips=1, failing=("crash",), processes=True)


def test_a_full_disk_ends_the_run(tmp_path):
    with pytest.raises(UserError, match="the disk is full"):
        run(tmp_path, failing=("full",))
    with pytest.raises(UserError, match=r"cannot write to .*No space left.*another folder"):
        run(tmp_path, failing=("oserror",))


def test_unwritable_places(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        run(tmp_path / "file")
    with pytest.raises(UserError, match="test_identities=5 is more than identities=4"):
        run(tmp_path, test_identities=5)


def test_a_manifest_that_cannot_be_written_is_one_short_line(tmp_path, monkeypatch):
    def refuse(path, text):
        raise files.WriteError(f"{path}: cannot be written (read-only); choose another place")

    monkeypatch.setattr(files, "write_text", refuse)
    with pytest.raises(UserError, match=r"^\S+manifest.json: cannot be written \(read-only\); ch"):
        run(tmp_path)


def test_files_of_killed_processes_are_removed(tmp_path):
    (tmp_path / "train").mkdir()
    for name, age in ((".old.part", 7200), (".new.part", 0), (".a.x.tmp.json", 7200)):
        path = tmp_path / "train" / name
        path.write_bytes(b"")
        now = path.stat().st_mtime
        os.utime(path, (now - age, now - age))
    run(tmp_path)
    assert [p.name for p in (tmp_path / "train").glob(".*")] == [".new.part"]


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    find = synthesize.importlib.util.find_spec
    monkeypatch.setattr(
        synthesize.importlib.util, "find_spec",
        lambda name, *more: None if name == "espeakng_loader" else find(name, *more),
    )  # fmt: skip
    with pytest.raises(UserError, match=r"espeakng-loader is not installed.*talkjax\[speech\]"):
        run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_people_are_kept_together_unless_there_are_too_few():
    plans = plan_corpus(3, 2, 0, 1)
    assert [len(job) for job in synthesize.group_by_person(plans, 2)] == [2, 2, 2]
    assert [len(job) for job in synthesize.group_by_person(plans, 4)] == [1] * 6


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--identities=0"], "identities"),
        (["--clips=-1"], "clips"),
        (["--size=255"], "is odd"),
        (["--identities=2", "--test_identities=3"], "is more than --identities=2"),
        (["--nonsense=1"], "nonsense"),
        (["more"], "unrecognized arguments: more"),
        ([], "required: --out"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(flags, message, tmp_path, capsys):
    out = [f"--out={tmp_path / 'o'}"] if flags else []
    assert commands.run_main(synthesize.main, [*out, *flags]) == 2
    printed = capsys.readouterr().err
    assert message in printed and len(printed.strip().splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_the_command_makes_real_clips_and_a_sheet(tmp_path):
    import cv2

    sheet = tmp_path / "sheet.png"
    done = subprocess.run(
        [
            sys.executable, "-m", "data_pipelines.synthesize", f"--out={tmp_path / 'o'}",
            "--identities=1", "--clips=1", "--size=96", "--seconds=0.5", "--workers=1",
            f"--sheet={sheet}",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "train: 1 clips" in done.stdout and "frames/s by 1 processes" in done.stdout
    assert names(tmp_path / "o") == ["train/train_00000_000.mp4"]
    assert cv2.imread(str(sheet)).shape == (96, 96, 3)
