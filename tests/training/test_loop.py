import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import grain
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax import runs
from talkjax.errors import UserError
from talkjax.training import loop, metrics
from talkjax.training.checkpoints import load_sources
from talkjax.training.stage import Stage
from tests.training import toy

TOY = Path(toy.__file__)


def rows_of(workdir):
    return metrics.read(Path(workdir) / "metrics.jsonl")


def losses_of(workdir):
    return [
        (row["step"], row["loss"], row["grad_norm"]) for row in rows_of(workdir) if "loss" in row
    ]


def start(workdir, *changes, **environment):
    return subprocess.Popen(
        [sys.executable, str(TOY), str(workdir), *changes],
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(workdir, *changes, **environment):
    process = start(workdir, *changes, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err


def train(
    workdir, make_data=None, stage=None, should_stop=lambda _: False, profile=None, **changes
):
    c = toy.config(**changes)
    data = make_data or toy.make_data(c)
    stage = stage or toy.stage()
    return loop.train(c, workdir, stage, data, should_stop=should_stop, profile=profile)


def poisoned(steps):
    """The toy's data; the batches of these steps hold an infinity."""
    c = toy.config()
    iterator = iter(toy.make_data(c)("train"))
    batches = [next(iterator)["x"].tobytes() for _ in range(max(steps))]
    chosen = {batches[step - 1] for step in steps}

    def poison(batch):
        bad = batch["x"].tobytes() in chosen
        return {**batch, "y": batch["y"] * np.float32(np.inf if bad else 1)}

    def make(split):
        return toy.make_data(c)(split).map(poison)

    return make


def test_a_whole_run_leaves_its_record(tmp_path, capsys):
    assert train(tmp_path) is False
    rows = rows_of(tmp_path)
    steps = [row for row in rows if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, 13))
    wanted = {
        "loss",
        "absolute",
        "grad_norm",
        "learning_rate",
        "skipped",
        "step_s",
        "samples_per_s",
    }
    assert all(wanted <= row.keys() for row in steps)
    assert {"flops", "compile_s", "temporary_bytes"} <= steps[0].keys()
    assert [row["step"] for row in rows if "eval_loss" in row] == [6, 12]
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        "00000006.png", "00000012.png",
    ]  # fmt: skip
    picture = cv2.imread(str(tmp_path / "samples" / "00000012.png"))
    assert picture.shape == (3 * 6 - 2, 2 * (toy.OUTPUTS + 2) - 2, 3)  # three rows, two columns
    assert "12" in os.listdir(tmp_path / "checkpoints")
    out = capsys.readouterr().out
    assert "136 of 200 parameters" in out
    assert "compiled in" in out

    # Once more: there is nothing left to do.
    assert train(tmp_path) is False
    assert rows_of(tmp_path) == rows
    assert "nothing to do" in capsys.readouterr().out


def test_a_killed_run_goes_on_to_the_same_losses(tmp_path, capsys):
    train(tmp_path / "whole")
    code, output = run(tmp_path / "killed", "kill_at=7", DEVICES="8")
    assert code == -signal.SIGKILL, output
    assert losses_of(tmp_path / "killed")[-1][0] == 7
    train(tmp_path / "killed")
    assert "resumed" in capsys.readouterr().out
    assert losses_of(tmp_path / "killed") == losses_of(tmp_path / "whole")  # to the last bit
    evaluations = [
        [
            {k: row[k] for k in ("step", "eval_loss")}
            for row in rows_of(tmp_path / name)
            if "eval_loss" in row
        ]
        for name in ("whole", "killed")
    ]
    assert evaluations[0] == evaluations[1]


def test_sigterm_saves_the_step_it_is_at(tmp_path):
    process = start(tmp_path / "run", "slow=0.3", "steps=1000", 'optimizer.schedule="constant"')
    for line in process.stdout:
        if line.startswith("step 3/"):
            break
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, out + err
    last = losses_of(tmp_path / "run")[-1][0]
    saved = [int(p.name) for p in (tmp_path / "run/checkpoints").iterdir()]
    assert max(saved) == last < 1000
    assert "stopped by SIGTERM" in out


def test_a_run_ends_when_it_is_told_to(tmp_path, capsys):
    calls = []

    def after_one_evaluation(losses):
        calls.append(dict(losses))
        return len(losses) == 1

    assert train(tmp_path, should_stop=after_one_evaluation) is False
    rows = rows_of(tmp_path)
    # The step after the evaluation is the last, and is saved and evaluated as any last step.
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 8))
    assert [row["step"] for row in rows if "eval_loss" in row] == [6, 7]
    assert {"6", "7"} <= set(os.listdir(tmp_path / "checkpoints"))
    assert calls[-1].keys() == {6}

    assert train(tmp_path, should_stop=lambda losses: len(losses) == 2) is False
    assert rows_of(tmp_path) == rows and "nothing to do" in capsys.readouterr().out
    assert runs.load_run(tmp_path, 6)[2] == 6 and runs.load_run(tmp_path)[2] == 7

    train(tmp_path)  # and on, to the end
    assert [row["step"] for row in rows_of(tmp_path) if "loss" in row] == list(range(1, 13))


