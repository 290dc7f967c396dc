"""Signing a finished video: what was done to which template, by which program."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

import c2pa

from talkjax import files
from talkjax.errors import UserError
from talkjax.provenance import settings
from talkjax.provenance.credentials import Credentials

# Suffix of an output -> what C2PA's library calls its format.
FORMATS = {".mp4": "video/mp4", ".m4v": "video/x-m4v", ".mov": "video/quicktime"}
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
DESCRIPTION = "The mouth was generated to follow another speech track."
_OPAQUE = "application/octet-stream"  # is recorded by its name alone
_PIXEL = bytes.fromhex(  # a PNG
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
    "3a7e9b550000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
)


class Signature:
    """Signs the output of one run.

    Attributes:
      name: Name of the certificate.
    """

    def __init__(
        self, credentials: Credentials, out: files.PathLike, template: files.PathLike, version: str
    ) -> None:
        """Checks all that can be checked before there is an output, by signing something small.

        Args:
          credentials: What signs.
          out: The output, whose suffix gives its format.
          template: The video or photograph that is edited.
          version: Version of talkjax.

        Raises:
          UserError: C2PA does not support the output's format, or does not accept the certificate,
            or the time-stamp authority does not answer.
        """
        suffix = os.path.splitext(os.fsdecode(out))[1].lower()
        if suffix not in FORMATS:
            raise UserError(
                f"out={os.fsdecode(out)}: C2PA cannot sign {suffix or 'this format'}; write one of "
                f"{', '.join(FORMATS)}, or leave out c2pa_certificate"
            )
        self.name = credentials.name
        self._credentials, self._format = credentials, FORMATS[suffix]
        self._title = os.path.basename(os.fsdecode(out))
        self._template, self._version = os.fsdecode(template), version
        self._parent_format = _format_of(self._template)
        with _errors("c2pa_certificate: cannot sign"):
            self._sign("image/png", io.BytesIO(_PIXEL), io.BytesIO(), {})

    def sign(self, path: str, checkpoint: str) -> None:
        """Replaces a finished file by the same file with a signed manifest.

        Args:
          path: The file; at any moment it is the old one or the new one.
          checkpoint: Fingerprint of the checkpoint that made it.

        Raises:
          UserError: It cannot be signed or written.
        """
        with (
            files.replacing(path) as signed,
            _errors(f"{self._title}: cannot be signed"),
            open(path, "rb") as source,
            open(signed, "w+b") as target,
        ):
            self._sign(self._format, source, target, {"checkpoint": checkpoint})

    def _sign(self, kind: str, source: Any, target: Any, parameters: dict[str, str]) -> None:
        given = self._credentials
        url = given.timestamp_url and given.timestamp_url.encode()
        info = c2pa.C2paSignerInfo(given.algorithm.encode(), given.chain, given.key, url)
        action = {
            "action": "c2pa.edited",
            "digitalSourceType": SOURCE_TYPE,
            "softwareAgent": {"name": "talkjax", "version": self._version},
            "description": DESCRIPTION,
            "parameters": parameters,
        }
        manifest = {
            "claim_generator_info": [{"name": "talkjax", "version": self._version}],
            "title": self._title,
            "format": kind,
            "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
        }
        with (
            c2pa.Context.from_dict(settings.make()) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(manifest, context) as builder,
        ):
            builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
            self._add_parent(builder)
            builder.sign(signer, kind, source, target)

    def _add_parent(self, builder: c2pa.Builder) -> None:
        parent = {"title": os.path.basename(self._template), "relationship": "parentOf"}
        with open(self._template, "rb") as file:
            try:
                builder.add_ingredient(parent, self._parent_format, file)
            except c2pa.C2paError:  # FFmpeg plays files that C2PA's stricter library cannot parse
                file.seek(0)
                builder.add_ingredient(parent, _OPAQUE, file)


def _format_of(path: str) -> str:
    suffix = os.path.splitext(path)[1].lower()
    known = suffix[1:] in c2pa.Builder.get_supported_mime_types()
    return FORMATS.get(suffix, suffix[1:]) if known else _OPAQUE


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except c2pa.C2paError as error:
        raise UserError(
            f"{what} ({files.one_line(error)}); docs/provenance.md lists what C2PA asks of a "
            "certificate"
        ) from error
