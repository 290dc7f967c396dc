"""The command line of the page."""

import socket

import pytest

from talkjax import commands
from talkjax.errors import UserError
from talkjax.web import command, server


def test_defaults_are_those_of_the_limits():
    given = vars(command.make_parser().parse_args([]))
    assert given["host"] == "127.0.0.1" and given["port"] == 7860
    from talkjax.web.limits import Limits

    for name in ("upload_mb", "storage_mb", "speech_seconds", "template_seconds", "megapixels"):
        assert given[f"max_{name}"] == getattr(Limits(), name)
    assert (given["max_waiting"], given["max_live_minutes"]) == (8, 10)
    assert given["keep_minutes"] == 30


def test_without_gradio(monkeypatch, capsys):
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(command.media, "check_packages", lambda: None)
    assert commands.run_main(command.main, []) == 2
    line = "error: the page needs gradio and wsproto; run `pip install 'talkjax[web]'` or"
    assert capsys.readouterr().err.startswith(line)


@pytest.mark.parametrize(
    "flag", ["--port=99999", "--max_upload_mb=0", "--share", "--max_waiting=-1"]
)
def test_mistakes(flag):
    with pytest.raises(UserError, match="talkjax-web --help"):
        command.make_parser().parse_args([flag])


def test_an_address_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port={port} cannot be used .*give another one"):
            server.listen("127.0.0.1", port)
    with pytest.raises(UserError, match=r"--host=no\.such\.host\.invalid"):
        server.listen("no.such.host.invalid", 0)
