"""The two jobs of the page: generating a video, and preparing an avatar for live sessions."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from talkjax import files
from talkjax.errors import UserError
from talkjax.media import image as image_file
from talkjax.sampling import label
from talkjax.sampling.options import Options

if TYPE_CHECKING:
    from talkjax.media.detection import Detector
    from talkjax.sampling.faces import Face
    from talkjax.sampling.sampler import Sampler
    from talkjax.sampling.summary import Summary

# Called with what is done now and the share that is done, or None; may raise to end the job.
Report = Callable[[str, float | None], None]

VIDEO, SHEET, SETTINGS, AVATAR = "talking.mp4", "sheet.png", "settings.json", "avatar.safetensors"


@dataclasses.dataclass(frozen=True)
class Result:
    """What a job has made.

    Attributes:
      template: The template, for showing it beside the result.
      photograph: Whether the template is a photograph.
      video: The result.
      sheet: The contact sheet, or None where matplotlib is missing.
      settings: The file that says what made it, JSON.
      command: The command line that makes the same.
      text: Summary of the run, in lines.
      generated: Number of frames with a new mouth.
    """

    template: Path
    photograph: bool
    video: Path
    sheet: Path | None
    settings: Path
    command: str
    text: str
    generated: int


def generate(
    sampler: Sampler,
    template: Path,
    speech: Path,
    seconds: float,
    options: Options,
    folder: Path,
    report: Report,
    detector: Detector | None = None,
) -> Result:
    """Generates a video and what belongs to it.

    Args:
      sampler: The checkpoint.
      template: A video or a photograph.
      speech: A file with sound.
      seconds: Length of the speech.
      options: Options of sampling.
      folder: Where everything is written.
      report: Called with every frame.
      detector: Face detector that replaces `FaceMesh`.

    Raises:
      UserError: The files cannot be used, or no frame of the result has a new mouth.
    """
    sheet = _make_sheet()
    report("Looking for the face", None)

    def count(at: float, face: Face | None, landmarks: np.ndarray | None, index: int) -> None:
        report(f"Painting, {at:.1f} of {seconds:.1f} s", min(at / seconds, 1.0))
        if sheet is not None:
            sheet.add_frame(at, face, landmarks, index)

    out = folder / VIDEO
    summary = sampler.generate(
        video=template, audio=speech, out=out, options=options, detector=detector, callback=count
    )
    if not summary.frames_generated:
        out.unlink()
        raise UserError(
            f"{template.name}: no frame has a face whose mouth is seen; give a template that shows "
            "a face from the front, at least 60 pixels wide"
        )
    drawn = None
    if sheet is not None:
        report("Drawing the contact sheet", None)
        drawn = _draw_sheet(sheet, template, folder, options, detector)
    settings = describe(sampler, template, speech, options, summary)
    files.write_json(folder / SETTINGS, settings)
    return Result(
        template=template,
        photograph=image_file.is_photograph(template),
        video=out,
        sheet=drawn,
        settings=folder / SETTINGS,
        command=settings["command"],
        text=summary.text().replace(f"{out}: ", ""),
        generated=summary.frames_generated,
    )


def prepare(
    sampler: Sampler,
    template: Path,
    options: Options,
    seconds: float,
    folder: Path,
    report: Report,
    detector: Detector | None = None,
) -> Path:
    """Prepares a template for live sessions; returns the avatar file.

    Raises:
      UserError: The template cannot be used.
    """
    from talkjax.sampling import pipeline
    from talkjax.sampling.avatar_preparation import prepare_avatar

    report("Looking for the face", None)
    out = folder / AVATAR
    with contextlib.ExitStack() as stack:
        if detector is None:
            detector = stack.enter_context(pipeline.make_detector(options.face))
        reported = _ReportingDetector(detector, report)
        prepare_avatar(
            template, out, sampler=sampler, options=options, seconds=seconds, detector=reported
        )
    return out


class _ReportingDetector:
    """A face detector that reports every frame."""

    def __init__(self, detector: Detector, report: Report) -> None:
        self._detector, self._report = detector, report
        self._frames = 0

    def reset(self) -> None:
        """See `Detector`."""
        self._detector.reset()

    def detect(self, rgb: np.ndarray) -> np.ndarray:
        """See `Detector`."""
        self._frames += 1
        self._report(f"Measuring the face, frame {self._frames}", None)
        return self._detector.detect(rgb)


def describe(
    sampler: Sampler, template: Path, speech: Path, options: Options, summary: Summary
) -> dict[str, Any]:
    """Returns what made a result, as plain data without paths of the server."""
    changed = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    }
    return {
        "talkjax": label.version(),
        "checkpoint": sampler.fingerprint,
        "template": template.name,
        "speech": speech.name,
        "options": dataclasses.asdict(options),
        "command": command_line(template.name, speech.name, changed),
        "summary": summary.as_dict() | {"output": VIDEO},
    }


def command_line(template: str, speech: str, changed: dict[str, Any]) -> str:
    """Returns the command of `sample.py` that makes the same."""
    words = ["sample.py", f"--video={template}", f"--audio={speech}", f"--out={VIDEO}"]
    for name, value in changed.items():
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no_{name}")
        else:
            words.append(f"--{name}={value}")
    return shlex.join(["uv", "run", *words])


def _make_sheet() -> Any:
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from talkjax.metrics.run_sheet import RunSheet

    return RunSheet()


def _draw_sheet(
    sheet: Any, template: Path, folder: Path, options: Options, detector: Detector | None
) -> Path:
    from talkjax.pictures import write_png
    from talkjax.sampling import pipeline
    from talkjax.sampling.template import open_template

    shown = open_template(template, None, sync_mode=options.sync_mode)
    with contextlib.ExitStack() as stack:
        if detector is None:
            detector = stack.enter_context(pipeline.make_detector(options.face))
        image = sheet.draw(shown, folder / VIDEO, detector)
    write_png(folder / SHEET, image)
    return folder / SHEET
