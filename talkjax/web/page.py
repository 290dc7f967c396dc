"""The page: a thin layer of Gradio over `service.Service`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from talkjax.sampling import bundled
from talkjax.sampling.options import Options
from talkjax.web import html
from talkjax.web.controls import EVENT, Settings, SpeechInput, TemplateInput, follow, guard
from talkjax.web.jobs import Result
from talkjax.web.service import Service
from talkjax.web.turns import Work

EXAMPLES = bundled.ASSETS / "demo"
_READY = "The person is ready. Press Start and speak."


def make_theme() -> gr.themes.Base:
    """Returns a theme that loads nothing from other servers."""
    return gr.themes.Soft(
        primary_hue="indigo",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )


def make_page(service: Service) -> gr.Blocks:
    """Builds the page of a service."""
    with gr.Blocks(title="talkjax", analytics_enabled=False) as page:
        gr.HTML(html.header(service.limits))
        with gr.Row(elem_classes="tj-main"):
            with gr.Column(min_width=340):
                template = TemplateInput(service)
            with gr.Column(min_width=340), gr.Tabs():
                with gr.Tab("Make a video"):
                    result = _add_generation(service, template)
                with gr.Tab("Live", elem_id="live"):
                    _add_live(service, template)
        result.render()
        gr.HTML(html.notice(service.limits))

        def leave(request: gr.Request) -> None:
            service.leave(request.session_hash)

        page.unload(leave)
    page.queue(max_size=None, default_concurrency_limit=None)
    return page


def _add_generation(service: Service, template: TemplateInput) -> gr.HTML:
    """Adds speech, settings and the button; returns the component of the result, not rendered."""
    speech = SpeechInput(service)
    example = gr.Button("Try the bundled person and sentence", size="sm", elem_id="example")
    settings = Settings()
    with gr.Row():
        start = gr.Button("Generate", variant="primary", elem_id="generate")
        stop = gr.Button("Stop", interactive=False, elem_id="stop")
    status = gr.HTML(elem_id="status")
    result = gr.HTML(elem_id="result", render=False)

    def show_example() -> tuple[str, str]:
        return str(bundled.template()), str(bundled.speech())

    example.click(show_example, None, [template.video, speech.audio], **EVENT)

    def generate(
        choice: str,
        point: str,
        steps: int,
        seed: float | None,
        mode: str,
        keep: bool,
        learn: bool,
        request: gr.Request,
    ) -> Iterator[tuple]:
        def begin() -> Work:
            face = template.face_of(choice, point)
            options = settings.options(face, steps, seed, mode, keep, learn)
            return service.generate(request.session_hash, options)

        def show(made: Result) -> tuple[str, str]:
            text = f"Done: {made.generated} frames have a new mouth. The result is below."
            return html.note(text), html.result(made)

        yield from follow(service, begin, show, others=1)

    for changed in (template.video, speech.audio):  # what was wrong may be right now
        changed.change(lambda: "", None, [status], **EVENT)
    start.click(
        generate, [template.face, template.point, *settings.components],
        [start, stop, status, result], **EVENT,
    )  # fmt: skip
    stop.click(_stop(service), **EVENT)
    return result


def _add_live(service: Service, template: TemplateInput) -> None:
    """Adds live sessions; page.js holds them."""
    gr.HTML(
        "<p>The person speaks with you: what your microphone hears is said a moment later. "
        "Prepare the template on the left once, or open an avatar file that was prepared "
        "before.</p>"
    )
    with gr.Row():
        start = gr.Button("Prepare the template", variant="primary", elem_id="prepare")
        stop = gr.Button("Stop", interactive=False, elem_id="prepare-stop")
    avatar = gr.File(
        label="or open an avatar file", file_types=[".safetensors"], type="filepath", height=140,
        elem_id="avatar",
    )  # fmt: skip
    status, ready = gr.HTML(elem_id="prepare-status"), gr.HTML(elem_id="ready")
    gr.HTML(html.LIVE)

    def prepare(choice: str, point: str, request: gr.Request) -> Iterator[tuple]:
        def begin() -> Work:
            options = Options(face=template.face_of(choice, point))
            return service.prepare(request.session_hash, options)

        def show(made: tuple[str, Path]) -> tuple[str, str]:
            token, path = made
            return html.note(_READY), html.live_token(token) + html.download("Avatar file", path)

        yield from follow(service, begin, show, others=1)

    @guard(service, 1)
    def open_avatar(path: str | None, request: gr.Request) -> tuple:
        if path is None:
            return gr.skip(), gr.skip()
        token = service.open_avatar(request.session_hash, path)
        return html.live_token(token), html.note(_READY)

    start.click(prepare, [template.face, template.point], [start, stop, status, ready], **EVENT)
    stop.click(_stop(service), **EVENT)
    avatar.change(open_avatar, [avatar], [ready, status], **EVENT)


def _stop(service: Service) -> Any:
    def stop(request: gr.Request) -> None:
        service.stop(request.session_hash)

    return stop
