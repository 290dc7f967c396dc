import importlib

import pytest

from talkjax import prepare


def test_a_missing_package_is_one_line_that_names_the_extra(monkeypatch, capsys):
    def missing(name):
        raise ModuleNotFoundError("No module named 'av'", name="av")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SystemExit) as end:
        prepare.run()
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error == "error: preparation needs av; run `pip install 'talkjax[data]'`\n"
