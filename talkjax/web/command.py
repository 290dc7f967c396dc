"""Opens a page on which a video or photograph of a person is made to speak.

    talkjax-web
    talkjax-web --checkpoint=DIR --port=7861

The page takes a template and speech, which can be recorded in the browser, and shows the result
beside the template, with its contact sheet and settings. A second tab answers live to a microphone.
Only this computer can reach it, unless --host says otherwise. One visitor is served at a time, and
the others wait. Uploads and results are in a temporary folder and are removed when their visitor
closes the page; nothing is sent anywhere. To stop the server, press Ctrl+C.
"""

import importlib.util
from collections.abc import Sequence
from typing import NoReturn

from talkjax import commands, media
from talkjax.errors import UserError

_PACKAGES = ("gradio", "wsproto")


def make_parser() -> commands.Parser:
    """Creates the parser of the command line."""
    parser = commands.Parser(__doc__, prog="talkjax-web")
    add = parser.add_argument
    number = commands.bounded
    # fmt: off
    add("--host", default="127.0.0.1", metavar="ADDRESS",
        help="network address to listen at; 0.0.0.0 lets everybody in the network use the page, "
        "without a password (default: %(default)s)")
    add("--port", type=number(int, 0, 65535), default=7860, metavar="N",
        help="port to listen at; 0 takes any free one (default: %(default)s)")
    add("--checkpoint", metavar="DIR",
        help="folder of exported weights, directory of a training run, or id (owner/name) of a "
        "Hugging Face repository (default: the bundled checkpoint)")
    add("--max_upload_mb", type=number(float, 1, 100_000), default=500.0, metavar="X",
        help="largest file that can be uploaded, in MB (default: %(default)g)")
    add("--max_storage_mb", type=number(float, 1), default=5000.0, metavar="X",
        help="how much all files of all visitors may take, in MB (default: %(default)g)")
    add("--max_speech_seconds", type=number(float, 1, 14_400), default=120.0, metavar="X",
        help="longest speech (default: %(default)g)")
    add("--max_template_seconds", type=number(float, 1, 14_400), default=600.0, metavar="X",
        help="longest template (default: %(default)g)")
    add("--max_megapixels", type=number(float, 0.01, 64), default=9.0, metavar="X",
        help="largest picture of a template; 9 is 4K (default: %(default)g)")
    add("--max_waiting", type=number(int, 0, 30), default=8, metavar="N",
        help="how many visitors can wait while one is served (default: %(default)s)")
    add("--max_live_minutes", type=number(float, 0.1, 600), default=10.0, metavar="X",
        help="longest live session (default: %(default)g)")
    add("--keep_minutes", type=number(float, 1, 1440), default=30.0, metavar="X",
        help="after how long without use a visitor's files are removed, also while the page is "
        "open (default: %(default)g)")
    add("--no_compilation_cache", action="store_true", help="compile again in every run")
    # fmt: on
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command; `argv` does not include the program's name."""
    given = make_parser().parse_args(argv)
    media.check_packages()
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"the page needs {' and '.join(missing)}; run `pip install 'talkjax[web]'` or "
            "`uv run --extra web talkjax-web`"
        )
    from talkjax.web.limits import Limits

    limits = Limits(
        upload_mb=given.max_upload_mb,
        storage_mb=given.max_storage_mb,
        speech_seconds=given.max_speech_seconds,
        template_seconds=given.max_template_seconds,
        megapixels=given.max_megapixels,
        waiting=given.max_waiting,
        live_minutes=given.max_live_minutes,
        keep_minutes=given.keep_minutes,
    )
    from talkjax.web import server

    server.serve(given.checkpoint, limits, given.host, given.port, not given.no_compilation_cache)


def run() -> NoReturn:
    """Runs the command on the arguments of the program."""
    commands.run(main)


if __name__ == "__main__":
    run()
