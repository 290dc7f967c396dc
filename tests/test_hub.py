"""Uploading to, and downloading from, a Hugging Face Hub that runs in the test."""

import re
import sys
import types

import pytest

from talkjax import commands, export, hub
from talkjax.errors import UserError
from talkjax.sampling import pretrained
from tests.fake_hub import FakeHub
from tests.sampling import fakes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return fakes.save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """The library sends everything to it, as HF_ENDPOINT would make it do from its start."""
    constants = pytest.importorskip(
        "huggingface_hub.constants", reason="needs `pip install talkjax[hub]`"
    )
    made = FakeHub()
    monkeypatch.setattr(constants, "ENDPOINT", made.url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        made.url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield made
    made.close()


def run(capsys, *arguments):
    code = commands.run_main(export.main, [str(each) for each in arguments])
    captured = capsys.readouterr()
    return code, captured.out, [x for x in captured.err.splitlines() if x.startswith("error")]


def test_round_trip(fake, checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    code, printed, _ = run(
        capsys, f"--run={checkpoint}", f"--out={out}", "--push=owner/name", "--license=cc-by-4.0"
    )
    assert code == 0 and f"uploaded {fake.url}/owner/name/commit/" in printed
    assert fake.private is True and "Bearer hf_secret" in fake.tokens
    assert set(fake.files) == {"README.md", "config.json", "model.safetensors"}
    header = fake.files["README.md"].decode().split("---\n")[1].splitlines()
    assert header[:3] == [
        "license: cc-by-4.0",
        "library_name: talkjax",
        "pipeline_tag: video-to-video",
    ]
    assert "- lip-sync" in header
    found = pretrained.find_checkpoint("owner/name")
    for name in ("config.json", "model.safetensors"):
        assert (found / name).read_bytes() == (out / name).read_bytes()


def test_a_card_of_ones_own_and_a_public_repository(fake, checkpoint, tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "notes.txt").write_text("stays here")
    flags = f"--run={checkpoint}", f"--out={tmp_path}", "--push=owner/name", "--public"
    assert run(capsys, *flags)[0] == 0
    assert fake.private is False and fake.files["README.md"] == b"mine"
    assert "notes.txt" not in fake.files


@pytest.mark.parametrize("fail", ["403", "drop"])
def test_a_hub_that_refuses(fake, checkpoint, tmp_path, capsys, fail):
    fake.fail = fail
    code, _, errors = run(capsys, f"--run={checkpoint}", f"--out={tmp_path}", "--push=owner/name")
    assert code == 2 and len(errors) == 1
    assert errors[0].startswith("error: cannot upload to owner/name on Hugging Face (")
    assert re.search("403" if fail == "403" else "disconnected|onnection", errors[0]), errors
    assert (tmp_path / "model.safetensors").exists() and "hf_secret" not in errors[0]
    with pytest.raises(UserError, match="cannot download owner/name from Hugging Face"):
        pretrained.find_checkpoint("owner/name")


def test_without_a_token(fake, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    out = tmp_path / "out"
    code, _, errors = run(capsys, f"--run={checkpoint}", f"--out={out}", "--push=owner/name")
    assert code == 2 and "needs a token" in errors[0]
    assert not out.exists() and not fake.tokens  # said before anything is done


def test_flags_that_need_push(checkpoint, tmp_path, capsys):
    for flag in ("--public", "--license=mit"):
        code, _, errors = run(capsys, f"--run={checkpoint}", f"--out={tmp_path / 'o'}", flag)
        assert code == 2 and "for --push" in errors[0] and not (tmp_path / "o").exists()


def test_what_is_refused_at_once(monkeypatch):
    module = types.ModuleType("huggingface_hub")
    module.get_token = lambda: "hf_secret"
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    for name in ("name", "a/b/c", "-a/b", "../b", "https://huggingface.co/a/b", ""):
        with pytest.raises(UserError, match="give owner/name"):
            hub.check(name)
    with pytest.raises(UserError, match="not a licence"):
        hub.check("owner/name", "my: licence\n")
    hub.check("owner/name")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install talkjax\[hub\]"):
        hub.check("owner/name")


def test_the_card_names_what_was_trained():
    config = {"crop_size": 64, "networks": {"landmark": {"stage": "landmark", "steps": 7}}}
    assert "| landmark | landmark | 7 |" in hub.card("owner/name", config, "other")
