"""The groups of controls of the page, each with its events."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from talkjax.errors import UserError
from talkjax.sampling.options import Options
from talkjax.web import html, text_to_speech
from talkjax.web.service import Service
from talkjax.web.turns import Work

CLICKED = "clicked"
_FACES = [
    ("the largest one", "largest"),
    ("the one who speaks in the video", "speaking"),
    ("the one I click on", CLICKED),
]
_STEPS = [("as the checkpoint advises", -1), ("0, warp only", 0), ("1", 1), ("2", 2), ("4", 4)]
_MODES = [
    ("plays back and forth", "bounce"),
    ("starts again", "loop"),
    ("ends the result", "cut_off"),
    ("stands still, lips move on", "hold"),
]
_POLL_S = 0.4
_FRAME_HEIGHT = 260
# Of all events: no public API, no veil over outputs, and no queue, because `Turns` has one.
EVENT: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "concurrency_limit": None,
}


def guard(service: Service, outputs: int) -> Callable:
    """Decorates a handler whose last output is a status: a `UserError` becomes its line.

    Args:
      service: It knows what of the line the visitor need not see.
      outputs: Number of outputs before the status, which then stay as they are.
    """

    def decorate(handler: Callable) -> Callable:
        @functools.wraps(handler)
        def guarded(*values: Any) -> Any:
            try:
                return handler(*values)
            except UserError as error:
                return (*[gr.skip()] * outputs, html.error(service.explain(error)))

        return guarded

    return decorate


def follow(
    service: Service, start: Callable[[], Work], done: Callable[[Any], Sequence[Any]], others: int
) -> Iterator[tuple]:
    """Starts work and yields values of the start button, the stop button, the status and others.

    Args:
      service: Where the work is done.
      start: Starts it.
      done: Returns the status and the `others` of a result.
      others: Number of further outputs, which change with the result alone.
    """
    idle = gr.update(interactive=True), gr.update(interactive=False)
    busy = gr.update(interactive=False), gr.update(interactive=True)
    kept = [gr.skip()] * others
    try:
        work = start()
    except UserError as error:
        yield (*idle, html.error(service.explain(error)), *kept)
        return
    while not work.wait(_POLL_S):
        yield (*busy, html.progress(work.progress), *kept)
    if work.stopped:
        yield (*idle, html.note("Stopped."), *kept)
    elif work.error is not None:
        yield (*idle, html.error(work.error), *kept)
    else:
        yield (*idle, *done(work.result))


# Outputs of a new template where there is none: both components, all that belongs to a template,
# and the line about it.
_NO_TEMPLATE = (None, None, "", "", "largest", gr.update(visible=False), None, gr.skip(), "")


class TemplateInput:
    """A video or a photograph, and which of its faces speaks.

    Attributes:
      video: The component of a video.
      face: The component that says which face speaks.
      point: State: the value of `Options.face` of a face that was clicked on, or "".
    """

    def __init__(self, service: Service) -> None:
        """Builds the components."""
        self._service = service
        self._kind = gr.State("")
        self.point = gr.State("")
        gr.HTML("<h2>1. Whom do you make speak?</h2>")
        with gr.Tabs():
            with gr.Tab("Video"):
                self.video = gr.Video(
                    sources=["upload", "webcam"], show_label=False, height=340, elem_id="video",
                    webcam_options=gr.WebcamOptions(mirror=False), buttons=[],
                )  # fmt: skip
            with gr.Tab("Photograph"):
                self._photo = gr.Image(
                    sources=["upload", "webcam", "clipboard"], type="filepath", show_label=False,
                    height=340, elem_id="photo", webcam_options=gr.WebcamOptions(mirror=False),
                    buttons=[],
                )  # fmt: skip
                # The file as it is; Gradio would decode it, and fail on what it does not know.
                self._photo.preprocess = lambda payload: payload and payload.path
        self._status = gr.HTML(elem_id="template-status")
        self._faces = gr.Accordion(
            "Are there several people? Choose who speaks", open=False, visible=False,
            elem_id="faces",
        )  # fmt: skip
        with self._faces:
            self.face = gr.Radio(_FACES, value="largest", show_label=False, elem_id="face")
            self._frame = gr.Image(
                interactive=False, show_label=False, height=_FRAME_HEIGHT, buttons=[],
                elem_id="frame",
            )  # fmt: skip
            self._time = gr.Slider(
                0,
                1,
                value=0,
                step=0.04,
                label="Show the picture at this time, in seconds",
                elem_id="time",
            )
        self._listen()

    def face_of(self, choice: str, point: str) -> str:
        """Returns `Options.face`."""
        if choice != CLICKED:
            return choice
        if not point:
            raise UserError("no face is chosen yet; click on one in the picture of the template")
        return point

    def _listen(self) -> None:
        shown = [
            self._kind, self.point, self.face, self._faces, self._frame, self._time, self._status,
        ]  # fmt: skip
        for component, kind in ((self.video, "video"), (self._photo, "photo")):
            other = self._photo if kind == "video" else self.video
            component.change(
                self._taker(kind), [component, self._kind], [component, other, *shown], **EVENT
            )
        self._time.release(
            guard(self._service, 1)(self._show_frame), [self._time], [self._frame, self._status],
            **EVENT,
        )  # fmt: skip
        self._frame.select(
            guard(self._service, 3)(self._choose), [self._time],
            [self._frame, self.face, self.point, self._status], **EVENT,
        )  # fmt: skip

    def _taker(self, kind: str) -> Callable:
        """Returns a handler of a new template; see `_take`."""

        def take(path: str | None, current: str, request: gr.Request) -> tuple:
            return self._take(kind, path, current, request.session_hash)

        return take

    def _take(self, kind: str, path: str | None, current: str, visitor: str) -> tuple:
        """Shows a new template, or that it was removed; the other kind's one is cleared."""
        if path is None:
            if kind != current:  # it was cleared because the other kind was given
                return (gr.skip(),) * 9
            self._service.drop(visitor, "template")
            return _NO_TEMPLATE
        try:
            info = self._service.take_template(visitor, path)
            frame = self._service.show_frame(visitor, 0.0)
        except UserError as error:
            return *_NO_TEMPLATE[:-1], html.error(self._service.explain(error))
        time = gr.update(
            maximum=max(info.seconds, 0.04),
            value=0,
            visible=not info.photograph and info.seconds > 0,
        )
        return (
            gr.skip(), None, kind, "", "largest", gr.update(visible=True), str(frame), time,
            html.note(info.text()),
        )  # fmt: skip

    def _show_frame(self, seconds: float, request: gr.Request) -> tuple:
        return str(self._service.show_frame(request.session_hash, seconds)), gr.skip()

    def _choose(self, seconds: float, click: gr.SelectData, request: gr.Request) -> tuple:
        chosen = self._service.choose_face(request.session_hash, seconds, tuple(click.index))
        line = html.note(f"The marked face speaks ({chosen.face}).")
        return str(chosen.picture), CLICKED, chosen.face, line


