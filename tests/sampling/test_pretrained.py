"""Finding a checkpoint: bundled, in a folder, or in a (fake) Hugging Face repository."""

import sys
import types

import pytest
from etils.epath import testing

from talkjax import runs
from talkjax.errors import UserError
from talkjax.sampling import Sampler, bundled, pretrained
from tests.sampling import fakes


def use_hub(monkeypatch, download):
    """Installs a module `huggingface_hub` whose `snapshot_download` is `download`."""
    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


def fails(name, pattern, **options):
    with pytest.raises(UserError, match=pattern) as caught:
        pretrained.find_checkpoint(name, **options)
    assert "\n" not in str(caught.value)


def test_bundled(monkeypatch, tmp_path):
    monkeypatch.setattr(bundled, "checkpoint", lambda: tmp_path)
    assert pretrained.find_checkpoint() == tmp_path


def test_folder(monkeypatch, tmp_path):
    use_hub(monkeypatch, None)
    assert pretrained.find_checkpoint(str(tmp_path)) == tmp_path
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # a folder takes precedence over a repository
    assert str(pretrained.find_checkpoint("owner/name")) == "owner/name"


def test_bucket(monkeypatch):
    use_hub(monkeypatch, None)
    config = fakes.tiny_config()
    paths = []

    def load_weights(path):
        paths.append(str(path))
        return fakes.random_params(config), config, []

    monkeypatch.setattr(runs, "load_weights", load_weights)
    with testing.mock_epath(isdir=lambda _, path: str(path) == "gs://bucket/model"):
        Sampler.from_pretrained("gs://bucket/model")
        fails("gs://bucket/other", "gs://bucket/other: is not a directory")
    assert paths == ["gs://bucket/model"]


def test_address_that_is_not_a_bucket(monkeypatch):
    use_hub(monkeypatch, None)
    fails("https://example.com/model", "example.com/model: cannot be opened")


def test_bucket_whose_package_is_missing():
    def isdir(_, path):
        raise ImportError("Please install gcsfs to access Google Storage")

    with testing.mock_epath(isdir=isdir):
        fails("gs://bucket/model", "cannot be opened .*gcsfs")


@pytest.mark.parametrize("name", ["nothing", "/no/such/folder", "../up/down", "a/b/c", "-x/y", ""])
def test_neither_a_folder_nor_a_repository(monkeypatch, name):
    use_hub(monkeypatch, None)  # must not be called
    fails(name, "not a directory; .*Hugging Face")


def test_path_objects_are_folders(monkeypatch, tmp_path):
    use_hub(monkeypatch, None)
    fails(tmp_path.relative_to(tmp_path.parent) / "name", "not a directory")


def test_repository(monkeypatch, checkpoint):
    calls = []

    def download(repository, *, revision, allow_patterns):
        calls.append((repository, revision, sorted(allow_patterns)))
        return str(checkpoint)

    use_hub(monkeypatch, download)
    sampler = Sampler.from_pretrained("owner/name", revision="v1")
    assert calls == [("owner/name", "v1", ["config.json", "model.safetensors"])]
    assert sampler.networks.crop_size == fakes.tiny_config()["crop_size"]


def test_without_the_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    fails("owner/name", r"owner/name.*pip install talkjax\[hub\]")


def test_failing_download(monkeypatch):
    def download(*args, **kwargs):
        raise ConnectionError("404 Client Error\nRepository Not Found")

    use_hub(monkeypatch, download)
    fails("owner/name", "cannot download owner/name .*404 Client Error Repository Not Found")


def test_repository_without_weights(monkeypatch, tmp_path):
    (tmp_path / "config.json").touch()
    use_hub(monkeypatch, lambda *args, **kwargs: str(tmp_path))
    fails("owner/name", "lacks model.safetensors")
