"""Content Credentials: who signed what, and what is refused before anything is generated."""

import dataclasses
import datetime
import os
import stat
import sys

import pytest

import talkjax
from talkjax import commands
from talkjax.errors import UserError
from talkjax.sampling import label
from tests.sampling import fakes

pytest.importorskip("c2pa", reason="needs `pip install talkjax[provenance]`")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from talkjax.provenance import command, credentials, manifest, trial

DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A certificate for trials and its key."""
    folder = tmp_path_factory.mktemp("trial")
    assert commands.run_main(command.main, [f"--trial_certificate={folder}"]) == 0
    return folder / trial.CERTIFICATE, folder / trial.KEY


@pytest.fixture(scope="module")
def settings(options, pair):
    return dataclasses.replace(
        options, steps=0, lossless=False, c2pa_certificate=pair[0], c2pa_key=pair[1]
    )


@pytest.fixture(scope="module")
def signed(sampler, settings, template, tmp_path_factory):
    out = tmp_path_factory.mktemp("signed") / "o.mp4"
    return out, generate(sampler, settings, template, out)


def generate(sampler, settings, template, out):
    speech = fakes.make_speech(out.with_suffix(".wav"), 0.12)
    return sampler.generate(
        video=template, audio=speech, out=out, options=settings, detector=fakes.ScriptedMesh()
    )


def test_what_the_manifest_says(signed, sampler, pair):
    out, summary = signed
    found = manifest.read(out, pair[0].with_name(trial.ANCHOR))
    assert found.state == "Trusted" and not found.problems
    assert manifest.read(out).state == "Valid"  # unchanged, by somebody unknown
    assert found.generator == f"talkjax {talkjax.__version__}"
    assert found.signer == "talkjax trial certificate" and found.parents == ("face.mp4",)
    opened, edited = found.actions
    assert opened["action"] == "c2pa.opened" and edited["action"] == "c2pa.edited"
    assert edited["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert edited["parameters"]["checkpoint"] == sampler.fingerprint
    assert any("talkjax trial certificate" in note for note in summary.notes)
    assert {path.name for path in out.parent.iterdir()} == {"o.mp4", "o.wav"}


@pytest.mark.parametrize("suffix", ["mov", "m4v"])
def test_other_containers(sampler, settings, template, tmp_path, suffix):
    out = tmp_path / f"o.{suffix}"
    generate(sampler, settings, template, out)
    assert manifest.read(out).state == "Valid"


def test_the_history_of_a_signed_template_is_kept(sampler, settings, signed, tmp_path):
    out = tmp_path / "second.mp4"
    generate(sampler, settings, signed[0], out)
    found = manifest.read(out)
    assert found.state == "Valid" and len(found.store["manifests"]) == 2


def test_a_changed_file(signed, tmp_path, capsys):
    content = bytearray(signed[0].read_bytes())
    content[content.index(b"mdat") + 40] ^= 1
    path = tmp_path / "changed.mp4"
    path.write_bytes(content)
    assert manifest.read(path).problems[-1] == "assertion.bmffHash.mismatch"
    assert commands.run_main(command.main, [f"--file={path}"]) == command.INVALID
    assert "INVALID" in capsys.readouterr().out


def test_the_command(signed, template, tmp_path, capsys):
    assert commands.run_main(command.main, [f"--file={signed[0]}"]) == 0
    out = capsys.readouterr().out
    assert "made by: talkjax" in out and "made from: face.mp4" in out
    assert commands.run_main(command.main, [f"--file={signed[0]}", "--json"]) == 0
    assert '"active_manifest"' in capsys.readouterr().out
    (tmp_path / "text.mp4").write_text("x")
    for arguments, message in (
        ([f"--file={template}"], "has no Content Credentials"),
        (["--file=nothing.mp4"], "cannot be read (No such file"),
        ([f"--file={tmp_path / 'text.mp4'}"], "cannot be read"),
        ([f"--file={signed[0]}", "--trust_anchors=nothing.pem"], "trust_anchors"),
        ([], "give either"),
    ):
        assert commands.run_main(command.main, arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_the_key_is_private(pair, capsys):
    before = os.umask(0)
    try:
        folder = pair[1].parent / "open"
        trial.make(folder)
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / trial.KEY).stat().st_mode) == 0o600
    assert commands.run_main(command.main, [f"--trial_certificate={folder}"]) == 2
    assert "exists; give another folder" in capsys.readouterr().err


# ---- what is refused -----------------------------------------------------------------------------


def issue(folder, name, *, first=-DAY, last=DAY, key=None):
    """Writes a certificate that signs itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now + first)
        .not_valid_after(now + last)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return paths


