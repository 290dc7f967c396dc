"""The study gives nothing away, is balanced, and is the same for the same seed."""

import collections
import json
import random
import re
import subprocess
import sys

import av
import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.user_study import study
from tests.media_files import Sound, make_media, pictures, tone
from tests.user_study import clips

QUESTIONS = ("sync", "identity")
NAMES = ("Zweig", "WavLipper")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("systems")
    clips.make_systems(root)
    clips.make_truth(root / "persons")
    return root


def make(folder, out, seed=0, checks=2, truth=True):
    a, b = (str(folder / system) for system in clips.SYSTEMS)
    pairs, _ = study.find_pairs(a, b, str(folder / "persons") if truth else None, None)
    return study.write_study(
        pairs, out, NAMES, QUESTIONS, checks, seed, "Which </script> is better?"
    )


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, make(folder, out)


def on_page(out):
    text = (out / "study" / "index.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="study">(.*?)</script>', text, re.DOTALL)[1])


def test_nothing_tells_whose_a_file_is(folder, made):
    out, key = made
    words = [*clips.SYSTEMS, *NAMES, "anna", "clip_one", "clip_two", "/ben", "by ben", "persons"]
    words += [str(folder), "x264 - core", "libx264", '"check"', '"clip"', '"seed"']
    files = list((out / "study").iterdir())
    assert len(files) == 1 + 2 * 3 + 3
    for path in files:
        assert re.fullmatch(r"index\.html|[0-9a-f]{16}\.(mp4|png)", path.name)
        data = path.read_bytes().lower()
        assert not [word for word in words if word.lower().encode() in data], path
        assert path.name == "index.html" or path.stat().st_mtime == 946684800
    telling = (folder / clips.SYSTEMS[0] / "ben.mp4").read_bytes()
    assert b"by ours-v7 ben" in telling and b"x264 - core" in telling  # so the test can fail
    told = on_page(out)
    assert set(told) == {"version", "title", "questions", "trials"}
    assert {k for trial in told["trials"] for k in trial} == {
        "id", "question", "left", "right", "truth",
    }  # fmt: skip
    ids = [trial["id"] for trial in told["trials"]]
    assert ids == sorted(ids) == list(key["trials"])
    assert sorted(p.name for p in out.iterdir()) == ["key.json", "study"]
    assert json.loads((out / "key.json").read_text()) == key


def test_the_key_maps_every_file(folder, made):
    """Found again by colour: system and clip of both sides of every trial."""
    out, key = made
    for trial in on_page(out)["trials"]:
        known = key["trials"][trial["id"]]
        assert known["question"] == trial["question"]
        assert known["check"] == (trial["left"] == trial["right"])
        assert ("truth" in trial) == (trial["question"] == "identity")
        for side in ("left", "right"):
            with av.open(str(out / "study" / trial[side])) as video:
                blue = next(video.decode(video=0)).to_ndarray(format="rgb24")[..., 2].mean()
            hue = 60 if known[side] == "a" else 200
            assert abs(blue - hue - clips.CLIPS.index(known["clip"])) < 8


def test_copies_are_the_videos_themselves(folder, made):
    out, key = made
    trial = next(t for t in on_page(out)["trials"] if not key["trials"][t["id"]]["check"])
    known = key["trials"][trial["id"]]
    system = clips.SYSTEMS["ab".index(known["left"])]
    frames = []
    for path in (folder / system / f"{known['clip']}.mp4", out / "study" / trial["left"]):
        with av.open(str(path)) as video:
            frames.append([f.to_ndarray(format="rgb24") for f in video.decode(video=0)])
        with av.open(str(path)) as video:
            frames.append([f.to_ndarray() for f in video.decode(audio=0)])
            assert path.parent.name != "study" or not video.metadata.keys() & {"title", "comment"}
    np.testing.assert_array_equal(frames[0], frames[2])
    assert len(frames[1]) == len(frames[3]) > 0
    assert all((x == y).all() for x, y in zip(frames[1], frames[3], strict=True))


@pytest.mark.parametrize("pairs", [1, 2, 7, 20])
def test_sides_are_balanced_and_random(pairs):
    drawn = [study.draw_trials(pairs, QUESTIONS, 5, random.Random(seed)) for seed in range(40)]
    for trials in drawn:
        assert len(trials) == 2 * pairs + 5 == len({trial.id for trial in trials})
        assert sum(trial.check for trial in trials) == 5
        for question in QUESTIONS:
            own = [t for t in trials if t.question == question and not t.check]
            assert sorted(t.pair for t in own) == list(range(pairs))
            left = sum(t.left == "a" for t in own)
            assert abs(2 * left - pairs) <= 1
    often = collections.Counter(
        (t.question, t.pair) for trials in drawn for t in trials if t.left == "a" and not t.check
    )
    assert len(often) == 2 * pairs and max(often.values()) < 36 and min(often.values()) > 4


def test_one_seed_one_study(folder, made, tmp_path):
    out, key = made
    again = make(folder, tmp_path / "again")
    assert again == key
    for path in (out / "study").iterdir():
        assert (tmp_path / "again" / "study" / path.name).read_bytes() == path.read_bytes()
    other = make(folder, tmp_path / "other", seed=1)
    assert other["study"] != key["study"] and not other["trials"].keys() & key["trials"].keys()


def test_the_draw_needs_the_videos(folder, tmp_path):
    """Who has the page and the seed, but not the videos, cannot redo it."""
    pair = study.Pair("x", *(folder / system / "ben.mp4" for system in clips.SYSTEMS))
    other = study.Pair("x", pair.b, pair.a)
    assert study.make_random([pair], 0, []).random() != study.make_random([other], 0, []).random()


def test_the_page_needs_no_network(made):
    out, _ = made
    text = (out / "study" / "index.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|@import", text)
    assert "<title>Which &lt;/script&gt; is better?</title>" in text
    assert text.count("</script>") == 2


def test_pairs_are_found_by_name(folder, tmp_path):
    a, b = (str(folder / system) for system in clips.SYSTEMS)
    pairs, alone = study.find_pairs(a, b, None, 2)
    assert [pair.clip for pair in pairs] == ["anna/clip_one", "ben"] and alone == 0
    some = tmp_path / "some"
    some.mkdir()
    (some / "ben.mkv").write_bytes(b"x")
    pairs, alone = study.find_pairs(a, str(some), None, None)
    assert [pair.clip for pair in pairs] == ["ben"] and alone == 2
    (some / "ben.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match="have the same name"):
        study.find_pairs(a, str(some), None, None)
    with pytest.raises(UserError, match="no file for 'anna/clip_one'"):
        study.find_pairs(a, b, str(_one(tmp_path, "ben")), None)
    with pytest.raises(UserError, match=r"--b=.* is not a folder"):
        study.find_pairs(a, str(tmp_path / "none"), None, None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--a=.* holds none of"):
        study.find_pairs(str(tmp_path / "empty"), b, None, None)
    with pytest.raises(UserError, match="give both the same names"):
        study.find_pairs(a, str(_one(tmp_path, "zoe")), None, None)


def _one(root, name):
    path = root / f"only_{name}" / f"{name}.mp4"
    path.parent.mkdir()
    path.write_bytes(b"x")
    return path.parent


def _raw(path, **options):
    sound = Sound(tone(0.6, 16000), 16000)
    return make_media(path, pictures(15, 64, 64), **({"sound": sound} | options))


UNFIT = {
    "has no sound": lambda path: _raw(path, sound=None),
    "not every browser plays mpeg4": lambda path: _raw(path, codec="mpeg4"),
    "not every browser plays h264 with yuv444p": lambda path: _raw(path, pix_fmt="yuv444p"),
    "not a readable media file": lambda path: path.write_text("no video"),
    "lasts .* in one folder and .* in the other": lambda path: clips.make_clip(path, 9, 1.6),
}


@pytest.mark.parametrize("message", UNFIT)
def test_videos_that_do_not_suit(folder, tmp_path, message):
    bad = tmp_path / "b" / "ben.mp4"
    bad.parent.mkdir()
    UNFIT[message](bad)
    pairs, _ = study.find_pairs(str(folder / clips.SYSTEMS[0]), str(bad.parent), None, None)
    with pytest.raises(UserError, match=message):
        study.write_study(pairs, tmp_path / "out", NAMES, QUESTIONS, 0, 0, "t")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_study_is_not_overwritten(folder, made):
    with pytest.raises(UserError, match="already exists"):
        make(folder, made[0])


def test_videos_of_the_real_person(folder, tmp_path):
    """They are copied without their sound."""
    a, b = (str(folder / system) for system in clips.SYSTEMS)
    pairs, _ = study.find_pairs(a, b, a, 1)
    study.write_study(pairs, tmp_path, NAMES, ["identity"], 0, 0, "t")
    (trial,) = on_page(tmp_path)["trials"]
    with av.open(str(tmp_path / "study" / trial["truth"])) as video:
        assert not video.streams.audio and video.streams.video


def run(repository, *arguments):
    command = [sys.executable, "-m", "talkjax.user_study", *map(str, arguments)]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=300)


def test_the_command(repository, folder, tmp_path):
    a, b = (folder / system for system in clips.SYSTEMS)
    out = tmp_path / "o"
    flags = [f"--a={a}", f"--b={b}", f"--out={out}", "--names=Zweig,WavLipper", "--questions=sync"]
    done = run(repository, *flags)
    assert done.returncode == 0, done.stderr
    assert "3 pairs, 3 trials" in done.stdout
    key = json.loads((out / "key.json").read_text())
    rows = [
        f"ann,{name},sync,{'left' if trial['left'] == 'a' else 'right'},0,2,{key['study']}"
        for name, trial in key["trials"].items()
    ]
    table = tmp_path / "ann.csv"
    table.write_text("\n".join(["rater,trial,question,choice,replays,seconds,page", *rows]))
    result = tmp_path / "rates.json"
    done = run(repository, f"--key={out / 'key.json'}", f"--out={result}", table)
    assert done.returncode == 0, done.stderr
    assert "| sync | 100.0% |" in done.stdout and "3 / 0 / 0" in done.stdout
    assert json.loads(result.read_text())["questions"]["sync"]["a"] == 3
