from pathlib import Path

import pytest

from configs import demo_64, demo_128
from talkjax import configuration
from talkjax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]


def test_a_file_with_an_argument_and_overrides():
    path = f"{ROOT}/configs/demo_128.py:landmark"
    config = configuration.load(path, ["--config.optimizer.learning_rate=1", "--config.seed=7"])
    assert (config.stage, config.seed, config.optimizer.learning_rate) == ("landmark", 7, 1.0)
    again = configuration.load(path)
    assert again.seed == 0  # nothing is left of the first


@pytest.mark.parametrize(
    ("path", "override", "words"),
    [
        ("configs/demo_128.py", "--config.lerning_rate=1", "lerning_rate"),
        ("configs/demo_128.py", "--config.optimizer.learning_rat=1", "learning_rat"),
        ("configs/demo_128.py", "--config.steps=many", "steps"),
        ("configs/demo_128.py", "stray", "unexpected argument 'stray'"),
        ("configs/demo_128.py:dance", "--config.steps=1", "not 'dance'"),
        ("configs/none.py", "--config.steps=1", "none.py"),
    ],
)
def test_mistakes(path, override, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=words) as caught:
        configuration.load(path, [override])
    assert "\n" not in str(caught.value)


def test_an_installed_config_is_found_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo_64.py").write_text((ROOT / "configs/demo_64.py").read_text())
    monkeypatch.setattr(configuration, "__file__", str(tmp_path / "configuration.py"))
    monkeypatch.chdir(tmp_path / "configs")
    assert configuration.load("elsewhere/demo_64.py:joint").stage == "joint"


def test_an_earlier_versions_config_is_completed():
    old = demo_128.get_config("joint").to_dict()
    del old["denoiser"]["remat"], old["max_skipped_in_a_row"], old["mesh"]
    old["denoiser"].pop("skip_after_attention", None)
    old["data"]["no_longer_known"] = 5
    completed = configuration.with_defaults(old)
    default = configuration.default_config()
    assert completed["denoiser"]["remat"] == default.denoiser.remat
    assert completed["mesh"]["fsdp"] == 1
    assert completed["crop_size"] == 128 and completed["data"]["no_longer_known"] == 5
    assert not completed["denoiser"].get("skip_after_attention")


def test_stages_have_their_own_budgets():
    assert demo_64.get_config("joint").steps == demo_64.BUDGETS["joint"][0]
    with pytest.raises(ValueError, match="autoencoder, landmark, diffusion, joint"):
        demo_64.get_config("sync")
