"""C2PA Content Credentials: signed statements in a file about what made it.

Everything here needs the extra `provenance`, and is imported only where a certificate is given.
"""

import importlib.util

from talkjax.errors import UserError


def check_packages() -> None:
    """Checks that the packages of the extra `provenance` are installed.

    Raises:
      UserError: One is missing.
    """
    missing = [name for name in ("c2pa", "cryptography") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"Content Credentials need {' and '.join(missing)}; "
            "run `pip install talkjax[provenance]`"
        )
