import collections
import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from talkjax.conventions import MEL_FLOOR
from talkjax.data import loader, records, stored_clips
from talkjax.diffusion import guidance
from talkjax.errors import UserError
from tests.data_pipelines.synthetic import make_record, write_shards

LANDMARK = loader.LoaderOptions(stage="landmark", batch_size=4, references=4, past=3, future=2)
JOINT = loader.LoaderOptions(stage="joint", batch_size=4, frames=3, references=4)
PLAIN = {
    "geometry_content": 0.0,
    "geometry_scale": 0.0,
    "geometry_rotation": 0.0,
    "geometry_shift": 0.0,
    "audio_masks": 0,
}


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key], strict=True, err_msg=key)


def tick_of(points):
    """The tick that a synthetic row of 57 or 131 landmarks was made for."""
    return points[..., -57, 0] * 1000


def test_landmark_batches(shards):
    batch = next(iter(loader.train_dataset(shards, LANDMARK, seed=0)))
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "mel": ((4, 25 + 3 + 2, 16, 80), "float32"),
        "pose": ((4, 25, 74, 2), "float32"),
        "content": ((4, 25, 57, 2), "float32"),
        "reference_landmarks": ((4, 4, 131, 2), "float32"),
        "reference_mel": ((4, 4, 16, 80), "float32"),
        "reference_heard": ((4, 4), "bool"),
    }


def test_joint_batches(shards):
    batch = next(iter(loader.train_dataset(shards, JOINT, seed=0)))
    del batch["mel"], batch["content"]
    assert {k: (v.shape, v.dtype.name) for k, v in batch.items()} == {
        "pose": ((4, 25, 74, 2), "float32"),
        "reference_landmarks": ((4, 4, 131, 2), "float32"),
        "reference_mel": ((4, 4, 16, 80), "float32"),
        "reference_heard": ((4, 4), "bool"),
        "target": ((4, 3, 20, 28, 3), "uint8"),
        "reference": ((4, 1, 20, 28, 3), "uint8"),
        "frame_landmarks": ((4, 3, 131, 2), "float32"),
        "image_reference_landmarks": ((4, 1, 131, 2), "float32"),
        "frame_tick": ((4, 3), "float32"),
        "keep_landmarks": ((4,), "bool"),
        "keep_reference": ((4,), "bool"),
    }


def test_autoencoder_batches(shards):
    options = loader.LoaderOptions(stage="autoencoder", batch_size=4)
    batch = next(iter(loader.train_dataset(shards, options, seed=0)))
    assert batch["target"].shape == (4, 20, 28, 3) and batch["target"].dtype == np.uint8
    assert batch["frame_landmarks"].shape == (4, 131, 2)


@pytest.mark.parametrize("stage", ["landmark", "joint", "autoencoder", "sync"])
@pytest.mark.parametrize("warp", [0.0, 0.1])
def test_arrays_may_go_through_shared_memory(shards, stage, warp):
    """Others fill up a pipe, and a worker process then takes half a minute to end."""
    options = loader.LoaderOptions(stage=stage, batch_size=4, audio_warp=warp)
    for batch in take(iter(loader.train_dataset(shards, options, seed=0)), 3):
        assert [key for key, array in batch.items() if not array.flags.c_contiguous] == []


def test_references_come_from_outside_and_frames_from_inside(shards):
    options = dataclasses.replace(JOINT, **PLAIN, reference_margin=3)
    for batch in take(iter(loader.train_dataset(shards, options, seed=1)), 15):
        first = tick_of(batch["content"])[:, :1]  # (B, 1)
        last = first + 24
        for ticks in (
            tick_of(batch["reference_landmarks"]),
            tick_of(batch["image_reference_landmarks"]),
        ):
            assert ((ticks < first - 2.99) | (ticks > last + 2.99)).all()
        frames = tick_of(batch["frame_landmarks"])
        np.testing.assert_allclose(frames - first, batch["frame_tick"], atol=1e-3)
        assert (batch["frame_tick"] >= 0).all() and (batch["frame_tick"] <= 24).all()
        assert (np.diff(batch["frame_tick"], axis=1) > 0).all()


