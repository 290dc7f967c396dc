"""Errors of the library, which name parameters, in the words of a command, which has flags."""

import contextlib
import re
from collections.abc import Iterator

from talkjax.errors import UserError


@contextlib.contextmanager
def flag_errors() -> Iterator[None]:
    """Adds dashes to the parameter that a `UserError` begins with: `out=x` becomes `--out=x`."""
    try:
        yield
    except UserError as error:
        raise UserError(re.sub(r"^(?=[a-z]\w*=)", "--", str(error))) from error
