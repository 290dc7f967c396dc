"""Who may train in a workdir."""

import os

import pytest

from talkjax import files
from talkjax.errors import UserError
from talkjax.training import loop
from tests.training import toy


def test_two_processes_do_not_train_in_one_workdir(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_PATIENCE", 0.2)
    run, config = tmp_path / "run", toy.config(steps=2)
    in_use = pytest.raises(UserError, match=r"run is in use by another process; .*--workdir")
    with files.held(run, "wait"), in_use:
        loop.train(config, run, toy.stage(), toy.make_data(config))
    assert os.listdir(run) == [files.LOCK]
