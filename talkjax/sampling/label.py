"""The label in every file that sampling writes: that it is synthetic, and what made it.

The comment of the container is always there (`Options.metadata`); C2PA's signed Content Credentials
are where a certificate is given.
"""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from talkjax import provenance
from talkjax.errors import UserError
from talkjax.files import PathLike

if TYPE_CHECKING:
    from talkjax.provenance.signing import Signature
    from talkjax.sampling.options import Options

SYNTHETIC = "synthetic: lip-synced"


def metadata(fingerprint: str) -> dict[str, str]:
    """Returns the tags of the container.

    They are one comment, because that is the tag which all containers have and players show.

    Args:
      fingerprint: `Sampler.fingerprint` of the checkpoint.

    Returns:
      {"comment": "synthetic: lip-synced; tool: talkjax 0.1.0; checkpoint: 0123456789abcdef"}
    """
    return {"comment": f"{SYNTHETIC}; tool: talkjax {version()}; checkpoint: {fingerprint}"}


def read(comment: str) -> dict[str, str]:
    """Splits the comment of a file into its fields; none if it is another comment."""
    parts = [part.partition(": ") for part in comment.split("; ")]
    fields = {name: value for name, _, value in parts}
    return fields if "synthetic" in fields else {}


def open_signature(options: Options, out: PathLike, template: PathLike) -> Signature | None:
    """Returns what signs the output, or None where no certificate is given.

    Args:
      options: The `c2pa_...` ones are used.
      out: The output.
      template: The video or photograph that is edited.

    Raises:
      UserError: The output could not be signed in the end: the certificate or the key is missing or
        cannot be used, C2PA does not support the container, or the extra is not installed.
    """
    certificate, key = options.c2pa_certificate, options.c2pa_key
    if certificate is None and key is None:
        if options.c2pa_timestamp_url is not None:
            raise UserError("a time stamp needs c2pa_certificate=FILE and c2pa_key=FILE; give both")
        return None
    if certificate is None or key is None:
        missing = "c2pa_certificate" if certificate is None else "c2pa_key"
        raise UserError(f"signing needs a certificate and its key; give {missing}=FILE too")
    provenance.check_packages()
    from talkjax.provenance import credentials, signing

    loaded = credentials.load(certificate, key, options.c2pa_timestamp_url)
    return signing.Signature(loaded, out, template, version())


def version() -> str:
    """Returns the version of this package."""
    try:
        return importlib.metadata.version("talkjax")
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return "0+unknown"
