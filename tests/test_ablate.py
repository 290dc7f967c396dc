"""The ablation command: what it runs, its table, what it refuses. The runs are stand-ins."""

import csv
import json
import types
from pathlib import Path

import numpy as np
import pytest

from talkjax import ablate, configuration
from talkjax.errors import UserError
from talkjax.metrics import ablation_table, probe, statistics

CORRELATION = {"full": 0.9, "no_end_to_end": 0.9, "no_motion_align": 0.5}


def study(out, **changes):
    given = {
        "config": "configs/demo_128.py", "out": out, "data": "shards", "latents": "latents",
        "autoencoder": "ae", "landmark": "lm", "overrides": ("--config.seed=3",),
        "weights": ("--lpips=l.safetensors",),
    }  # fmt: skip
    return ablate.Study(**given | changes)


@pytest.fixture
def runs(monkeypatch):
    """Records what would be run; an evaluation leaves a report."""
    calls = []

    def run_command(title, *arguments):
        calls.append((title, arguments))
        if "talkjax.metrics.command" in arguments:
            arguments = arguments[len(ablate.EVALUATE) :]
            flags = dict(a.removeprefix("--").split("=", 1) for a in arguments)
            write_report(Path(flags["out"]), title.split(":")[0], title)

    def probe_row(study, export, to):
        blocks = {"up": {"error": 0.01, "identity": 0.04, "kernel": 0.005}}
        warp = {} if "no_reference" in str(to) else blocks
        x0 = {"all": 0.2, "no landmarks": 0.3}
        found = {"x0_l1": x0, "warp": {"own": warp, "other": warp}}
        if "no_end_to_end" not in str(to):
            part = {"norm": 0.4, "norm_of_mean": 0.1, "cosine_of_halves": -0.05}
            found["gradient"] = {"pictures": part, "landmark": part}
        to.write_text(json.dumps(found))

    monkeypatch.setattr(ablate, "run_command", run_command)
    monkeypatch.setattr(ablate, "export_run", lambda out, run: None)
    monkeypatch.setattr(ablate, "probe_row", probe_row)
    return calls


