import hashlib

import pytest

from talkjax.errors import UserError
from talkjax.metrics import weight_files


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net@home.safetensors"
    path.write_bytes(b"weights")
    return path, hashlib.sha256(b"weights").hexdigest()


def test_unknown_files_are_named_by_name_and_hash(file):
    path, digest = file
    found = weight_files.identify_weights(str(path), "fid")
    assert found == weight_files.WeightFile(path, digest, f"net@home.safetensors {digest[:8]}")


def test_a_pinned_hash_is_verified(file):
    path, digest = file
    for spec in (f"{path}@{digest}", f"{path}@{digest.upper()}"):
        assert weight_files.identify_weights(spec, "lpips").path == path
    with pytest.raises(UserError) as error:
        weight_files.identify_weights(f"{path}@{'0' * 64}", "lpips")
    assert digest in str(error.value) and "0" * 64 in str(error.value)
    with pytest.raises(UserError, match="'abc' is not a SHA-256"):
        weight_files.identify_weights(f"{path}@abc", "lpips")


def test_missing_files(tmp_path):
    for spec in (tmp_path / "none", tmp_path, f"{tmp_path / 'none'}@{'0' * 64}", "", "@", "x@y"):
        with pytest.raises(UserError, match=r"--sync_expert=.* not found; check the path"):
            weight_files.identify_weights(spec, "sync_expert")


def test_known_files_have_names_and_flags(file, monkeypatch):
    path, digest = file
    monkeypatch.setitem(weight_files.KNOWN, digest, ("A net", ("lpips", "fid")))
    assert weight_files.identify_weights(path, "fid").name == "A net"
    with pytest.raises(UserError, match="is A net; give it as --lpips or --fid"):
        weight_files.identify_weights(path, "face_embedding")


def test_real_files_are_known(shared_data):
    folder = shared_data / "weights"
    found = weight_files.identify_weights(folder / "lpips_squeeze.safetensors", "lpips")
    assert found.name == "LPIPS v0.1 SqueezeNet 1.1"
    found = weight_files.identify_weights(folder / "mobilefacenet.onnx", "face_embedding")
    assert found.name == "MobileFaceNet (ONNX)"
