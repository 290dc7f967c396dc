import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from talkjax import runs
from talkjax.errors import UserError
from talkjax.training import checkpoints, sharding
from tests.training import toy
from tests.training.saved import assert_equal, make_state, save_run


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garble(path):
    path.write_bytes(b"\0garbage")


def flip(path):
    """One bit, where the arrays are."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path):
    shutil.rmtree(path)
    path.mkdir()


def largest(checkpoint):
    files = (path for path in checkpoint.glob("state/**/d/*") if path.is_file())
    return max(files, key=lambda path: path.stat().st_size)


DAMAGE = {
    "truncated": lambda checkpoint: [cut(p) for p in checkpoint.glob("state/d/*")],
    "no arrays": lambda checkpoint: shutil.rmtree(checkpoint / "state" / "d"),
    "metadata cut": lambda checkpoint: cut(checkpoint / "state" / "_METADATA"),
    "metadata garbled": lambda checkpoint: garble(checkpoint / "state" / "_METADATA"),
    "metadata lost": lambda checkpoint: (checkpoint / "state" / "_METADATA").unlink(),
    "data cut": lambda checkpoint: cut(checkpoint / "data" / "process_0-of-1.json"),
    "data lost": lambda checkpoint: shutil.rmtree(checkpoint / "data"),
    "empty": empty,
}


def restore_newest(workdir):
    """(its average's value or None, the steps there are afterwards, warnings, next batch)."""
    _, abstract = make_state()
    iterator = iter(toy.make_data(toy.config())("train"))
    warnings = []
    with checkpoints.open_manager(workdir) as manager:
        restored = checkpoints.restore_newest(manager, abstract, iterator, warnings.append)
        steps = sorted(manager.all_steps())
    value = restored and float(restored.ema["denoiser"]["bias"][0])
    return value, steps, warnings, next(iterator)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(tmp_path, damage):
    save_run(tmp_path, [1, 2])
    damage(tmp_path / "checkpoints" / "2")
    value, steps, (warning,), batch = restore_newest(tmp_path)
    assert (value, steps) == (1, [1])
    assert "checkpoints/2 cannot be restored" in warning and "\n" not in warning
    assert warning.endswith("kept as 2.damaged, going on from step 1")
    expected = iter(toy.make_data(toy.config())("train"))
    next(expected)  # `save_run` took one batch for every step
    assert_equal(batch, next(expected))
    assert (tmp_path / "checkpoints" / "2.damaged").is_dir()
    assert runs.load_run(tmp_path)[2] == 1  # nobody takes it for a checkpoint


def test_a_step_can_be_saved_and_damaged_again(tmp_path):
    save_run(tmp_path, [1, 2])
    empty(tmp_path / "checkpoints" / "2")
    assert restore_newest(tmp_path)[:2] == (1, [1])
    made, _ = make_state(fill=5)
    iterator = iter(toy.make_data(toy.config())("train"))
    with checkpoints.open_manager(tmp_path) as manager:
        checkpoints.save(manager, 2, made, iterator)
    assert restore_newest(tmp_path)[:3] == (5, [1, 2], [])
    empty(tmp_path / "checkpoints" / "2")
    assert restore_newest(tmp_path)[:2] == (1, [1])
    names = ["1", "2.damaged", "2.damaged2"]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == names


def test_where_nothing_can_be_restored_nothing_is_set_aside(tmp_path):
    assert restore_newest(tmp_path / "none")[0] is None
    save_run(tmp_path, [1, 2])
    for step in "12":
        empty(tmp_path / "checkpoints" / step)
    with pytest.raises(UserError, match=r"none of the 2 checkpoints .*checkpoints/2 cannot be"):
        restore_newest(tmp_path)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["1", "2"]


def test_a_single_wrong_bit_in_an_array_is_seen(tmp_path):
    """Storage keeps larger arrays without a sum; the fingerprint does."""
    kernel = np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)
    iterator = iter(toy.make_data(toy.config())("train"))
    with checkpoints.open_manager(tmp_path) as manager:
        for step in (1, 2):
            checkpoints.save(manager, step, {"kernel": jnp.asarray(kernel)}, iterator)
        manager.wait_until_finished()
        flip(largest(tmp_path / "checkpoints" / "2"))
        there = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        abstract = {"kernel": jax.ShapeDtypeStruct(kernel.shape, np.float32, sharding=there)}
        with pytest.raises(UserError, match="differ from those that were saved"):
            checkpoints.restore(manager, 2, abstract, iterator)
        shutil.rmtree(tmp_path / "checkpoints" / "2" / "fingerprint")  # as older checkpoints are
        wrong = checkpoints.restore(manager, 2, abstract, iterator)["kernel"]
        assert np.sum(np.asarray(wrong) != kernel) == 1
        checkpoints.restore(manager, 1, abstract, iterator)


def test_fingerprints_tell_values_places_and_types_apart():
    x = jnp.arange(6, dtype=jnp.float32).reshape(2, 3)
    mesh = sharding.make_mesh(2, 4)
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    prints = [
        checkpoints.fingerprint({"x": value})["['x']"]
        for value in (x, -x, x.T, x[::-1], x[:, ::-1], x.astype(jnp.bfloat16), x.astype(jnp.int32))
    ]
    assert len(set(prints)) == len(prints)
    assert checkpoints.fingerprint({"x": jax.device_put(x, where)})["['x']"] == prints[0]
    assert checkpoints.fingerprint(jnp.uint8(3)) != checkpoints.fingerprint(jnp.uint8(4))