def refused(sampler, settings, template, out, **changes):
    """The error of a run, which must end before a frame is made and leave nothing."""
    seen = []
    speech = fakes.make_speech(out.with_suffix(".wav"), 0.12)
    with pytest.raises(UserError) as caught:
        sampler.generate(
            video=template, audio=speech, out=out,
            options=dataclasses.replace(settings, **changes),
            detector=fakes.ScriptedMesh(), callback=lambda *frame: seen.append(frame),
        )  # fmt: skip
    message = str(caught.value)
    assert "\n" not in message and not seen and not out.exists()
    return message


def test_certificates_that_cannot_be_used(sampler, settings, template, tmp_path, pair):
    def error(certificate, key, **more):
        return refused(
            sampler, settings, template, tmp_path / "o.mp4",
            c2pa_certificate=certificate, c2pa_key=key, **more,
        )  # fmt: skip

    expired = issue(tmp_path, "expired", first=-2 * DAY, last=-DAY)
    future = issue(tmp_path, "future", first=DAY, last=2 * DAY)
    own = issue(tmp_path, "own")
    weak = issue(tmp_path, "weak", key=rsa.generate_private_key(65537, 1024))
    text = tmp_path / "text.pem"
    text.write_text("hello")
    assert "expired on" in error(*expired)
    assert "is valid from" in error(*future)
    assert "is not the key of" in error(pair[0], own[1])
    assert "cannot sign" in error(*own)  # C2PA wants an issuer and a purpose
    assert "cannot sign" in error(*weak)
    assert "holds no certificate" in error(text, pair[1])
    assert "holds no private key" in error(pair[0], text)
    assert "cannot be read (No such file" in error(tmp_path / "none.pem", pair[1])
    assert "cannot be read (Is a directory" in error(pair[0], tmp_path)
    assert "give c2pa_key=FILE" in error(pair[0], None)
    assert "give c2pa_certificate=FILE" in error(None, pair[1])
    assert "is not an address" in error(*pair, c2pa_timestamp_url="ftp://x")
    # Nobody answers at port 1.
    assert "cannot sign" in error(*pair, c2pa_timestamp_url="http://127.0.0.1:1")


@pytest.mark.parametrize("purpose", ["1.3.6.1.4.1.62558.2.1", "1.3.6.1.5.5.7.3.36"])
def test_other_purposes_of_certificates(settings, template, tmp_path, monkeypatch, purpose):
    """Certificates of C2PA's own programme and for documents, which the library needs told."""
    monkeypatch.setattr(trial, "_PURPOSE", x509.ObjectIdentifier(purpose))
    trial.make(tmp_path)
    out = tmp_path / "o.mp4"
    out.write_bytes(template.read_bytes())
    paths = {"c2pa_certificate": tmp_path / trial.CERTIFICATE, "c2pa_key": tmp_path / trial.KEY}
    changed = dataclasses.replace(settings, **paths)
    label.open_signature(changed, out, template).sign(str(out), "0" * 16)
    assert manifest.read(out, tmp_path / trial.ANCHOR).state == "Trusted"


def test_a_key_with_a_passphrase(pair, tmp_path):
    key = serialization.load_pem_private_key(pair[1].read_bytes(), None)
    path = tmp_path / "locked.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(UserError, match="passphrase"):
        credentials.load(pair[0], path)


def test_matroska_is_refused(sampler, settings, template, tmp_path):
    message = refused(sampler, settings, template, tmp_path / "o.mkv")
    assert "C2PA cannot sign .mkv" in message


def test_without_the_packages(monkeypatch, sampler, settings, template, tmp_path):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    message = refused(sampler, settings, template, tmp_path / "o.mp4")
    assert "need c2pa; run `pip install talkjax[provenance]`" in message


def test_a_name_that_looks_like_a_line(settings, template, tmp_path):
    odd = tmp_path / "a\nsignature: valid \x1b[2J.mp4"
    odd.write_bytes(template.read_bytes())
    out = tmp_path / "o.mp4"
    out.write_bytes(template.read_bytes())
    label.open_signature(settings, out, odd).sign(str(out), "0" * 16)
    text = manifest.read(out).text()
    assert "made from: a\\nsignature: valid \\x1b[2J.mp4" in text.splitlines()


def test_the_key_is_not_shown(pair):
    assert "PRIVATE" not in repr(credentials.load(*pair))


def test_a_template_that_c2pa_cannot_parse(pair, settings, template, tmp_path):
    """FFmpeg reads it all the same; the manifest then has its name alone."""
    odd = tmp_path / "odd.mp4"
    odd.write_bytes(b"\0" * 100)
    out = tmp_path / "o.mp4"
    out.write_bytes(template.read_bytes())
    label.open_signature(settings, out, odd).sign(str(out), "0" * 16)
    assert manifest.read(out).parents == ("odd.mp4",)