def test_jitter_moves_all_points_of_a_sample_together(shards):
    plain, jittered = (
        next(iter(loader.train_dataset(shards, o, seed=3)))
        for o in (
            dataclasses.replace(LANDMARK, **PLAIN),
            dataclasses.replace(LANDMARK, audio_masks=0),
        )
    )
    assert not np.array_equal(plain["pose"], jittered["pose"])
    for b in range(4):
        keys = ("pose", "content", "reference_landmarks")
        x, y = (np.concatenate([d[k][b].reshape(-1, 2) for k in keys]) for d in (plain, jittered))
        design = np.concatenate([x, np.ones((len(x), 1))], 1)
        residual = np.linalg.lstsq(design, y, rcond=None)[1]
        assert (residual < 1e-6).all()


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_in_an_epoch_the_processes_see_every_slot_once(processes):
    count, rows = 20, 2  # three times two rows do not divide an epoch: batches span its end
    order = loader.slot_order(count, seed=0)
    shares = [loader.batches_of_process(order, rows, p, processes) for p in range(processes)]
    steps = 5 * count // processes // rows
    dealt = np.stack([[share[step] for share in shares] for step in range(steps)])
    epochs = dealt.reshape(-1)[: 3 * count].reshape(3, count)  # (step, process, row) in order
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    assert len({id(share) for share in shares}) == processes
    seen = [set(dealt[: count // processes // rows, p].reshape(-1)) for p in range(processes)]
    assert len(set().union(*seen)) == sum(map(len, seen))  # disjoint within the epoch


@pytest.mark.parametrize("options", [LANDMARK, JOINT], ids=["landmark", "joint"])
@pytest.mark.parametrize("processes", [2, 3])
def test_a_step_has_the_same_samples_for_any_number_of_processes(shards, options, processes):
    whole = dataclasses.replace(options, batch_size=6)
    part = dataclasses.replace(options, batch_size=6 // processes)
    alone = iter(loader.train_dataset(shards, whole, 5))
    together = [iter(loader.train_dataset(shards, part, 5, p, processes)) for p in range(processes)]
    for _ in range(8):  # over the end of an epoch: there are some thirty slots
        rows = [next(iterator) for iterator in together]
        joined = {name: np.concatenate([r[name] for r in rows]) for name in rows[0]}
        assert_equal(joined, next(alone))
    # A run may go on with another number of processes.
    states = [iterator.get_state() for iterator in (alone, *together)]
    assert all(state == states[0] for state in states)


@pytest.mark.parametrize("options", [LANDMARK, JOINT], ids=["landmark", "joint"])
def test_restored_iterator_goes_on_bit_identically(shards, options):
    straight = iter(loader.train_dataset(shards, options, seed=5))
    expected = take(straight, 12)
    first = iter(loader.train_dataset(shards, options, seed=5))
    take(first, 7)
    state = json.loads(json.dumps(first.get_state()))
    second = iter(loader.train_dataset(shards, options, seed=5))
    take(second, 2)
    second.set_state(state)
    for a, b in zip(take(second, 5), expected[7:], strict=True):
        assert_equal(a, b)


def quiet_record(name):
    """A record whose mel is silent, to tell it from others."""
    record = make_record(name)
    return dataclasses.replace(record, mel=np.full_like(record.mel, MEL_FLOOR))


def test_folders_are_mixed_by_their_weights(shards, tmp_path):
    quiet = write_shards(tmp_path, {"train": [quiet_record(f"q{i}") for i in range(3)]})
    folders = f"{shards}, {quiet}"
    options = dataclasses.replace(LANDMARK, **PLAIN, audio_noise=0.0, weights=(1.0, 3.0))
    batches = take(iter(loader.train_dataset(folders, options, seed=0)), 20)
    share = np.mean([(b["mel"][:, 10] <= MEL_FLOOR + 1e-3).all((1, 2)).mean() for b in batches])
    assert share == pytest.approx(0.75, abs=0.02)
    first = iter(loader.train_dataset(folders, options, seed=0))
    take(first, 3)
    second = iter(loader.train_dataset(folders, options, seed=0))
    second.set_state(json.loads(json.dumps(first.get_state())))
    assert_equal(next(second), batches[3])
    wrong = dataclasses.replace(options, weights=(1.0,))
    with pytest.raises(UserError, match=r"one positive number for each of the 2 folders"):
        loader.train_dataset(folders, wrong, seed=0)


def test_seeds_matter(shards):
    a, b = (next(iter(loader.train_dataset(shards, LANDMARK, seed=s))) for s in (0, 1))
    assert not np.array_equal(a["pose"], b["pose"])


def test_nothing_is_read_before_the_first_sample(shards, monkeypatch):
    """Not even for the plan of an evaluation: the index tells all."""

    def refuse(*unused):
        raise AssertionError("a record was read")

    monkeypatch.setattr(stored_clips.ShardReader, "_read", refuse)
    for options in (LANDMARK, JOINT, dataclasses.replace(JOINT, stage="autoencoder")):
        loader.train_dataset(shards, options, seed=0)
        loader.eval_dataset(shards, options)
    with pytest.raises(AssertionError, match="a record was read"):
        next(iter(loader.train_dataset(shards, LANDMARK, seed=0)))


@pytest.mark.slow
def test_worker_processes_give_the_same_batches(shards):
    code = f"""
import numpy as np
from absl import app
from talkjax.data import loader
def main(_):
    sums = []
    for workers in (0, 2):
        options = loader.LoaderOptions(batch_size=4, num_workers=workers)
        iterator = iter(loader.train_dataset({str(shards)!r}, options, seed=0))
        sums.append([float(next(iterator)["mel"].sum()) for _ in range(5)])
        if workers:
            iterator.close()
    assert sums[0] == sums[1], sums
    print("same")
if __name__ == "__main__":
    app.run(main)
"""
    script = shards.parent / "workers_script.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300,
                          env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"})  # fmt: skip
    assert "same" in done.stdout, done.stderr


@pytest.mark.slow
def test_worker_processes_end_with_a_killed_run(shards):
    code = f"""
import os, pathlib, signal
from absl import app
from talkjax.data import loader
def main(_):
    options = loader.LoaderOptions(batch_size=4, num_workers=2)
    iterator = iter(loader.train_dataset({str(shards)!r}, options, seed=0))
    for _ in range(3):
        next(iterator)
    for thread in pathlib.Path("/proc/self/task").iterdir():
        print((thread / "children").read_text(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    app.run(main)
"""
    script = shards.parent / "killed_script.py"
    script.write_text(code)
    with open(shards.parent / "killed.txt", "w+") as out:  # a pipe would stay open with the workers
        done = subprocess.run([sys.executable, script], stdout=out, timeout=300,
                              env={"PYTHONPATH": ".", "PATH": "/usr/bin:/bin"})  # fmt: skip
        out.seek(0)
        workers = [int(pid) for pid in out.read().split()]
    assert done.returncode == -signal.SIGKILL and len(workers) >= 2
    end = time.monotonic() + 30
    while left := [pid for pid in workers if running(pid)]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def running(pid):
    """Whether there is such a process, other than one that nobody has collected."""
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_evaluation_covers_clips_once_and_pads(shards):
    batches = list(loader.eval_dataset(shards, LANDMARK))
    assert all(len(b["start"]) == 4 for b in batches)
    seen = {}
    for batch in batches:
        for clip, start, weight in zip(batch["clip"], batch["start"], batch["weight"], strict=True):
            if weight:
                assert (clip, start) not in seen
                seen[int(clip), int(start)] = True
    lengths = stored_clips.ShardReader(shards, "test").ticks
    for clip, ticks in enumerate(lengths):
        covered = {t for c, s in seen if c == clip for t in range(s, s + 25)}
        assert covered == set(range(ticks))
    assert_equal(batches[0], next(iter(loader.eval_dataset(shards, LANDMARK))))


def test_the_first_evaluation_batches_are_a_sample_of_all_clips(tmp_path):
    clips = [make_record(f"c{i}", ticks=130) for i in range(8)]
    data = write_shards(tmp_path, {"test": clips})
    batches = list(loader.eval_dataset(data, LANDMARK))
    assert len(batches) == 12  # 8 clips of 6 windows
    first = np.concatenate([batch["clip"] for batch in batches[:3]])
    assert len(set(first)) >= 5  # in the order of names there would be two
    code = (
        "from talkjax.data import loader\n"
        "options = loader.LoaderOptions(stage='landmark', batch_size=4)\n"
        f"for batch in loader.eval_dataset({str(data)!r}, options):\n"
        "    print(*batch['clip'], *batch['start'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=120, capture_output=True, text=True
    )
    here = [[*batch["clip"], *batch["start"]] for batch in batches]
    assert [[int(n) for n in line.split()] for line in done.stdout.splitlines()] == here


def test_conditions_are_dropped_as_guidance_evaluates_them(shards):
    """Independent draws gave guidance's unconditional branch 1% of the samples."""
    options = dataclasses.replace(JOINT, batch_size=64, drop_all=0.15, drop_reference=0.1)
    counts = collections.Counter()
    for batch in take(iter(loader.train_dataset(shards, options, seed=0)), 40):
        kept = zip(batch["keep_landmarks"], batch["keep_reference"], strict=True)
        counts.update((bool(landmarks), bool(reference)) for landmarks, reference in kept)
    total = counts.total()
    assert counts.keys() == {keep[:2] for keep in guidance.passes(2.0, 3.0)}
    assert abs(counts[False, False] / total - 0.15) < 0.025
    assert abs(counts[True, False] / total - 0.1) < 0.025
    for batch in loader.eval_dataset(shards, options):
        assert batch["keep_landmarks"].all() and batch["keep_reference"].all()


def test_evaluation_is_divided_between_processes(shards):
    whole = dataclasses.replace(JOINT, batch_size=8)
    parts = [loader.eval_dataset(shards, JOINT, "test", p, 2) for p in range(2)]
    batches = list(loader.eval_dataset(shards, whole, "test"))
    for batch, *rows in zip(batches, *parts, strict=True):
        assert_equal({name: np.concatenate([r[name] for r in rows]) for name in rows[0]}, batch)


def test_nan_in_a_record_names_the_clip(tmp_path, monkeypatch):
    record = make_record("poisoned")
    record.landmarks[3, 90, 0] = np.nan
    monkeypatch.setattr(records, "check_record", lambda r: r)
    data = write_shards(tmp_path, {"train": [record]})
    monkeypatch.undo()
    with pytest.raises(UserError, match="clip 'poisoned': landmarks holds NaN or Inf"):
        next(iter(loader.train_dataset(data, LANDMARK, seed=0)))


def test_clips_without_usable_frames_are_passed_over(tmp_path):
    blind, glimpse = make_record("blind"), make_record("glimpse")
    blind.face_found[:] = False
    glimpse.face_found[:] = False
    glimpse.face_found[30] = True  # and none is left for the reference
    train = [blind, glimpse, make_record("seeing")]
    data = write_shards(tmp_path, {"train": train, "validation": [glimpse], "test": [blind]})
    options = dataclasses.replace(JOINT, batch_size=8)
    batch = next(iter(loader.train_dataset(data, options, seed=0)))
    assert batch["target"].shape[0] == 8
    with pytest.raises(UserError, match="no window with usable image frames"):
        loader.eval_dataset(data, options, "validation")
    with pytest.raises(UserError, match="no clip with usable image frames"):
        loader.eval_dataset(data, options)
    assert len(next(iter(loader.eval_dataset(data, LANDMARK)))["pose"]) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": "nonsense"}, "no stage 'nonsense'"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"drop_all": 0.7, "drop_reference": 0.4}, "sum is at most 1"),
        ({"window": 500}, "longer than the window of 500 ticks"),
    ],
)
def test_wrong_options_are_user_errors(shards, change, message):
    with pytest.raises(UserError, match=message):
        loader.train_dataset(shards, dataclasses.replace(LANDMARK, **change), seed=0)


def test_training_imports_stay_light(shards):
    code = (
        "import sys\nfrom talkjax.data import loader\n"
        "options = loader.LoaderOptions(batch_size=2)\n"
        f"next(iter(loader.train_dataset({str(shards)!r}, options, 0)))\n"
        "heavy = {'tensorflow_datasets', 'tensorflow', 'cv2', 'av', 'librosa'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_measured_pose_never_reaches_a_batch(tmp_path):
    """It betrays the mouth (`talkjax.head_pose`); batches hold the steady pose."""
    original = make_record("clip", ticks=90)
    steady = records.with_normalized_pose(original)
    batch = next(iter(loader.eval_dataset(write_shards(tmp_path, {"test": [original]}), LANDMARK)))
    for pose, start in zip(batch["pose"], batch["start"], strict=True):
        window = slice(int(start), int(start) + 25)
        np.testing.assert_array_equal(pose, steady.landmarks[window, :74])
        assert np.abs(pose - original.landmarks[window, :74]).max() > 1e-3
