"""The command line of evaluate.py."""

import itertools
import json
import subprocess
import sys

import pytest

from talkjax.commands import run_main
from talkjax.metrics import command, packages
from tests.metrics.test_landmarks import record
from tests.sampling import fakes


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    (root / "videos").mkdir()
    (root / "videos" / "a.mp4").write_bytes(b"no video")
    (root / "other").mkdir()
    (root / "other" / "b.mp4").write_bytes(b"no video")
    return root


def refusals(places):
    checkpoint, out = f"--checkpoint={places}", f"--out={places}/r.json"
    videos = f"--videos={places}/videos"
    return {
        "--checkpoint=DIR is required": [],
        "--truth=DIR are required together": [out, f"--generated={places}/videos"],
        "cannot be combined with --checkpoint": [
            out,
            videos,
            f"--generated={places}/videos",
            f"--truth={places}/videos",
        ],
        "has the name of one in": [out, f"--generated={places}/videos", f"--truth={places}/other"],
        "--face_embedding=none.onnx not found": [
            out,
            f"--generated={places}/videos",
            f"--truth={places}/videos",
            "--face_embedding=none.onnx",
        ],
        "has SHA-256": [
            out,
            f"--generated={places}/videos",
            f"--truth={places}/videos",
            f"--lpips={places}/videos/a.mp4@{'0' * 64}",
        ],
        "--out=report.json is required": [checkpoint, videos],
        "does not exist; create it first": [checkpoint, videos, f"--out={places}/none/r.json"],
        "--data=SHARDS is required, or --videos": [checkpoint, out],
        "--holdout=N (the last": [checkpoint, out, videos],
        "is not a folder": [checkpoint, out, f"--videos={places}/none"],
        "holds no weights": [checkpoint, out, videos, "--holdout=1"],
        "cannot be read": [checkpoint, out, f"--data={places}"],
        "--data=SHARDS is required with --landmarks_only": [checkpoint, "--landmarks_only"],
        "unrecognized arguments: --no_such_flag=1; see evaluate.py --help": ["--no_such_flag=1"],
        "unrecognized arguments: stray": ["stray"],
        "--seconds: inf must be at least 1": ["--seconds=inf"],
        "--clips: 0 must be at least 1": ["--clips=0"],
    }


@pytest.mark.parametrize("number", range(len(refusals(""))))
def test_mistakes_are_told_in_one_line(number, places, commands):
    expected, arguments = list(refusals(places).items())[number]
    done = commands.run("evaluate.py", *arguments)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_the_landmark_network_is_evaluated_on_shards(tmp_path, commands):
    from data_pipelines import builder
    from talkjax.data import records
    from tests.data_pipelines.synthetic import make_record

    paths = []
    for number in range(2):
        frames = make_record(f"c{number}", ticks=40).frames
        clip = record(f"c{number}", number, 40)
        object.__setattr__(clip, "frames", frames)
        paths.append(str(tmp_path / f"{number}.npz"))
        records.save_npz(paths[-1], clip)
    shards = tmp_path / "shards"
    index = {"fingerprint": "", "crop_size": 32}
    made = builder.TalkjaxClips(data_dir=str(shards), clips={"test": paths}, index=index)
    made.download_and_prepare()
    checkpoint = fakes.save_checkpoint(tmp_path / "checkpoint")
    done = commands.run(
        "evaluate.py", "--landmarks_only", f"--checkpoint={checkpoint}", f"--data={shards}",
        f"--out={tmp_path}/r.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "opening_correlation" in done.stdout
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["metrics"]["l1"]["n"] == 2 and len(report["protocol"]["checkpoint"]) == 64


def test_missing_packages_are_named_in_one_line(places, monkeypatch, capsys):
    monkeypatch.setattr(packages, "is_installed", lambda name: name not in ("skimage", "scipy"))
    flags = [f"--generated={places}/videos", f"--truth={places}/videos", f"--out={places}/r.json"]
    assert run_main(command.main, flags) == 2
    error = capsys.readouterr().err
    assert "scipy, skimage cannot be imported" in error and "pip install 'talkjax[eval]'" in error
    assert error.count("\n") == 1


def test_given_videos_are_measured_without_a_model(tmp_path, repository):
    """The bundled avatar, and the same two frames late, through the real face finder."""
    from talkjax.media.video import VideoReader, probe
    from talkjax.media.video_writer import VideoWriter

    assets = repository / "talkjax" / "assets" / "demo"
    frames = [f.rgb for f in itertools.islice(VideoReader(assets / "template.mp4"), 40)]
    for name, late in (("real/a.mp4", 0), ("made/a.mkv", 2)):
        (tmp_path / name).parent.mkdir()
        with VideoWriter.like(
            tmp_path / name, probe(assets / "template.mp4"), audio=assets / "speech.flac"
        ) as writer:
            for number in range(len(frames)):
                writer.write(frames[max(0, number - late)], number / 25)
    done = subprocess.run(
        [sys.executable, "evaluate.py", f"--generated={tmp_path}/made", f"--truth={tmp_path}/real",
        f"--out={tmp_path}/r.json", "--rows=model,ground_truth,copy_mouth"],
        cwd=repository, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    rows = report["rows"]
    assert report["protocol"] == "1" and list(rows) == ["model", "ground_truth", "copy_mouth"]
    assert rows["model"]["opening_lag_ms"] == {"mean": 80.0, "ci95": None, "n": 1}
    assert rows["ground_truth"]["opening_lag_ms"]["mean"] == 0
    assert rows["ground_truth"]["psnr"]["mean"] > rows["model"]["psnr"]["mean"] + 3
    assert rows["copy_mouth"]["articulation"]["mean"] < 0.3
    assert rows["model"]["lse_c"]["n"] == 1
    assert report["settings"]["weights"]["sync_expert"]["name"] == "talkjax sync_demo"
    assert {"lpips", "fid", "csim", "closures", "silence", "wrong_audio"} <= set(report["missing"])
    assert (tmp_path / "r.csv").read_text().startswith("row,clip,opening_correlation,")
    assert (tmp_path / "r.md").read_text() in done.stdout
    assert [path.name for path in (tmp_path / "r.sheets").iterdir()] == ["best-a.mp4.png"]
