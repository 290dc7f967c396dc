import importlib.util

import pytest

from talkjax.compile_ahead import slices
from talkjax.errors import UserError


@pytest.mark.parametrize(
    ("name", "topology", "count"),
    [
        ("v5e-1", (1, 1), 1),
        ("v5e-8", (2, 4), 1),
        ("v5e-16", (4, 4), 1),
        ("v5e-256", (16, 16), 1),
        ("v6e-32", (4, 8), 1),
        ("v4-8", (2, 2, 1), 1),  # numbers of v4 and v5p count cores, two a chip
        ("v4-32", (2, 2, 4), 1),
        ("v5p-128", (4, 4, 4), 1),
        ("2xv5e-256", (16, 16), 2),
    ],
)
def test_names(name, topology, count):
    found = slices.parse_slice(name)
    assert (found.topology, found.count) == (topology, count)


@pytest.mark.parametrize(
    "name", ["v5e", "v5e-", "v3-8", "v5e-12", "v5e-512", "v5p-4", "v5p-9", "0xv5e-4", "h100-8", ""]
)
def test_names_that_are_none(name):
    with pytest.raises(UserError, match="slice="):
        slices.parse_slice(name)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_the_error_says_what_to_install():
    with pytest.raises(UserError, match="--extra tpu"):
        slices.parse_slice("v5e-4").devices()


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra `tpu`")
@pytest.mark.parametrize("name", ["v5e-1", "v5e-16", "v5p-128", "v4-32", "2xv6e-8"])
def test_libtpu_knows_the_topologies(name):
    found = slices.parse_slice(name)
    devices = found.devices()
    chips = found.count
    for size in found.topology:
        chips *= size
    assert len(devices) == chips
    assert len({getattr(d, "slice_index", 0) for d in devices}) == found.count
