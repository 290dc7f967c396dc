"""Opening live sessions: checks, compilation, and the session itself."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from talkjax.conventions import TICKS_PER_SECOND
from talkjax.errors import UserError
from talkjax.files import PathLike
from talkjax.sampling.avatar import Avatar
from talkjax.sampling.live_content import LiveContent
from talkjax.sampling.live_frames import AvatarPainter
from talkjax.sampling.options import Options
from talkjax.sampling.session import RATES, Session

if TYPE_CHECKING:
    from talkjax.sampling.sampler import Sampler

WHEN_FULL = ("block", "drop")
MODES = ("bounce", "loop")
_LEAST_MS = 1000 / TICKS_PER_SECOND  # a frame needs its own sound
_MOST_MS = 10_000


def open_session(
    sampler: Sampler,
    avatar: PathLike | Avatar,
    *,
    rate: int,
    options: Options | None,
    look_ahead_ms: float | None,
    chunk: int,
    queue: int,
    when_full: str,
    realtime: bool,
    sessions: int,
) -> Session:
    """Opens a session; see `Sampler.stream`."""
    options = options or Options()
    options.check(sampler.networks.schedule.steps)
    _check(rate, options, look_ahead_ms, chunk, queue, when_full, realtime)
    if not isinstance(avatar, Avatar):
        if not os.fspath(avatar).lower().endswith(".safetensors"):
            raise UserError(
                f"{os.fspath(avatar)}: is not an avatar file; make one with talkjax.prepare_avatar"
            )
        avatar = Avatar.load(avatar)
    check_checkpoint(sampler, avatar)
    sampler.check_guidance(options)
    options = dataclasses.replace(options, steps=sampler.steps_of(options, avatar.photograph))
    open_sessions = sampler.open_sessions
    if len(open_sessions) >= sessions:
        raise UserError(
            f"this sampler has {len(open_sessions)} open session(s) already; close one, or give "
            f"sessions={len(open_sessions) + 1} if the device can carry them all"
        )
    token = object()
    open_sessions.add(token)
    try:
        painter = AvatarPainter(sampler, avatar, options, chunk)
        references = avatar.references()
        content = LiveContent(
            lambda mel, pose: sampler.complete_content(mel, pose, references),
            sampler.window,
            sampler.context,
        )
        content.warm_up(painter.poses)
    except BaseException:
        open_sessions.discard(token)
        raise
    return Session(
        painter,
        content,
        rate=rate,
        look_ahead=None if look_ahead_ms is None else look_ahead_ms / 1000,
        chunk=chunk,
        queue=queue,
        drop=when_full == "drop",
        realtime=realtime,
        on_close=lambda: open_sessions.discard(token),
    )


def check_checkpoint(sampler: Sampler, avatar: Avatar) -> None:
    """Raises `UserError` where an avatar was prepared with another checkpoint."""
    if avatar.checkpoint != sampler.fingerprint:
        raise UserError(
            f"the avatar of {avatar.name} was prepared with another checkpoint "
            f"({avatar.checkpoint}, not {sampler.fingerprint}); prepare it again with this one"
        )


def _check(
    rate: int,
    options: Options,
    look_ahead_ms: float | None,
    chunk: int,
    queue: int,
    when_full: str,
    realtime: bool,
) -> None:
    if not isinstance(rate, int) or not RATES[0] <= rate <= RATES[1]:
        raise UserError(f"rate={rate} is out of range; give {RATES[0]} to {RATES[1]} Hz")
    if look_ahead_ms is not None and not _LEAST_MS <= look_ahead_ms <= _MOST_MS:
        raise UserError(
            f"look_ahead_ms={look_ahead_ms} is out of range; give {_LEAST_MS:g} to {_MOST_MS}, or "
            "None to wait for flush()"
        )
    if not 1 <= chunk <= 25:
        raise UserError(f"chunk={chunk} is out of range; give 1 to 25 frames")
    if not chunk <= queue <= 1000:
        raise UserError(f"queue={queue} is out of range; give {chunk} (the chunk) to 1000 frames")
    if when_full not in WHEN_FULL:
        raise UserError(f"when_full={when_full} is unknown; give one of {', '.join(WHEN_FULL)}")
    if when_full == "drop" and not realtime:
        raise UserError(
            "when_full=drop would drop without end where frames do not wait for their time; give "
            "realtime=True or when_full=block"
        )
    if options.sync_mode not in MODES:
        raise UserError(
            f"sync_mode={options.sync_mode} ends, and a session does not; give one of "
            f"{', '.join(MODES)}"
        )
