"""LSE-D, LSE-C and the offset of audio and video, by an expert that embeds lips and speech.

The protocol is SyncNet's (Chung & Zisserman 2016; LSE: Prajwal et al., *Wav2Lip*, 2020): the mean
distance between lips and speech at every lag, over the windows that have both. (SyncNet's own
script pads the ends with zeros instead.) Distances of different experts are not comparable.
"""

import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import python_speech_features
from flax import traverse_util

from talkjax import conventions, runs, weights
from talkjax.conventions import SAMPLE_RATE, TICKS_PER_SECOND, Box
from talkjax.errors import UserError
from talkjax.media import audio
from talkjax.metrics import sync_weights, weight_files, workspace
from talkjax.models import sync_expert
from talkjax.models.sync_expert import FIRST_STEP, FRAMES, STEPS, STEPS_PER_FRAME

VERSION = 2  # of the embeddings in a work folder; raise it when they change
MAX_LAG = 15  # ticks
TICK_MS = 1000 // TICKS_PER_SECOND
_MIN_WINDOWS = 5  # the mean at a lag needs at least so many
_LIPS_BATCH, _AUDIO_BATCH = 32, 64  # windows per batch
_FULL_SCALE = 32768.0
_TRAINING_ONLY = ("log_scale", "heads")


class SyncScores(NamedTuple):
    """How well lips and speech match; NaN where too few windows have both.

    Attributes:
      lse_d: Smallest mean distance over all lags; lower is better.
      lse_c: Median over all lags minus the smallest; higher is more certain.
      av_offset_ms: Lag of the smallest distance in milliseconds, positive if the video is late.
      curve: (2 * max_lag + 1,) mean distances between lips and speech that is -max_lag ... max_lag
        ticks later.
    """

    lse_d: float
    lse_c: float
    av_offset_ms: float
    curve: np.ndarray


