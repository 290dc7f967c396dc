import types

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from configs import base_256, person_128, sync
from talkjax import networks
from talkjax.compile_ahead import programs
from talkjax.errors import UserError
from talkjax.sampling import regions
from talkjax.training import sharding, stages


def shapes(**leaves):
    return {k: jax.ShapeDtypeStruct(shape, np.float32) for k, shape in leaves.items()}


def specs(params, rules, fsdp=4, min_size=1):
    return sharding.param_specs(params, sharding.make_mesh(-1, fsdp), rules, min_size)


def test_mesh_takes_what_is_left():
    assert dict(sharding.make_mesh(-1, 4).shape) == {"data": 2, "fsdp": 4}
    assert dict(sharding.make_mesh(2, -1).shape) == {"data": 2, "fsdp": 4}
    assert dict(sharding.make_mesh().shape) == {"data": 8, "fsdp": 1}


@pytest.mark.parametrize(("data", "fsdp"), [(3, 2), (-1, 3), (0, 8), (-1, -1), (16, 1), (8, 0)])
def test_mesh_that_does_not_fit_is_refused(data, fsdp):
    with pytest.raises(UserError, match="8 devices"):
        sharding.make_mesh(data, fsdp)


def test_fsdp_splits_the_longest_axis_that_divides():
    tree = shapes(kernel=(3, 3, 8, 16), odd=(30, 8), square=(8, 8), vector=(12,))
    assert specs(tree, [(".*", "fsdp")]) == {
        "kernel": PartitionSpec(None, None, None, "fsdp"),
        "odd": PartitionSpec(None, "fsdp"),  # 30 is longer, but 4 does not divide it
        "square": PartitionSpec(None, "fsdp"),
        "vector": PartitionSpec("fsdp"),
    }


def test_small_parameters_are_copied():
    tree = shapes(small=(4, 4), large=(4, 5))
    got = specs(tree, [(".*", "fsdp")], min_size=17)
    assert got == {"small": PartitionSpec(), "large": PartitionSpec("fsdp")}


def test_the_first_rule_that_matches_decides():
    tree = {"net": shapes(kernel=(8, 8), bias=(8,))}
    rules = [("net/bias$", "replicate"), ("net/", "fsdp"), (".*", "replicate")]
    assert specs(tree, rules)["net"] == {
        "kernel": PartitionSpec(None, "fsdp"),
        "bias": PartitionSpec(),
    }


def test_a_parameter_without_a_rule_is_named():
    with pytest.raises(UserError, match="net/stray"):
        specs({"net": shapes(stray=(8, 8))}, [("kernel", "fsdp")])


def test_a_parameter_that_cannot_be_split_is_named():
    with pytest.raises(UserError, match=r"net/odd \(3, 5\).*fsdp=4"):
        specs({"net": shapes(odd=(3, 5))}, [(".*", "fsdp")])
    assert specs({"net": shapes(odd=(3, 5))}, [(".*", "fsdp")], fsdp=1)["net"]["odd"] == (
        PartitionSpec()
    )


def test_an_unknown_tactic_is_refused():
    with pytest.raises(UserError, match="'tensor'"):
        specs(shapes(a=(8,)), [(".*", "tensor")])


# Stage joint has all networks but the judge of lip sync.
EVERY = [(base_256, "joint"), (person_128, "joint"), (sync, "sync")]


@pytest.mark.parametrize(("module", "stage"), EVERY)
def test_the_rules_cover_every_parameter_of_every_network(module, stage):
    config = module.get_config()
    config.stage = stage
    batch = programs.batch_shapes(config)
    params = jax.eval_shape(
        lambda key: stages.make_stage(config).init(
            key, {name: jax.numpy.zeros(x.shape, x.dtype) for name, x in batch.items()}
        ),
        jax.random.key(0),
    )
    if module is person_128:  # the networks of kind taesd and light, too
        for kind in ("taesd", "light"):
            config.autoencoder.kind = kind
            config.autoencoder.size, config.autoencoder.f = "small", 8
            params = {**params, kind: regions.expected_params(networks.make_networks(config))}
    for fsdp in (2, 16, 64) if module is base_256 else (2, 16):
        mesh = jax.sharding.AbstractMesh((1, fsdp), sharding.AXES)
        # A copy costs little below min_size; beyond it, everything has to be split.
        specs = sharding.param_specs(params, mesh, config.mesh.rules, config.mesh.fsdp_min_size)
        flat = jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, PartitionSpec))
        large = [x.size >= config.mesh.fsdp_min_size for x in jax.tree.leaves(params)]
        assert [spec != PartitionSpec() for spec in flat] == large


def test_slices_lie_along_data():
    def device(i):
        return types.SimpleNamespace(
            id=i, slice_index=i // 8, process_index=i, platform="cpu", device_kind="fake"
        )

    devices = [device(i) for i in range(16)]
    grid = sharding.device_grid(4, 4, devices)
    assert grid.shape == (4, 4)
    slices = np.vectorize(lambda d: d.slice_index)(grid)
    np.testing.assert_array_equal(slices, [[0] * 4, [0] * 4, [1] * 4, [1] * 4])
    assert len({d.id for d in grid.flat}) == 16
    with pytest.raises(UserError, match="2 slices"):
        sharding.device_grid(1, 16, devices)


def test_batch_sizes():
    mesh = sharding.make_mesh()
    sharding.check_batch_size(16, mesh, 2)
    for size, parts in ((8, 2), (12, 1), (0, 1)):
        with pytest.raises(UserError, match="multiple of"):
            sharding.check_batch_size(size, mesh, parts)


def test_batches_are_split_over_every_device():
    mesh = sharding.make_mesh(2, 4)
    batch = {"x": np.arange(16.0).reshape(16, 1)}
    placed = sharding.place_batch(batch, sharding.batch_sharding(mesh))["x"]
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 1)}
    np.testing.assert_array_equal(placed, batch["x"])
