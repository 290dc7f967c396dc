"""Files that are part of the package: a checkpoint, the video of an avatar, and a speech track."""

from pathlib import Path

from talkjax import weights
from talkjax.errors import UserError

ASSETS = Path(__file__).resolve().parents[1] / "assets"
_CHECKPOINT = "people_256"


def checkpoint() -> Path:
    """Returns the folder of the bundled checkpoint.

    Raises:
      UserError: It is missing, for example in a sparse checkout.
    """
    directory = ASSETS / _CHECKPOINT
    for name in (weights.PARAMS_FILE, weights.CONFIG_FILE):
        _first_existing("checkpoint", "checkpoint=DIR", directory / name)
    return directory


def template() -> Path:
    """Returns the video of an avatar that the bundled checkpoint was not trained on.

    Raises:
      UserError: It is missing.
    """
    path = ASSETS / "demo" / "template.mp4"
    return _first_existing("template", "video=FILE or image=FILE", path)


def speech() -> Path:
    """Returns a speech track that the bundled checkpoint was not trained on.

    Raises:
      UserError: It is missing.
    """
    paths = (ASSETS / "demo" / f"speech.{suffix}" for suffix in ("wav", "flac"))
    return _first_existing("speech", "audio=FILE", *paths)


def _first_existing(what: str, alternative: str, *paths: Path) -> Path:
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        where = f"{ASSETS.parent.name}/{ASSETS.name}"
        raise UserError(
            f"the bundled {what} is missing ({paths[0]}); get the complete folder {where} from the "
            f"repository, or give {alternative}"
        )
    return found
