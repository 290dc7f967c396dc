"""Reading and writing media files, face landmarks, cropping and pasting.

The packages that this folder needs are those of the extra `video`.
"""

import importlib.util

from talkjax.errors import UserError

_PACKAGES = ("av", "cv2", "librosa", "soxr", "tqdm")


def check_packages() -> None:
    """Checks that the packages of the extra `video` are installed.

    Raises:
      UserError: Some are missing.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"reading and writing video needs {', '.join(missing)}; "
            "run `pip install talkjax[video]`"
        )
