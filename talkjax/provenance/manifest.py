"""Reading Content Credentials: what made a file, who says so, and whether it was changed since."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import c2pa

from talkjax import files
from talkjax.errors import UserError
from talkjax.provenance import settings

_STATES = {
    "Trusted": "valid, and the certificate is trusted",
    "Valid": "the file is as it was signed, but nobody whom you trust vouches for the certificate",
    "Invalid": "INVALID: the file was changed after it was signed, or its signature is wrong",
}


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The newest manifest of a file.

    Attributes:
      state: "Trusted", "Valid" (unchanged, but signed by somebody unknown) or "Invalid".
      problems: C2PA's codes of what is wrong, such as "assertion.bmffHash.mismatch".
      generator: Name and version of the program that made the file.
      signer: Name of the certificate.
      issuer: Organisation that the certificate names.
      signed_at: Time of a time-stamp authority, or None.
      actions: What was done: dictionaries as the manifest has them.
      parents: Titles of the files that were edited.
      store: All of the file's manifests, as C2PA's library prints them.
    """

    state: str
    problems: tuple[str, ...]
    generator: str
    signer: str
    issuer: str
    signed_at: str | None
    actions: tuple[dict[str, Any], ...]
    parents: tuple[str, ...]
    store: dict[str, Any]

    def text(self) -> str:
        """Describes it in a few lines; nothing in the file can forge one of them."""
        lines = [f"made by: {self.generator}", f"signed by: {self.signer} ({self.issuer})"]
        if self.signed_at:
            lines.append(f"time stamp: {self.signed_at}")
        lines.append(f"signature: {_STATES.get(self.state, self.state)}")
        if self.problems:
            lines.append(f"problems: {', '.join(self.problems)}")
        lines += [f"made from: {title}" for title in self.parents]
        for action in self.actions:
            parts = [str(action.get("action"))]
            if source := action.get("digitalSourceType"):
                parts.append(str(source).rpartition("/")[2])
            if checkpoint := (action.get("parameters") or {}).get("checkpoint"):
                parts.append(f"checkpoint {checkpoint}")
            if description := action.get("description"):
                parts.append(str(description))
            lines.append(f"action: {'; '.join(parts)}")
        return "\n".join(_printable(line) for line in lines)


def read(path: files.PathLike, trust_anchors: files.PathLike | None = None) -> Manifest | None:
    """Reads and checks a file's manifest; returns None if it has none.

    Args:
      path: The file.
      trust_anchors: PEM file of certificates that are trusted. Nothing is downloaded, so without
        it no signature is trusted.

    Raises:
      UserError: A file cannot be read, or C2PA does not know its format.
    """
    name = os.fsdecode(path)
    given = settings.make(None if trust_anchors is None else _read_text(trust_anchors))
    suffix = os.path.splitext(name)[1].lower()[1:]
    try:
        with open(path, "rb") as file, c2pa.Context.from_dict(given) as context:
            reader = c2pa.Reader.try_create(suffix, file, context=context)
            if reader is None:
                return None
            with reader:
                return _describe(json.loads(reader.json()))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{name}: its Content Credentials are malformed ({files.one_line(error)}); do not "
            "rely on them"
        ) from error
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror}); check the path") from error
    except c2pa.C2paError as error:
        raise UserError(
            f"{name}: its Content Credentials cannot be read ({files.one_line(error)}); give a "
            "complete file of a format that C2PA supports"
        ) from error


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def _read_text(path: files.PathLike) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise UserError(
            f"trust_anchors={os.fspath(path)}: cannot be read; give a PEM file"
        ) from error


def _describe(store: dict[str, Any]) -> Manifest:
    manifest = store["manifests"][store["active_manifest"]]
    failures = store.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    generators = manifest.get("claim_generator_info") or [{}]
    signature = manifest.get("signature_info") or {}
    actions = [
        action
        for assertion in manifest.get("assertions", [])
        if assertion.get("label", "").startswith("c2pa.actions")
        for action in assertion["data"]["actions"]
    ]
    return Manifest(
        state=store.get("validation_state", "Invalid"),
        problems=tuple(failure["code"] for failure in failures),
        generator=" ".join(str(generators[0].get(k) or "") for k in ("name", "version")).strip(),
        signer=signature.get("common_name") or "unknown",
        issuer=signature.get("issuer") or "unknown",
        signed_at=signature.get("time"),
        actions=tuple(actions),
        parents=tuple(
            each.get("title") or "unnamed"
            for each in manifest.get("ingredients", [])
            if each.get("relationship") == "parentOf"
        ),
        store=store,
    )
