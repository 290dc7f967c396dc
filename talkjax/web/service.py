"""All that the page does, in plain Python: checks, limits, files, turns and jobs.

A visitor is a string that tells one open page from another.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from talkjax.errors import UserError
from talkjax.sampling.avatar import Avatar
from talkjax.sampling.options import Options
from talkjax.sampling.streaming import check_checkpoint
from talkjax.web import faces, jobs, limits, text_to_speech
from talkjax.web.limits import Limits, TemplateInfo
from talkjax.web.store import Store
from talkjax.web.turns import Turns, Work

if TYPE_CHECKING:
    from talkjax.media.detection import Detector
    from talkjax.sampling.sampler import Sampler

_AVATAR_SECONDS = 30.0
_SUFFIX = ".safetensors"


@dataclasses.dataclass(frozen=True)
class Choice:
    """A face that was clicked on.

    Attributes:
      face: Value of `Options.face`.
      picture: File of the picture in which it is marked.
    """

    face: str
    picture: Path


class Service:
    """What the page does for its visitors.

    Attributes:
      sampler: The checkpoint.
      limits: What is accepted.
      store: Files of the visitors.
      turns: Who waits for the sampler.
    """

    def __init__(
        self,
        sampler: Sampler,
        given: Limits,
        store: Store,
        make_detector: Callable[[], Detector] | None = None,
    ) -> None:
        """Serves one sampler; `make_detector` replaces `FaceMesh`."""
        self.sampler, self.limits, self.store = sampler, given, store
        self.turns = Turns(given.waiting)
        self._make_detector = make_detector
        self._works: dict[str, Work] = {}
        self._avatars: dict[str, tuple[str, str]] = {}  # token -> visitor, path
        self._lock, self._detecting = threading.Lock(), threading.Lock()
        self._number = itertools.count(1)

    # ---- inputs ----------------------------------------------------------------------------------

    def take_template(self, visitor: str, path: str) -> TemplateInfo:
        """Checks an uploaded template and keeps it; otherwise removes it."""
        return self._take(visitor, "template", path, limits.check_template)

    def take_speech(self, visitor: str, path: str) -> float:
        """Checks uploaded speech and keeps it, otherwise removes it; returns its seconds."""
        return self._take(visitor, "speech", path, limits.check_speech)

    def _take(self, visitor, role, path, check):
        kept = self.store.take(visitor, role, path)
        try:
            return check(kept, self.limits)
        except UserError:
            self.store.drop(visitor, role)
            raise

    def drop(self, visitor: str, role: str) -> bool:
        """Removes the "template" or the "speech" of a visitor; returns whether there was one."""
        return self.store.drop(visitor, role)

    def say(self, visitor: str, text: str, voice: str) -> Path:
        """Speaks a text, which becomes the visitor's speech; returns the file."""
        out = self.store.folder(visitor) / f"speech-{next(self._number)}.wav"
        text_to_speech.speak(text, voice, out, self.limits.characters)
        self.take_speech(visitor, str(out))
        return out

    def show_frame(self, visitor: str, seconds: float) -> Path:
        """Returns a picture of the visitor's template at a time, as a file."""
        frame = limits.read_frame(self._need(visitor, "template"), seconds)
        return self._write_picture(visitor, faces.encode_picture(frame.rgb)[0])

    def choose_face(self, visitor: str, seconds: float, point: tuple[float, float]) -> Choice:
        """Finds the face at a point of the picture that `show_frame` returned."""
        frame = limits.read_frame(self._need(visitor, "template"), seconds)
        scale = faces.encode_picture(frame.rgb)[1]
        at = (point[0] / scale, point[1] / scale)
        with self._detecting:
            if self._make_detector is not None:
                face, marked = faces.find_face(frame, at, self._make_detector())
            else:
                from talkjax.sampling import pipeline

                with pipeline.make_detector("largest") as detector:
                    face, marked = faces.find_face(frame, at, detector)
        return Choice(face, self._write_picture(visitor, faces.encode_picture(marked)[0]))

    def _write_picture(self, visitor: str, data: bytes) -> Path:
        folder = self.store.folder(visitor)
        for old in folder.glob("frame-*.jpg"):
            old.unlink(missing_ok=True)
        path = folder / f"frame-{next(self._number)}.jpg"  # a name that no browser has cached
        path.write_bytes(data)
        return path

    def _need(self, visitor: str, role: str) -> str:
        path = self.store.get(visitor, role)
        if path is None:
            what = "a video or a photograph" if role == "template" else "speech"
            raise UserError(f"there is no {role} yet; give {what} first")
        return path

    # ---- jobs ------------------------------------------------------------------------------------

    def generate(self, visitor: str, options: Options) -> Work:
        """Starts to generate a video of the visitor's template and speech.

        Returns:
          The work, whose result is a `jobs.Result`.

        Raises:
          UserError: An input is missing, an option is out of range, or the visitor's last work has
            not ended.
        """
        template, speech = self._need(visitor, "template"), self._need(visitor, "speech")
        self._check(options)
        seconds = limits.check_speech(speech, self.limits)

        def do(work: Work) -> jobs.Result:
            folder = self._new_folder(visitor, "result")
            result = jobs.generate(
                self.sampler, Path(template), Path(speech), seconds, options, folder, work.report,
                self._detector(),
            )  # fmt: skip
            # Shown beside the result, also once the visitor has given another template.
            shown = folder / f"template{Path(template).suffix}"
            os.link(template, shown)
            self._remove_older(folder, "result")
            return dataclasses.replace(result, template=shown)

        return self._start(visitor, do, template=template, speech=speech)

    def prepare(self, visitor: str, options: Options) -> Work:
        """Starts to prepare the visitor's template for live sessions.

        Returns:
          The work, whose result is (the token for `find_avatar`, the avatar file).
        """
        template = self._need(visitor, "template")
        self._check(options)

        def do(work: Work) -> tuple[str, Path]:
            folder = self._new_folder(visitor, "avatar")
            path = jobs.prepare(
                self.sampler, Path(template), options, _AVATAR_SECONDS, folder, work.report,
                self._detector(),
            )  # fmt: skip
            self._remove_older(folder, "avatar")
            return self._register(visitor, str(path)), path

        return self._start(visitor, do, template=template)

    def stop(self, visitor: str) -> None:
        """Stops the visitor's work, if there is some."""
        work = self._works.get(visitor)
        if work is not None:
            work.stop()

    def _check(self, options: Options) -> None:
        options.check(self.sampler.networks.schedule.steps)
        self.sampler.check_guidance(options)

    def _detector(self) -> Detector | None:
        return None if self._make_detector is None else self._make_detector()

    def _start(self, visitor: str, do: Callable[[Work], object], **inputs: str) -> Work:
        """Starts work that keeps its inputs, also where others take their place meanwhile."""
        with self._lock:
            last = self._works.get(visitor)
            if last is not None and not last.wait(0):
                raise UserError("the last job of this page has not ended; wait for it, or stop it")
            busy = self.store.busy(visitor)
            busy.__enter__()
            for role, path in inputs.items():
                self.store.take(visitor, f"{role} in use", path)

            def after() -> None:
                for role in inputs:
                    self.store.drop(visitor, f"{role} in use")
                busy.__exit__(None, None, None)

            self._works[visitor] = Work(self.turns, do, self.explain, after)
            return self._works[visitor]

    def _new_folder(self, visitor: str, kind: str) -> Path:
        folder = self.store.folder(visitor) / f"{kind}-{next(self._number)}"
        folder.mkdir()
        return folder

    def _remove_older(self, newest: Path, kind: str) -> None:
        for folder in newest.parent.glob(f"{kind}-*"):
            if folder != newest:
                shutil.rmtree(folder, ignore_errors=True)

    # ---- live ------------------------------------------------------------------------------------

    def open_avatar(self, visitor: str, path: str) -> str:
        """Checks an uploaded avatar file; returns the token for `find_avatar`."""
        kept = self.store.take(visitor, "avatar", path)
        try:
            if not kept.endswith(_SUFFIX):
                raise UserError(
                    f"{Path(kept).name}: is not an avatar file; give one that this page or "
                    "talkjax.prepare_avatar made"
                )
            check_checkpoint(self.sampler, Avatar.load(kept))
        except UserError:
            self.store.drop(visitor, "avatar")
            raise
        return self._register(visitor, kept)

    def find_avatar(self, token: str) -> tuple[str, str]:
        """Returns (visitor, path) of a token."""
        found = self._avatars.get(token)
        if found is None or not Path(found[1]).is_file():
            raise UserError("the avatar of this page is gone; prepare it again")
        return found

    def _register(self, visitor: str, path: str) -> str:
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._forget_avatars(visitor)
            self._avatars[token] = (visitor, path)
        return token

    def _forget_avatars(self, visitor: str) -> None:
        self._avatars = {t: found for t, found in self._avatars.items() if found[0] != visitor}

    # ---- the end ---------------------------------------------------------------------------------

    def leave(self, visitor: str) -> None:
        """Stops a visitor's work and removes the visitor's files."""
        with self._lock:
            work = self._works.pop(visitor, None)
            self._forget_avatars(visitor)
        if work is not None:
            work.stop()
        self.store.leave(visitor)

    def explain(self, error: UserError) -> str:
        """Returns the error's line without folders of the server."""
        root = re.escape(str(self.store.root))
        return re.sub(rf"{root}/(?:[\w-]+/)*", "", str(error))
