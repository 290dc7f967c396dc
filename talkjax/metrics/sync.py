"""LSE-D, LSE-C and the offset of sound and picture, by an expert that embeds lips and sound.

The protocol is SyncNet's (Chung & Zisserman 2016; LSE: Prajwal et al., *Wav2Lip*, 2020): the mean
distance of lips and sound at every lag, over the windows that have both. (SyncNet's own script
fills the ends with zeros instead.) Distances of two experts do not compare.
"""

import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from talkjax import conventions, runs, weights
from talkjax.conventions import TICKS_PER_SECOND, Box
from talkjax.errors import UserError
from talkjax.media import audio
from talkjax.metrics import mfcc, sync_weights, weight_files, workspace
from talkjax.models import sync_expert
from talkjax.models.sync_expert import FIRST_STEP, FRAMES, STEPS, STEPS_PER_FRAME

VERSION = 1  # of embeddings that are kept: raise it when they change
MAX_LAG = 15  # ticks
TICK_MS = 1000 // TICKS_PER_SECOND
_LEAST = 5  # windows that a lag's mean needs
_LIPS_BATCH, _AUDIO_BATCH = 32, 64  # windows embedded at once
_FULL_SCALE = 32768.0
_TRAINING_ONLY = ("log_scale", "heads")


class Scores(NamedTuple):
    """How well lips and sound fit; NaN where too little of both was there.

    Attributes:
      lse_d: the smallest mean distance over lags; less is better.
      lse_c: the median over lags less the smallest; more is surer.
      av_offset_ms: the lag of the smallest, positive when the picture is late.
      curve: (2 * max_lag + 1,) mean distance of lips to sound that is -max_lag ... max_lag ticks
        later.
    """

    lse_d: float
    lse_c: float
    av_offset_ms: float
    curve: np.ndarray


