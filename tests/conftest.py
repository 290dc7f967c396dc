"""Set before any test touches jax: strict types and ranks, eight devices, quick compilation."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from tests.commands import Commands

os.environ.setdefault("JAX_PLATFORMS", "cpu")

jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Programs run once or twice on small arrays, so the time that goes into good code is lost. Commands
# that tests start inherit this; set the variable to 0 to test optimised code.
_SETTING = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
jax.config.update("jax_disable_most_optimizations", _SETTING != "0")
# Kept between runs of the same user: compiling is most of what tests of models do.
_CACHE = Path(tempfile.gettempdir()) / f"talkjax-tests-jax-cache-{os.getuid()}"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder `data` of what TALKJAX_SHARED names: real footage and weights."""
    path = os.environ.get("TALKJAX_SHARED")
    if not path or not (Path(path) / "data").is_dir():
        pytest.skip("TALKJAX_SHARED is not set to a folder with real footage in data/")
    return Path(path) / "data"


@pytest.fixture(scope="session")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs commands in forks of one process that has imported what all of them do."""
    modules = ("talkjax.training.stages", "talkjax.metrics.evaluator", "talkjax.data.loader")
    made = Commands(tmp_path_factory.mktemp("commands"), *modules)
    yield made
    made.close()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 clips of 2 to 4 s in `train` (one too short to be used) and 3 in `test`."""
    from tests.data_pipelines.synthetic import make_record, write_shards

    train = [make_record(f"train{i:02d}", ticks=50 + 5 * i) for i in range(10)]
    train += [make_record("slow", ticks=90, fps=12.5), make_record("short", ticks=12)]
    test = [make_record(f"test{i}", ticks=60 + 7 * i) for i in range(3)]
    return write_shards(tmp_path_factory.mktemp("data"), {"train": train, "test": test})
