"""Set before any test touches jax: strict types and ranks, eight devices, a compilation cache."""

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
    modules = ("talkjax.training.stages", "talkjax.metrics.evaluator", "data_pipelines.loader")
    made = Commands(tmp_path_factory.mktemp("commands"), *modules)
    yield made
    made.close()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return Path(__file__).resolve().parents[1]