def write_report(path, row, title):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = CORRELATION[row] + 0.05 * np.random.default_rng(0).normal(size=8)
    values += 0.1 * int(title[-1])  # of the seed
    if row == "no_end_to_end":
        values += 0.001 * np.array([1, -1, 1, -1, 1, -1, 1, -1])
    entry = statistics.bootstrap_mean(values)
    path.write_text(json.dumps({"rows": {"model": {"opening_correlation": entry}}}))
    with open(path.with_suffix(".csv"), "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "clip", "opening_correlation", "psnr"])
        writer.writerows(["model", f"c{i}", v, ""] for i, v in enumerate(values))


@pytest.fixture
def made(runs, tmp_path):
    for row in CORRELATION:
        (tmp_path / row).mkdir()
    return ablate.ablate(study(tmp_path), list(CORRELATION)), runs, tmp_path


def test_rows_get_the_same_and_differ_in_their_ablation_alone(made):
    _, calls, out = made
    flags = {
        title: {a for a in arguments if "workdir" not in a and "init_from.diffusion" not in a}
        for title, arguments in calls
        if arguments[: len(ablate.TRAIN)] == ablate.TRAIN
    }
    first, second = flags["full: diffusion"], flags["full: joint, seed 0"]
    assert "--config.seed=3" in first & second
    off = "--config.denoiser.talkformer.motion_align=False"
    assert flags["no_motion_align: diffusion"] - first == {off}
    assert flags["no_motion_align: joint, seed 0"] - second == {off}
    assert flags["no_end_to_end: diffusion"] == first
    assert flags["no_end_to_end: joint, seed 0"] - second == {"--config.joint.end_to_end=False"}
    by_title = dict(calls)
    # The stage that they share is trained once.
    assert f"--workdir={out}/full/diffusion" in by_title["no_end_to_end: diffusion"]
    assert (
        f"--config.init_from.diffusion={out}/full/diffusion"
        in by_title["no_end_to_end: joint, seed 0"]
    )
    assert f"--workdir={out}/no_motion_align/diffusion" in by_title["no_motion_align: diffusion"]
    works = {a for _, arguments in calls for a in arguments if a.startswith("--work=")}
    assert works == {f"--work={out}/work"}
    assert "--lpips=l.safetensors" in by_title["full: evaluation, seed 0"]


def test_the_flags_are_of_a_config_that_exists():
    from configs import demo_128

    config = demo_128.get_config("joint")
    for both, joint in ablate.ROWS.values():
        for flag in (*both, *joint):
            name, value = flag.removeprefix("--config.").split("=")
            before = config
            for part in name.split("."):
                before = before[part]
            assert str(before) != value, f"{flag} changes nothing"


def test_the_table_marks_certain_differences(made):
    text, _, out = made
    row = next(line for line in text.splitlines() if "opening_correlation" in line)
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    assert cells[:3] == ["model", "opening_correlation", f"{0.9 + _shift():.3f}"]
    assert not cells[3].endswith("*") and "(-0.001 to +0.001)" in cells[3]
    assert cells[4].endswith("(-0.400 to -0.400)*")
    assert (out / "table.md").read_text() == text + "\n"
    content = json.loads((out / "table.json").read_text())
    found = content["differences"]["no_motion_align"]["model opening_correlation"]
    assert found["n"] == 8 and found["mean"] == pytest.approx(-0.4)
    assert content["probe"]["full"]["x0_l1"]["no landmarks"] == 0.3
    assert "| warp, own reference | error | 0.0100 |" in text
    assert "| gradient of the loss, pictures | cosine_of_halves | -0.050 |  | -0.050 |" in text


def test_numbers_are_means_over_seeds(runs, tmp_path):
    rows = ["full", "no_motion_align"]
    for row in rows:
        (tmp_path / row).mkdir()
    text = ablate.ablate(study(tmp_path, seeds=(0, 2)), rows)
    commands = [flags for title, flags in runs if title == "full: joint, seed 2"]
    assert len(commands) == 1 and commands[0][-1] == "--config.seed=2"  # the last one wins
    assert f"--workdir={tmp_path}/full/seed2/joint" in commands[0]
    row = next(line for line in text.splitlines() if "opening_correlation" in line)
    first = 0.9 + _shift()
    assert f"| {first + 0.1:.3f} [{first:.3f}, {first + 0.2:.3f}] |" in row
    assert "(-0.400 to -0.400)*" in row
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["seeds"]["full"]["model opening_correlation"] == pytest.approx(
        [first, first + 0.2]
    )


def test_values_that_a_seed_lacks_are_left_out_of_the_means():
    tables = [
        {("model", "a"): {"lmd": 1.0, "psnr": 3.0}, ("model", "b"): {"lmd": 2.0}},
        {("model", "a"): {"lmd": 2.0}},
    ]
    found = ablation_table.mean_over_seeds(tables)
    assert found == {("model", "a"): {"lmd": 1.5}, ("model", "b"): {}}


def _shift():
    return 0.05 * np.random.default_rng(0).normal(size=8).mean()


class Batches:
    """A data set that counts what is read of it."""

    def __init__(self, batch):
        self.batch, self.read, self.closed = batch, 0, False

    def __iter__(self):
        return self

    def __next__(self):
        assert self.read < 1000, "everything is read"
        self.read += 1
        return self.batch

    def close(self):
        self.closed = True


@pytest.fixture
def loaded(monkeypatch):
    """A row's checkpoint and data without files: (evaluation data, training data)."""
    batch = {key: np.zeros((8, 1), np.float32) for key in probe.BATCH_KEYS}
    made = Batches(batch), Batches(batch)
    config = configuration.small_config().to_dict()
    nets = types.SimpleNamespace(region=(0, 0, 1, 1))
    monkeypatch.setattr(ablate.checkpoint, "load", lambda path: ({}, config, nets))
    monkeypatch.setattr(ablate.loader, "eval_dataset", lambda *_: made[0])
    monkeypatch.setattr(ablate.loader, "train_dataset", lambda *_, **__: made[1])
    return made


def _count_batches(config, params, batches):
    return {"batches": len(list(batches)), "pictures": [{}]}


def test_the_probe_reads_what_it_needs_and_closes_it(loaded, tmp_path, monkeypatch):
    found = {"x0_l1": {"all": float("nan")}, "warp": {"own": {}, "other": {}}}
    monkeypatch.setattr(ablate.probe, "probe_denoiser", lambda nets, params, batches: dict(found))
    monkeypatch.setattr(
        ablate.agreement,
        "landmark_gradients",
        _count_batches,
    )
    ablate.probe_row(study(tmp_path), tmp_path, tmp_path / "probe.json")
    assert [data.read for data in loaded] == [32, 24] and all(data.closed for data in loaded)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "probe.json").read_text()
    content = json.loads(text, parse_constant=refuse)
    assert content["x0_l1"]["all"] is None and content["gradient"]["batches"] == 24


def test_data_is_closed_where_the_measurement_fails(loaded, tmp_path, monkeypatch):
    def fail(*unused):
        raise UserError("no gradient")

    monkeypatch.setattr(ablate.agreement, "landmark_gradients", fail)
    with pytest.raises(UserError):
        ablate.compare_gradients(study(tmp_path), ablate.checkpoint.load("")[1], {})
    assert loaded[1].closed


@pytest.mark.parametrize("command", [ablate.TRAIN, ablate.EVALUATE])
def test_the_commands_that_rows_run_are_commands(command, commands):
    """A module without `if __name__ == "__main__"` would do nothing, successfully."""
    done = commands.run(*command[1:], "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage:"), done.stderr


def test_a_run_that_fails_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(ablate, "TRAIN", (str(tmp_path / "train.py"),))
    (tmp_path / "train.py").write_text("import sys; sys.exit(3)")
    with pytest.raises(UserError, match="full: diffusion ended with exit code 3"):
        ablate.ablate(study(tmp_path / "out"), ["full"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: --config, --out, --data, --autoencoder"),
        (["--config=c", "--out=o", "--data=d", "--autoencoder=a"], "are required: --landmark"),
        (["--rows=nothing"], "--rows takes full"),
        (["--rows=full", "--", "stray"], "unexpected argument 'stray'"),
        (["--rows=full", "--seeds=1,1"], "the seeds in '1,1' must differ"),
        (["--rows=full", "--no_such=1"], "unrecognized arguments: --no_such=1"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, commands):
    rest = ["--config=c", "--out=o", "--data=d", "--autoencoder=a", "--landmark=l"]
    given = [*(rest if "rows" in str(arguments) else []), *arguments]
    done = commands.run("talkjax.ablate", *given)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1
