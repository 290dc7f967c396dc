"""The parts of the page that are plain HTML, as pure functions of what they show."""

from __future__ import annotations

import html
from pathlib import Path
from urllib.parse import quote

from talkjax.web.jobs import Result
from talkjax.web.limits import Limits
from talkjax.web.turns import Progress

LIVE = """<div class="tj-live">
<canvas id="tj-canvas" width="512" height="512"></canvas>
<div class="tj-row">
<button id="tj-start" class="tj-button tj-primary">Start</button>
<button id="tj-stop" class="tj-button" disabled>Stop</button>
<label><input type="checkbox" id="tj-sound" checked> sound (use headphones)</label>
<label>microphone <meter id="tj-level" min="0" max="1" value="0"></meter></label>
</div>
<p id="tj-live-status" class="tj-status" role="status">Prepare a person first.</p>
</div>"""


def header(limits: Limits) -> str:
    """Returns the head of the page, which holds the line about files that are too large."""
    return f"""<header class="tj-head"><h1>talkjax</h1>
<p>Make the person of a video or photograph say what you record, upload or type.</p>
<p id="tj-refused" class="tj-status tj-error" role="alert" hidden
data-most-mb="{limits.upload_mb:g}"></p></header>"""


def notice(limits: Limits) -> str:
    """Returns the lines on consent and on what becomes of the files."""
    return (
        '<footer class="tj-foot">Make people speak only with their consent, and label the result '
        "as synthetic. Files stay on the server of this page: they are removed when you close or "
        f"reload the page, and after {limits.keep_minutes:g} minutes without use. Limits: "
        f"{limits.upload_mb:g} MB a file, {limits.speech_seconds:g} s of speech, templates of "
        f"{limits.template_seconds:g} s and {limits.megapixels:g} megapixels.</footer>"
    )


def note(text: str) -> str:
    """Returns a line of information."""
    return f'<p class="tj-status" role="status">{html.escape(text)}</p>' if text else ""


def error(text: str) -> str:
    """Returns a line that says what is wrong and what to do."""
    return f'<p class="tj-status tj-error" role="alert">{html.escape(text)}</p>'


def progress(shown: Progress) -> str:
    """Returns a progress bar with its text."""
    value = "" if shown.share is None else f' value="{shown.share:.3f}"'
    return (
        f'<div class="tj-status" role="status"><progress max="1"{value}></progress>'
        f"<span>{html.escape(shown.text)}</span></div>"
    )


def file_url(path: Path) -> str:
    """Returns the address of a file, relative to the page."""
    return f"gradio_api/file={quote(str(path))}"


def result(shown: Result) -> str:
    """Returns the result beside its template, the contact sheet, downloads and settings."""
    template, video = file_url(shown.template), file_url(shown.video)
    before = (
        f'<img src="{template}" alt="the template">'
        if shown.photograph
        else f'<video src="{template}" controls muted loop playsinline preload="auto"></video>'
    )
    files = [("Video", shown.video), ("Settings", shown.settings)]
    sheet = ""
    if shown.sheet is not None:
        files.insert(1, ("Contact sheet", shown.sheet))
        address = file_url(shown.sheet)
        sheet = (
            f'<a href="{address}" target="_blank"><img class="tj-sheet" src="{address}" '
            'alt="frames and mouths of template and result, sound and mouth opening"></a>'
        )
    links = "".join(
        f'<a class="tj-button" href="{file_url(path)}" download="{html.escape(path.name)}">'
        f"{name}<small>{_size(path)}</small></a>"
        for name, path in files
    )
    lines = "".join(f"<li>{html.escape(_sentence(line))}</li>" for line in shown.text.splitlines())
    return f"""<section class="tj-result">
<div class="tj-pair">
<figure>{before}<figcaption>Template</figcaption></figure>
<figure><video id="tj-video" src="{video}" controls playsinline preload="auto"></video>
<figcaption>Result</figcaption></figure>
</div>
<div class="tj-row"><button id="tj-both" class="tj-button tj-primary">Play both</button>
<span class="tj-label">Download</span>{links}</div>
{sheet}
<details open><summary>What made it</summary><ul>{lines}</ul>
<pre>{html.escape(shown.command)}</pre></details>
</section>"""


def live_token(token: str) -> str:
    """Returns the element in which the script of live sessions finds its avatar."""
    return f'<span id="tj-token" data-token="{html.escape(token)}" hidden></span>'


def download(name: str, path: Path) -> str:
    """Returns a button that downloads a file."""
    return (
        f'<div class="tj-row"><a class="tj-button" href="{file_url(path)}" '
        f'download="{html.escape(path.name)}">{html.escape(name)}<small>{_size(path)}</small></a>'
        "</div>"
    )


def _sentence(line: str) -> str:
    return line[:1].upper() + line[1:]


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{max(size / 1e3, 0.1):.1f} kB"
