"""Shards of synthetic records, made once for all tests here."""

import pytest

from tests.data_pipelines.synthetic import make_record, write_shards


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """12 clips of 2 to 4 s in `train` (one too short to be used) and 3 in `test`."""
    train = [make_record(f"train{i:02d}", ticks=50 + 5 * i) for i in range(10)]
    train += [make_record("slow", ticks=90, fps=12.5), make_record("short", ticks=12)]
    test = [make_record(f"test{i}", ticks=60 + 7 * i) for i in range(3)]
    return write_shards(tmp_path_factory.mktemp("data"), {"train": train, "test": test})
