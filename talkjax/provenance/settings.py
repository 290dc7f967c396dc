"""Settings of C2PA's library for signing and reading alike."""

from __future__ import annotations

from typing import Any

# Purposes of certificates that may sign: C2PA's own, document signing and e-mail protection. The
# library accepts only the last of them by default.
_PURPOSES = ("1.3.6.1.4.1.62558.2.1", "1.3.6.1.5.5.7.3.36", "1.3.6.1.5.5.7.3.4")


def make(trust_anchors: str | None = None) -> dict[str, Any]:
    """Returns settings for `c2pa.Context.from_dict`.

    Nothing is fetched: the address of a remote manifest is the choice of whoever made the file.

    Args:
      trust_anchors: PEM of the certificates that are trusted.
    """
    trust = {"trust_config": "\n".join(_PURPOSES)}
    if trust_anchors is not None:
        trust["user_anchors"] = trust_anchors
    return {
        "trust": trust,
        "verify": {"verify_after_sign": True, "remote_manifest_fetch": False, "ocsp_fetch": False},
        "builder": {"thumbnail": {"enabled": False}},
    }