class SpeechInput:
    """A recording, a file, or typed text that becomes one.

    Attributes:
      audio: The component of the sound.
    """

    def __init__(self, service: Service) -> None:
        """Builds the components."""
        gr.HTML("<h2>2. What is said?</h2>")
        self.audio = gr.Audio(
            sources=["upload", "microphone"], type="filepath", show_label=False, elem_id="speech",
            buttons=[],
        )  # fmt: skip
        self._status = gr.HTML(elem_id="speech-status")

        def take(path: str | None, request: gr.Request) -> tuple:
            if path is None:
                # Nothing is there to remove where it was refused, and the reason stays.
                removed = service.drop(request.session_hash, "speech")
                return gr.skip(), "" if removed else gr.skip()
            try:
                seconds = service.take_speech(request.session_hash, path)
            except UserError as error:
                return None, html.error(service.explain(error))
            return gr.skip(), html.note(f"{seconds:.1f} s of speech")

        self.audio.change(take, [self.audio], [self.audio, self._status], **EVENT)
        if text_to_speech.is_available():
            self._add_text(service)

    def _add_text(self, service: Service) -> None:
        with gr.Accordion("Type it instead", open=False, elem_id="type"):
            text = gr.Textbox(
                lines=3, max_length=service.limits.characters, show_label=False, elem_id="text",
                placeholder="What should be said? A simple synthetic voice will say it.",
            )  # fmt: skip
            with gr.Row():
                voice = gr.Dropdown(
                    list(text_to_speech.VOICES), value=next(iter(text_to_speech.VOICES)),
                    show_label=False, elem_id="voice",
                )  # fmt: skip
                speak = gr.Button("Speak", elem_id="speak")

        @guard(service, 1)
        def say(words: str, name: str, request: gr.Request) -> tuple:
            return str(service.say(request.session_hash, words, name)), gr.skip()

        speak.click(say, [text, voice], [self.audio, self._status], **EVENT)


class Settings:
    """Options of sampling.

    Attributes:
      components: In the order of the arguments of `options`.
    """

    def __init__(self) -> None:
        """Builds the components."""
        with gr.Accordion("Settings", open=False):
            with gr.Row():
                steps = gr.Dropdown(_STEPS, value=-1, label="Denoising steps", elem_id="steps")
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**32 - 1)
            mode = gr.Dropdown(
                _MODES, value="bounce", label="A template that is shorter than the speech"
            )
            keep = gr.Checkbox(True, label="Keep hands and objects before the mouth")
            learn = gr.Checkbox(True, label="Learn from the template's sound how the person speaks")
        self.components = [steps, seed, mode, keep, learn]

    @staticmethod
    def options(
        face: str, steps: int, seed: float | None, mode: str, keep: bool, learn: bool
    ) -> Options:
        """Returns the options that are set."""
        return Options(
            steps=None if steps < 0 else steps, seed=int(seed or 0), face=face, sync_mode=mode,
            keep_occlusions=keep, reference_sound=learn,
        )  # fmt: skip
