import struct
import subprocess
import sys

import numpy as np
import pytest

from talkjax.training import tensorboard
from tests.training.test_loop import rows_of, train


def events_of(workdir):
    """Reads the events of all files in the order that TensorBoard reads them."""
    event_pb2 = pytest.importorskip("tensorboardX").proto.event_pb2
    for path in sorted((workdir / tensorboard.FOLDER).iterdir()):
        data = path.read_bytes()
        while data:
            # Length (8 bytes), its checksum (4), the event, its checksum (4)
            (length,) = struct.unpack("<Q", data[:8])
            yield event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def shown(workdir, tag):
    """{step: value} of a scalar as TensorBoard shows it: a restart hides steps from its own on."""
    values = {}
    for event in events_of(workdir):
        if event.HasField("session_log"):
            values = {step: x for step, x in values.items() if step < event.step}
        for value in event.summary.value:
            if value.tag == tag:
                values[event.step] = value.simple_value
    return values


@pytest.fixture
def package():
    return pytest.importorskip("tensorboardX")


def test_a_run_writes_its_metrics_and_pictures(package, tmp_path):
    train(tmp_path, steps=6, **{"log.tensorboard": True})
    rows = rows_of(tmp_path)
    for tag in ("loss", "eval_loss", "data_stall"):
        expected = {row["step"]: pytest.approx(row[tag], rel=1e-6) for row in rows if tag in row}
        assert expected and shown(tmp_path, tag) == expected
    pictures = [value.image for event in events_of(tmp_path) for value in event.summary.value
                if value.HasField("image")]  # fmt: skip
    png = (tmp_path / "samples" / "00000006.png").read_bytes()
    assert [picture.encoded_image_string for picture in pictures] == [png]


def test_a_resumed_run_hides_what_it_computes_again(package, tmp_path):
    for steps, resumed_at in (((1, 2, 3), 0), ((2, 3, 4), 1)):
        writer = tensorboard.EventWriter(tmp_path, resumed_at)
        for step in steps:
            writer.write({"step": step, "loss": step + 10.0 * resumed_at, "warning": "no number"})
        writer.close()
    assert shown(tmp_path, "loss") == {1: 1.0, 2: 12.0, 3: 13.0, 4: 14.0}
    tags = {value.tag for event in events_of(tmp_path) for value in event.summary.value}
    assert tags == {"loss"}


def test_a_full_disk_is_an_error_and_no_endless_wait(package, tmp_path, monkeypatch):
    writer = tensorboard.EventWriter(tmp_path, 0)
    full = open("/dev/full", "wb")  # noqa: SIM115
    monkeypatch.setattr(writer._file._py_recordio_writer, "_writer", full)
    with pytest.raises(OSError, match="No space left"):
        for step in range(100):
            writer.write_pictures(step, np.zeros((64, 64, 3), np.uint8), "")


def test_without_the_extra_nothing_is_trained(tmp_path):
    """In a process of its own, because another test may have imported the package."""
    script = (
        "import sys; sys.modules['tensorboardX'] = None\n"
        "from talkjax import commands\n"
        "from talkjax.training import command\n"
        "sys.exit(commands.run_main(command.main, sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--config=configs/demo_64.py:landmark",
         f"--workdir={tmp_path / 'run'}", "--config.log.tensorboard=True"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "extra `tensorboard`" in done.stderr
    assert not (tmp_path / "run").exists()