class SyncScorer:
    """Scores lip sync with a trained expert, of the published kind or of talkjax's stage `sync`.

    Attributes:
      name: Name for reports.
      sha256: Hash of the weights.
      crop_size: Size in pixels of the crops that need no resizing.
    """

    def __init__(
        self,
        model: sync_expert.SyncExpert,
        params: weights.Params,
        name: str,
        sha256: str,
        config: dict[str, Any] | None = None,
    ):
        """Takes a network.

        Args:
          model: Network.
          params: Its parameters.
          name: Name for reports.
          sha256: Hash of the weights.
          config: Config of the training run; None for a published SyncNet.
        """
        self.name, self.sha256 = name, sha256
        self._config, self._embedding = config, model.embedding
        if config is None:
            self.crop_size = sync_weights.SIDE
        else:
            self.crop_size = int(config["crop_size"])
            self._box = Box(*config["region"])
            size = tuple(config["sync"]["image"])
        params = jax.tree.map(jnp.asarray, params)

        def embed_lips(images: jax.Array) -> jax.Array:
            if config is None:
                images = images[..., ::-1].astype(jnp.float32)
            else:
                images = sync_expert.network_images(images, size)
            return model.apply({"params": params}, images, None)[0][0]

        def embed_speech(features: jax.Array) -> jax.Array:
            if config is not None:
                features = sync_expert.cepstra(features)
            windows = sync_expert.audio_windows(features)
            return model.apply({"params": params}, None, windows)[1][0]

        self._embed_lips, self._embed_speech = jax.jit(embed_lips), jax.jit(embed_speech)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SyncScorer":
        """Loads a run or an export of stage `sync`, or a safetensors file of SyncNet's layout.

        Args:
          path: Directory, or "FILE" or "FILE@SHA256" (see `weight_files.identify_weights`).

        Raises:
          UserError: The weights are missing, damaged, or not those of a sync expert.
        """
        if not Path(path).is_dir():
            file = weight_files.identify_weights(path, "sync_expert")
            model, params = sync_weights.load_syncnet(file.path)
            return cls(model, params, f"SyncNet v2 (file {file.sha256[:8]})", file.sha256)
        params, config, _ = runs.load_weights(path)
        if config.get("stage") != "sync":
            raise UserError(
                f"{path} is a checkpoint of stage {config.get('stage')!r}, not a sync expert; "
                "train one with configs/sync.py"
            )
        try:
            model, shapes = sync_expert.from_config(config), _shapes(config)
            Box(*config["region"]).pixels(int(config["crop_size"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: its config is not that of stage sync ({error!r})") from error
        flat = traverse_util.flatten_dict(params, sep="/")
        weights.check_tensors({name: x.shape for name, x in flat.items()}, shapes, path)
        released = Path(path) / weights.PARAMS_FILE
        sha256 = (
            workspace.hash_file(released) if released.is_file() else workspace.hash_checkpoint(path)
        )
        params = {k: v for k, v in params["sync"].items() if k not in _TRAINING_ONLY}
        return cls(model, params, f"talkjax {Path(path).resolve().name}", sha256, config)

    def embed_video(self, crops: np.ndarray) -> np.ndarray:
        """Embeds every window of five consecutive crops.

        Args:
          crops: (T, S, S, 3) uint8 RGB unit crops (`talkjax.media.crop`) at ticks of 25 Hz.

        Returns:
          (max(T - 4, 0), D) float32.
        """
        if crops.ndim != 4 or crops.shape[3] != 3 or crops.dtype != np.uint8:
            raise ValueError(f"crops must be (T, S, S, 3) uint8, not {crops.dtype}{crops.shape}")
        count = len(crops) - FRAMES + 1
        if count < 1:
            return np.zeros((0, self._embedding), np.float32)
        images = np.stack([self._network_input(c) for c in crops])
        images = np.pad(images, ((0, -count % _LIPS_BATCH), (0, 0), (0, 0), (0, 0)), mode="edge")
        parts = [
            self._embed_lips(images[None, i : i + _LIPS_BATCH + FRAMES - 1])
            for i in range(0, count, _LIPS_BATCH)
        ]
        return np.concatenate(jax.device_get(parts))[:count]

    def _network_input(self, image: np.ndarray) -> np.ndarray:
        """Returns the part of a crop that the network sees, at the network's size."""
        size = (self.crop_size, self.crop_size)
        if self._config is not None:
            image = self._box.cut(image)
            y0, x0, y1, x1 = self._box.pixels(self.crop_size)
            size = (x1 - x0, y1 - y0)
        if image.shape[1::-1] == size:
            return image
        interpolation = cv2.INTER_AREA if image.shape[1] > size[0] else cv2.INTER_LINEAR
        return cv2.resize(image, size, interpolation=interpolation)

    def embed_audio(self, wave: np.ndarray) -> np.ndarray:
        """Embeds speech, one window every 40 ms; the first belongs to the first five crops.

        Args:
          wave: (S,) float32 mono samples at 16 kHz, in [-1, 1].

        Returns:
          (N, D) float32. N is the number of ticks - 4; for published experts, the number of
          complete windows.
        """
        wave = np.asarray(wave, np.float32)
        if wave.ndim != 1 or not np.isfinite(wave).all():
            raise ValueError("a wave must be (S,) and finite")
        if self._config is None:
            # SyncNet was trained on this package's features, with its defaults.
            features = python_speech_features.mfcc(wave * _FULL_SCALE, SAMPLE_RATE)
            features = features.astype(np.float32)
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
        steps = STEPS_PER_FRAME * (padded - 1) + STEPS
        features = features[:steps]
        features = np.pad(features, ((0, steps - len(features)), (0, 0)), mode="edge")
        length = STEPS_PER_FRAME * (_AUDIO_BATCH - 1) + STEPS
        parts = [
            self._embed_speech(features[None, i : i + length])
            for i in range(0, STEPS_PER_FRAME * padded, STEPS_PER_FRAME * _AUDIO_BATCH)
        ]
        return np.concatenate(jax.device_get(parts))[:count]

    def score(
        self,
        lips: np.ndarray,
        speech: np.ndarray,
        visible: np.ndarray | None = None,
        max_lag: int = MAX_LAG,
    ) -> SyncScores:
        """Returns `score_sync` of the results of `embed_video` and `embed_audio`."""
        return score_sync(lips, speech, visible, max_lag)


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the name and shape of every parameter of stage `sync`."""
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


def find_visible_windows(visible: np.ndarray) -> np.ndarray:
    """Returns which windows of five crops are visible throughout: (T,) -> (max(T - 4, 0),)."""
    if len(visible) < FRAMES:
        return np.zeros(0, bool)
    return np.lib.stride_tricks.sliding_window_view(np.asarray(visible, bool), FRAMES).all(1)


def score_sync(
    lips: np.ndarray,
    speech: np.ndarray,
    visible: np.ndarray | None = None,
    max_lag: int = MAX_LAG,
) -> SyncScores:
    """Compares the embeddings of lips and speech at every lag.

    Args:
      lips: (W, D) embeddings; rows with NaN are left out.
      speech: (N, D) embeddings; row i belongs to row i of `lips` when both are in sync.
      visible: (W,) bool; rows of `lips` where it is False are left out.
      max_lag: Largest lag in ticks, in both directions.
    """
    lips, speech = np.asarray(lips, np.float64), np.asarray(speech, np.float64)
    usable = np.isfinite(lips).all(1)
    if visible is not None:
        usable &= np.asarray(visible, bool)
    usable_speech = np.isfinite(speech).all(1)
    lags = np.arange(-max_lag, max_lag + 1)
    curve = np.full(len(lags), np.nan)
    for place, lag in enumerate(lags):
        rows = np.flatnonzero(usable) + lag
        rows = rows[(rows >= 0) & (rows < len(speech))]
        rows = rows[usable_speech[rows]]
        if len(rows) >= _MIN_WINDOWS:
            curve[place] = np.linalg.norm(lips[rows - lag] - speech[rows], axis=1).mean()
    if not np.isfinite(curve).all():
        return SyncScores(float("nan"), float("nan"), float("nan"), curve)
    least = curve.min()
    ties = lags[curve <= least + 1e-12]
    lag = int(ties[np.abs(ties).argmin()])
    median = float(np.median(curve))
    return SyncScores(float(least), median - float(least), float(-lag * TICK_MS), curve)
