"""Local copies of files in a bucket.

Shards are read at random, which needs local files. So a split in a
bucket (gs://, s3://, ...) is fetched file by file, once, into

    ~/.cache/talkjax/data/HASH_OF_THE_FOLDER'S_URL/NAME

or below the folder that the environment variable TALKJAX_DATA_CACHE names. A copy appears complete
or not at all, and counts as long as its size and time of change are those in the bucket, so an
interrupted download resumes at the first file that is missing. Files that are small and read
whole (`dataset_info.json`, `index.json`, `latents.json`) are not copied.

ArrayRecord's own reader can open gs:// on Linux, but no other bucket, and without credentials it
waits for minutes instead of failing.
"""

import concurrent.futures
import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence

from etils import epath

from talkjax import files
from talkjax.errors import UserError

CACHE_VARIABLE = "TALKJAX_DATA_CACHE"
_THREADS = 8
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def bucket_errors(path: files.PathLike) -> Iterator[None]:
    """Turns whatever a bucket's client raises into a `UserError` that names the path.

    Errors of local files pass unchanged.
    """
    try:
        yield
    except Exception as error:  # every client has exceptions of its own
        if isinstance(error, UserError) or not files.is_remote(path):
            raise
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}: {files.one_line(error)}); check the "
            "path, the credentials and that the bucket's client (such as gcsfs) is installed"
        ) from error


def local_copies(paths: Sequence[files.PathLike]) -> list[epath.Path]:
    """Returns local files with the contents of `paths`: local paths as they are, others fetched.

    Raises:
      UserError: A file cannot be fetched, or the cache cannot be written.
    """
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(_local_copy, paths))


def _local_copy(path: files.PathLike) -> epath.Path:
    path = files.as_path(path)
    if not files.is_remote(path):
        return path
    with bucket_errors(path):
        original = path.stat()
    copy = _place(path)
    if copy.exists() and _is_current(copy, original):
        return copy
    _log.warning("fetching %s (%.1f MB) to %s", path, original.length / 1e6, copy.parent)
    copy.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(copy) as temporary:
        with contextlib.closing(_chunks(path)) as chunks, temporary.open("wb") as target:
            target.writelines(chunks)
        os.utime(temporary, (original.mtime, original.mtime))
        if not _is_current(temporary, original):
            raise UserError(
                f"{path} arrived with {temporary.stat().length} of {original.length} bytes; run "
                "the command again"
            )
    return copy


def _chunks(path: epath.Path) -> Iterator[bytes]:
    with bucket_errors(path), path.open("rb") as source:
        while chunk := source.read(1 << 20):
            yield chunk


def _place(path: epath.Path) -> epath.Path:
    root = os.environ.get(CACHE_VARIABLE) or "~/.cache/talkjax/data"
    folder = hashlib.sha256(os.fspath(path.parent).encode()).hexdigest()[:32]
    return files.as_path(root).expanduser() / folder / path.name


def _is_current(copy: epath.Path, original: epath.stat_utils.StatResult) -> bool:
    found = copy.stat()
    return (found.length, found.mtime) == (original.length, original.mtime)
