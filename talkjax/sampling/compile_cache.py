"""JAX's persistent compilation cache, so that only the first run of a program compiles it."""

import os
from pathlib import Path

import jax

VARIABLE = "TALKJAX_COMPILATION_CACHE"  # "0" turns the cache off, a path moves it


def enable() -> Path | None:
    """Turns the cache on, unless one is configured already or the environment turns it off.

    Returns:
      The cache's directory, by default `~/.cache/talkjax/jax`, or None if it was not turned on.
    """
    setting = os.environ.get(VARIABLE, "")
    if setting.lower() in ("0", "off", "no", "false") or jax.config.jax_compilation_cache_dir:
        return None
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    default = os.path.join(home, "talkjax", "jax")
    path = Path(setting if setting and setting != "1" else default)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(path, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return path
