"""What comes with the package: a checkpoint, the video of an avatar, and a speech track."""

from pathlib import Path

from talkjax import weights
from talkjax.errors import UserError

ASSETS = Path(__file__).resolve().parents[1] / "assets"
_CHECKPOINT = "demo_128"


def checkpoint() -> Path:
    """Directory of the bundled checkpoint, as `train.py --export` writes them.

    Raises:
      UserError: it is not there, as in a sparse checkout.
    """
    directory = ASSETS / _CHECKPOINT
    for name in (weights.PARAMS_FILE, weights.CONFIG_FILE):
        _existing("checkpoint", "--checkpoint=DIR", directory / name)
    return directory


def template() -> Path:
    """Video of an avatar that the bundled checkpoint was not trained on; errors as above."""
    return _existing("template", "--video=FILE or --image=FILE", ASSETS / "demo" / "template.mp4")


def speech() -> Path:
    """Speech that the bundled checkpoint was not trained on; errors as above."""
    paths = (ASSETS / "demo" / f"speech.{kind}" for kind in ("wav", "flac"))
    return _existing("speech", "--audio=FILE", *paths)


def _existing(what: str, flag: str, *paths: Path) -> Path:
    """The first of the paths that is a file."""
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        where = f"{ASSETS.parent.name}/{ASSETS.name}"
        raise UserError(
            f"the bundled {what} is missing ({paths[0]}); get the whole of {where} from the "
            f"repository, or give {flag}"
        )
    return found