def test_a_resumption_on_another_mesh_agrees(tmp_path):
    train(tmp_path / "a")
    once = {"optimizer.schedule": "constant"}
    train(tmp_path / "a2", **once)
    train(tmp_path / "b", steps=8, **once)
    train(tmp_path / "b", **once, **{"mesh.fsdp": 4})
    a, b = (np.array([row[1] for row in losses_of(tmp_path / n)]) for n in ("a2", "b"))
    np.testing.assert_array_equal(a[:8], b[:8])
    np.testing.assert_allclose(a[8:], b[8:], rtol=1e-5)


def test_another_config_does_not_go_on(tmp_path):
    train(tmp_path, steps=4)
    with pytest.raises(UserError, match="seed was 0, is 1"):
        train(tmp_path, steps=4, seed=1)


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 9.0}\n{"step": 2, "lo')
    train(tmp_path, steps=4)
    assert [row[0] for row in losses_of(tmp_path)] == [1, 2, 3, 4]
    assert losses_of(tmp_path)[0][1] != 9.0


def test_it_gives_up_after_too_many_bad_steps(tmp_path):
    def loss_fn(params, batch, key):
        loss, numbers = toy.loss_fn(params, batch, key)
        return loss * float("nan"), numbers

    broken = Stage(toy.init, loss_fn, None, ("denoiser",))
    with pytest.raises(UserError, match="the last 4 steps before step 4"):
        train(tmp_path, stage=broken, max_skipped_in_a_row=3)
    rows = rows_of(tmp_path)
    assert [row["skipped"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["loss"] is None  # JSON knows no NaN


def test_it_gives_up_soon_whatever_is_logged_and_keeps_older_checkpoints(tmp_path):
    """Steps fail from the sixth on; nothing is logged, checkpoints are due every second step."""
    make_data = poisoned(range(6, 40))
    rare = {"log.every": 1000, "checkpoint.every": 2, "eval.every": 0, "steps": 40}
    with pytest.raises(UserError, match="the last 11 steps before step 16"):
        train(tmp_path, make_data, max_skipped_in_a_row=10, **rare)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", "4"]


def test_skipped_steps_are_counted_and_resumed_to_the_last_bit(tmp_path):
    """A run that ends amid steps that fail goes on like one that did not end there."""
    make_data = poisoned((3, 7, 8, 9))
    endless = {"optimizer.schedule": "constant", "eval.every": 0}
    train(tmp_path / "whole", make_data, **endless)
    train(tmp_path / "parts", make_data, steps=8, **endless)
    assert "8" in os.listdir(tmp_path / "parts" / "checkpoints")
    train(tmp_path / "parts", make_data, **endless)
    names = ("step", "loss", "grad_norm", "learning_rate", "skipped", "skipped_in_a_row")
    whole, parts = (
        [[row[name] for name in names] for row in rows_of(tmp_path / run)]
        for run in ("whole", "parts")
    )
    assert whole == parts
    assert [row[-1] for row in whole] == [0, 0, 1, 0, 0, 0, 1, 2, 3, 0, 0, 0]
    with pytest.raises(UserError, match="the last 3 steps before step 9"):
        train(tmp_path / "limit", make_data, steps=8, max_skipped_in_a_row=2, **endless)
        train(tmp_path / "limit", make_data, max_skipped_in_a_row=2, **endless)


def test_a_damaged_checkpoint_costs_steps_and_nothing_else(tmp_path, capsys):
    train(tmp_path / "whole")
    train(tmp_path / "damaged")
    (tmp_path / "damaged/checkpoints/12/state/_METADATA").write_text("{")
    train(tmp_path / "damaged")
    captured = capsys.readouterr()
    assert "checkpoints/12 cannot be restored" in captured.err
    assert "kept as 12.damaged, going on from step 8" in captured.err
    assert "at step 8" in captured.out
    assert losses_of(tmp_path / "damaged") == losses_of(tmp_path / "whole")
    assert {"8", "12", "12.damaged"} <= {*os.listdir(tmp_path / "damaged/checkpoints")}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(command).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_run_goes_on_after_the_disk_was_full(small_disk, tmp_path_factory, monkeypatch):
    """It becomes full after the first save; the second cannot be finished."""
    whole = tmp_path_factory.mktemp("whole")
    train(whole)
    ballast, workdir = small_disk / "ballast", small_disk / "run"
    write = metrics.Writer.write

    def filling(self, row):
        write(self, row)
        if row["step"] == 6 and not ballast.exists():
            while not (workdir / "checkpoints" / "4").is_dir():
                time.sleep(0.01)
            left = os.statvfs(small_disk)
            # Room for some lines and some small files, not for all of a checkpoint's.
            ballast.write_bytes(bytes(left.f_bavail * left.f_frsize - 4 * left.f_frsize))

    monkeypatch.setattr(metrics.Writer, "write", filling)
    with pytest.raises(UserError, match="no space left in"):
        train(workdir)
    steps = [p.name for p in (workdir / "checkpoints").iterdir() if p.name.isdigit()]
    assert steps == ["4"]
    ballast.unlink()
    monkeypatch.undo()
    train(workdir)
    assert losses_of(workdir) == losses_of(whole)
    assert {*os.listdir(workdir / "checkpoints")} == {*os.listdir(whole / "checkpoints")}


def test_a_full_disk_is_explained_wherever_it_shows(tmp_path, monkeypatch):
    def full(self, row):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(metrics.Writer, "write", full)
    with pytest.raises(UserError, match="no space left in"):
        train(tmp_path)


def test_data_that_ends_is_an_error(tmp_path):
    c = toy.config()

    def make(split):
        data = toy.make_data(c)("validation")
        return data

    with pytest.raises(UserError, match="ended at step 4"):
        train(tmp_path, make_data=make)


def test_a_batch_that_does_not_split_is_refused(tmp_path):
    with pytest.raises(UserError, match="multiple of 8"):
        train(tmp_path, batch_size=12)


def test_without_pictures_or_evaluation(tmp_path):
    train(tmp_path / "a", stage=Stage(toy.init, toy.loss_fn, None, ("denoiser",)))
    train(tmp_path / "b", **{"eval.every": 0})
    for name in "ab":
        assert not (tmp_path / name / "samples").exists()
    assert not any("eval_loss" in row for row in rows_of(tmp_path / "b"))


def test_a_warm_start_begins_where_the_other_run_ended(tmp_path):
    train(tmp_path / "first", **{"optimizer.schedule": "constant"}, steps=12)
    c = toy.config(**{"optimizer.learning_rate": 1e-9})
    loop.train(c, tmp_path / "fresh", toy.stage(), toy.make_data(c))
    sources = {"diffusion": str(tmp_path / "first")}
    loop.train(c, tmp_path / "warm", toy.stage(), toy.make_data(c), lambda: load_sources(sources))
    fresh, warm = (
        [row["eval_loss"] for row in rows_of(tmp_path / n) if "eval_loss" in row][-1]
        for n in ("fresh", "warm")
    )
    assert warm < 0.8 * fresh


def test_a_checkpoint_is_saved_before_it_is_evaluated(tmp_path):
    """An evaluation that fails costs no steps; the next attempt catches up on it."""
    c = toy.config()
    make_data = toy.make_data(c)

    def failing(split):
        if split == "validation":
            raise RuntimeError("no held-out data today")
        return make_data(split)

    with pytest.raises(RuntimeError, match="today"):
        loop.train(c, tmp_path / "run", toy.stage(), failing)
    assert sorted(os.listdir(tmp_path / "run/checkpoints")) == ["4", "6"]  # 6 is due for evaluation
    train(tmp_path / "run")
    train(tmp_path / "whole")
    evaluations = [
        [(row["step"], row["eval_loss"]) for row in rows_of(tmp_path / name) if "eval_loss" in row]
        for name in ("run", "whole")
    ]
    assert evaluations[0] == evaluations[1] and len(evaluations[0]) == 2


def test_held_out_means_count_every_sample_once(tmp_path):
    """What only fills the last batch has weight 0."""
    c = toy.config(**{"eval.batches": 100})

    def make_data(split):
        if split == "train":
            return toy.make_data(c)(split)
        rows = [toy.sample(i, np.random.default_rng(i)) for i in range(24)]
        rows = [row | {"weight": np.float32(1)} for row in rows]
        rows += [row | {"weight": np.float32(0), "y": row["y"] + 100} for row in rows[:8]]
        return grain.MapDataset.source(rows).batch(c.batch_size).to_iter_dataset()

    def loss_fn(params, batch, key):
        values = jnp.square(batch["y"]).mean(1)
        weight = batch.get("weight", jnp.ones(len(values)))
        return (values * weight).sum() / weight.sum() + 0 * params["denoiser"]["bias"].sum(), {}

    loop.train(c, tmp_path, Stage(toy.init, loss_fn, None, ("denoiser",)), make_data)
    found = [row["eval_loss"] for row in rows_of(tmp_path) if "eval_loss" in row]
    rows = [toy.sample(i, np.random.default_rng(i))["y"] for i in range(24)]
    assert found[-1] == pytest.approx(np.square(rows).mean(), rel=1e-5)


def test_iterators_are_closed_when_a_run_fails(tmp_path):
    c = toy.config(max_skipped_in_a_row=0)
    closed = []

    class Data:
        def __init__(self, dataset, split):
            self.dataset, self.split = dataset, split

        def __iter__(self):
            iterator = iter(self.dataset)
            close = iterator.close
            iterator.close = lambda: (closed.append(self.split), close())
            return iterator

    def nan(params, batch, key):
        loss, numbers = toy.loss_fn(params, batch, key)
        return loss * jnp.nan, numbers

    with pytest.raises(UserError, match="not finite"):
        loop.train(
            c, tmp_path, Stage(toy.init, nan, None, ("denoiser",)),
            lambda split: Data(toy.make_data(c)(split), split),
        )  # fmt: skip
    assert closed == ["train"]