class SyncExpert:
    """An expert of either kind, made by `load`.

    Attributes:
      name: for reports.
      sha256: of its weights.
      crop_size: px of the crops that it wants best.
    """

    def __init__(
        self,
        model: sync_expert.SyncExpert,
        params: weights.Params,
        name: str,
        sha256: str,
        config: dict[str, Any] | None = None,
    ):
        """Takes a network; `config` is that of the stage it was trained in, None if published."""
        self.name, self.sha256 = name, sha256
        self._config, self._embedding = config, model.embedding
        if config is None:
            self.crop_size = sync_weights.SIDE
        else:
            self.crop_size = int(config["crop_size"])
            self._box = Box(*config["region"])
            size = tuple(config["sync"]["image"])
        params = jax.tree.map(jnp.asarray, params)

        def lips(images: jax.Array) -> jax.Array:
            if config is None:
                images = images[..., ::-1].astype(jnp.float32)
            else:
                images = sync_expert.network_images(images, size)
            return model.apply({"params": params}, images, None)[0][0]

        def sound(features: jax.Array) -> jax.Array:
            if config is not None:
                features = sync_expert.cepstra(features)
            windows = sync_expert.audio_windows(features)
            return model.apply({"params": params}, None, windows)[1][0]

        self._lips, self._sound = jax.jit(lips), jax.jit(sound)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SyncExpert":
        """Loads a run or export of stage `sync`, or a safetensors file of SyncNet's layout.

        Args:
          path: directory, or "FILE" or "FILE@SHA256" (`weight_files.resolve`).

        Raises:
          UserError: missing, damaged, or something else.
        """
        if not Path(path).is_dir():
            file = weight_files.resolve(path, "sync_expert")
            model, params = sync_weights.load(file.path)
            return cls(model, params, f"SyncNet v2 (file {file.sha256[:8]})", file.sha256)
        params, config, _ = runs.load_weights(path)
        if config.get("stage") != "sync":
            raise UserError(
                f"{path} is of stage {config.get('stage')!r}, no sync expert; train one with "
                "configs/sync.py"
            )
        try:
            model, shapes = sync_expert.from_config(config), _shapes(config)
            Box(*config["region"]).pixels(int(config["crop_size"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: its config is not one of stage sync ({error!r})") from error
        flat = traverse_util.flatten_dict(params, sep="/")
        weights.check_tensors({name: x.shape for name, x in flat.items()}, shapes, path)
        released = Path(path) / weights.PARAMS_FILE
        sha256 = (
            workspace.file_hash(released) if released.is_file() else workspace.checkpoint_hash(path)
        )
        params = {k: v for k, v in params["sync"].items() if k not in _TRAINING_ONLY}
        return cls(model, params, f"talkjax {Path(path).resolve().name}", sha256, config)

    def video(self, crops: np.ndarray) -> np.ndarray:
        """Embeds every run of five pictures.

        Args:
          crops: (T, S, S, 3) uint8 RGB whole unit crops (`talkjax.media.crop`) at 25 Hz ticks.

        Returns:
          (max(T - 4, 0), D) float32.
        """
        if crops.ndim != 4 or crops.shape[3] != 3 or crops.dtype != np.uint8:
            raise ValueError(f"crops must be (T, S, S, 3) uint8, not {crops.dtype}{crops.shape}")
        count = len(crops) - FRAMES + 1
        if count < 1:
            return np.zeros((0, self._embedding), np.float32)
        images = np.stack([self._picture(c) for c in crops])
        images = np.pad(images, ((0, -count % _LIPS_BATCH), (0, 0), (0, 0), (0, 0)), mode="edge")
        parts = [
            self._lips(images[None, i : i + _LIPS_BATCH + FRAMES - 1])
            for i in range(0, count, _LIPS_BATCH)
        ]
        return np.concatenate(jax.device_get(parts))[:count]

    def _picture(self, picture: np.ndarray) -> np.ndarray:
        """The part of one crop that the network sees, in its own size."""
        size = (self.crop_size, self.crop_size)
        if self._config is not None:
            picture = self._box.cut(picture)
            y0, x0, y1, x1 = self._box.pixels(self.crop_size)
            size = (x1 - x0, y1 - y0)
        if picture.shape[1::-1] == size:
            return picture
        shrinks = picture.shape[1] > size[0]
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        return cv2.resize(picture, size, interpolation=how)

    def audio(self, wave: np.ndarray) -> np.ndarray:
        """Embeds sound, one window every 40 ms, the first with the first five pictures.

        Args:
          wave: (S,) float32 mono at 16 kHz, in [-1, 1].

        Returns:
          (N, D) float32; N is ticks - 4 (published experts: of the whole windows that there are).
        """
        wave = np.asarray(wave, np.float32)
        if wave.ndim != 1 or not np.isfinite(wave).all():
            raise ValueError("a wave must be (S,) and finite")
        if self._config is None:
            features = mfcc.mfcc(wave * _FULL_SCALE).astype(np.float32)
            count = (len(features) - STEPS) // STEPS_PER_FRAME + 1
        else:
            count = audio.tick_count(len(wave)) - FRAMES + 1
            features = np.pad(
                audio.log_mel(wave),
                ((-FIRST_STEP, STEPS), (0, 0)),
                constant_values=conventions.MEL_FLOOR,
            )
        if count < 1:
            return np.zeros((0, self._embedding), np.float32)
        padded = -(-count // _AUDIO_BATCH) * _AUDIO_BATCH
        wanted = STEPS_PER_FRAME * (padded - 1) + STEPS
        features = features[:wanted]
        features = np.pad(features, ((0, wanted - len(features)), (0, 0)), mode="edge")
        length = STEPS_PER_FRAME * (_AUDIO_BATCH - 1) + STEPS
        parts = [
            self._sound(features[None, i : i + length])
            for i in range(0, STEPS_PER_FRAME * padded, STEPS_PER_FRAME * _AUDIO_BATCH)
        ]
        return np.concatenate(jax.device_get(parts))[:count]

    def score(
        self,
        lips: np.ndarray,
        sound: np.ndarray,
        seen: np.ndarray | None = None,
        max_lag: int = MAX_LAG,
    ) -> Scores:
        """`score` of what `video` and `audio` gave."""
        return score(lips, sound, seen, max_lag)


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name and shape of all that stage `sync` trains."""
    init = functools.partial(sync_expert.from_config(config).init, jax.random.key(0))
    tree = jax.eval_shape(
        init,
        jax.ShapeDtypeStruct((1, FRAMES, *config["sync"]["image"], 3), jnp.float32),
        jax.ShapeDtypeStruct((1, 1, sync_expert.COEFFICIENTS, STEPS, 1), jnp.float32),
    )["params"]
    flat = traverse_util.flatten_dict({"sync": tree}, sep="/")
    shapes = {name: tuple(leaf.shape) for name, leaf in flat.items()}
    heads = (2, int(config["sync"]["embedding"]), 2 * conventions.NUM_LIPS)
    return shapes | {"sync/log_scale": (), "sync/heads": heads}


def seen_windows(seen: np.ndarray) -> np.ndarray:
    """Which runs of five pictures are seen throughout: (T,) bool -> (max(T - 4, 0),)."""
    if len(seen) < FRAMES:
        return np.zeros(0, bool)
    return np.lib.stride_tricks.sliding_window_view(np.asarray(seen, bool), FRAMES).all(1)


def score(
    lips: np.ndarray, sound: np.ndarray, seen: np.ndarray | None = None, max_lag: int = MAX_LAG
) -> Scores:
    """Compares lips with sound at every lag.

    Args:
      lips: (W, D); rows with NaN are left out.
      sound: (N, D), row i belongs with row i of `lips` where they are in sync.
      seen: (W,) bool, False for rows of `lips` to be left out.
      max_lag: ticks either way.
    """
    lips, sound = np.asarray(lips, np.float64), np.asarray(sound, np.float64)
    good = np.isfinite(lips).all(1)
    if seen is not None:
        good &= np.asarray(seen, bool)
    heard = np.isfinite(sound).all(1)
    lags = np.arange(-max_lag, max_lag + 1)
    curve = np.full(len(lags), np.nan)
    for place, lag in enumerate(lags):
        rows = np.flatnonzero(good) + lag
        rows = rows[(rows >= 0) & (rows < len(sound))]
        rows = rows[heard[rows]]
        if len(rows) >= _LEAST:
            curve[place] = np.linalg.norm(lips[rows - lag] - sound[rows], axis=1).mean()
    if not np.isfinite(curve).all():
        return Scores(float("nan"), float("nan"), float("nan"), curve)
    least = curve.min()
    ties = lags[curve <= least + 1e-12]
    lag = int(ties[np.abs(ties).argmin()])
    median = float(np.median(curve))
    return Scores(float(least), median - float(least), float(-lag * TICK_MS), curve)
