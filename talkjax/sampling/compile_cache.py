"""JAX's persistent compilation cache, so that only the first run of a program compiles."""

import os
from pathlib import Path

import jax

VARIABLE = "TALKJAX_COMPILATION_CACHE"  # 0 switches it off; a path moves it


def enable() -> Path | None:
    """Turns the cache on, unless one is set already or the variable above is 0.

    Returns:
      Its directory, by default `~/.cache/talkjax/jax`; None where there is none.
    """
    wanted = os.environ.get(VARIABLE, "")
    if wanted.lower() in ("0", "off", "no", "false") or jax.config.jax_compilation_cache_dir:
        return None
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = Path(wanted if wanted and wanted != "1" else os.path.join(home, "talkjax", "jax"))
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(path, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return path
