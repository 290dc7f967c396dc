"""Prints what made a file, from its C2PA Content Credentials, or makes a certificate for trials.

    talkjax-provenance --file=out.mp4 [--trust_anchors=anchor.pem] [--json]
    talkjax-provenance --trial_certificate=DIR

The first form prints who signed the file, whether it was changed since, what was done and to which
file. The second writes certificate.pem, key.pem and anchor.pem to DIR; sign with
`sample.py --c2pa_certificate=DIR/certificate.pem --c2pa_key=DIR/key.pem`.
"""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from talkjax import commands, files, provenance
from talkjax.errors import UserError

INVALID = 3  # exit code
_EPILOG = """Nothing is downloaded: without --trust_anchors, no certificate is trusted.

Exit codes: 0 the file is as it was signed; 2 a flag or file cannot be used, or there are no
Content Credentials; 3 the signature is wrong, or the file was changed since.
"""


def make_parser() -> commands.Parser:
    """Returns the parser of the command line."""
    parser = commands.Parser(__doc__, prog="talkjax-provenance", epilog=_EPILOG)
    parser.add_argument("--file", metavar="FILE", help="video or picture to read")
    parser.add_argument(
        "--trust_anchors", metavar="PEM", help="certificates that you trust, as a PEM file"
    )
    parser.add_argument(
        "--json", action="store_true", help="print everything, as C2PA's library does"
    )
    parser.add_argument(
        "--trial_certificate",
        metavar="DIR",
        help="write a certificate for trials and its private key to this folder",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs the command line `argv`, without the program's name; returns the exit code."""
    given = make_parser().parse_args(argv)
    with commands.flags_in_errors(vars(given)):
        return _work(given)


def _work(given: argparse.Namespace) -> int:
    if bool(given.file) == bool(given.trial_certificate):
        raise UserError("give either --file=FILE or --trial_certificate=DIR")
    provenance.check_packages()
    if given.trial_certificate:
        from talkjax.provenance import trial

        trial.make(given.trial_certificate)
        print(
            f"wrote {trial.CERTIFICATE}, {trial.KEY} (keep it secret) and {trial.ANCHOR} to "
            f"{given.trial_certificate}; only whoever is given {trial.ANCHOR} can trust it"
        )
        return 0
    from talkjax.provenance import manifest

    found = manifest.read(given.file, given.trust_anchors)
    if found is None:
        raise UserError(
            f"{given.file}: has no Content Credentials; it was never signed, or "
            "converting it removed them"
        )
    print(files.json_text(found.store) if given.json else found.text())
    return INVALID if found.state == "Invalid" else 0


def run() -> NoReturn:
    """Runs the command; the entry point of `talkjax-provenance`."""
    commands.run(main)


if __name__ == "__main__":
    run()
