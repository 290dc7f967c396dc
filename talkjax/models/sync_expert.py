"""SyncNet v2: embeds windows of lips and of sound, close to each other where they are in sync.

Chung & Zisserman, *Out of time: automated lip sync in the wild* (ACCV-W 2016), in the layout of
github.com/joonson/syncnet_python, so that its published weights load unchanged. The default sizes
are the published ones. Stage `sync` trains smaller ones on other inputs; see `cepstra`.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from talkjax.conventions import MEL_FLOOR

FRAMES = 5  # pictures in a window, at 25 Hz
STEPS = 20  # cepstra in a window, at 100 Hz
COEFFICIENTS = 13
STEPS_PER_FRAME = 4
# Steps from the first picture of a window to its first cepstrum. Log-mel frames are centred at
# their time, so the 20 of a window are centred at its middle picture. (The published MFCCs begin at
# their time, which makes this 0.)
FIRST_STEP = STEPS_PER_FRAME * (FRAMES // 2) - STEPS // 2
# Approximate mean and standard deviation of the cepstra of speech, relative to those of silence.
_SHIFT = np.array([30.0, 15.0] + [0.0] * 11, np.float32)
_SCALE = np.array([17, 11, 6, 7, 6, 5, 5, 4, 3.5, 3.5, 3, 3, 2.5], np.float32)

_GROUP = 8  # number of channels that are normalised together
_EPS = 1e-5  # torch's default
# Published layers over (coefficients, time) and (height, width): width, kernel, stride and padding
# of a convolution; window, stride and padding of the pooling after it.
_AUDIO = (
    (64, (3, 3), 1, 1, None),
    (192, (3, 3), 1, 1, ((3, 3), (1, 2), 0)),
    (384, (3, 3), 1, 1, None),
    (256, (3, 3), 1, 1, None),
    (256, (3, 3), 1, 1, ((3, 3), (2, 2), 0)),
    (512, None, 1, 0, None),  # kernel of the size that is left, (5, 4)
)
_LIPS = (
    (96, (7, 7), 2, 0, ((3, 3), (2, 2), 0)),
    (256, (5, 5), 2, 1, ((3, 3), (2, 2), 1)),
    (256, (3, 3), 1, 1, None),
    (256, (3, 3), 1, 1, None),
    (256, (3, 3), 1, 1, ((3, 3), (2, 2), 0)),
    (512, None, 1, 0, None),  # kernel of the size that is left, (6, 6) for 224 x 224 px
)
_HIDDEN = 512


# ---- inputs -------------------------------------------------------------------------------------


def cepstra(mel: jax.Array) -> jax.Array:
    """Computes the 13 cepstra that the experts trained here are given, of about unit size.

    They are the orthonormal DCT-II of log-mel frames, like MFCCs, but of the 80 bins that prepared
    data contain anyway.

    Args:
      mel: (..., M, 80) float32 from `talkjax.media.audio.log_mel`.

    Returns:
      (..., M, 13) float32.
    """
    bins = mel.shape[-1]
    place = (np.arange(bins) + 0.5)[:, None] * np.arange(COEFFICIENTS)[None]
    basis = np.cos(np.pi * place / bins) * math.sqrt(2 / bins)
    basis[:, 0] /= math.sqrt(2)
    values = (mel - MEL_FLOOR) @ jnp.asarray((basis / _SCALE).astype(np.float32))
    return values - jnp.broadcast_to(_SHIFT / _SCALE, values.shape)


def audio_windows(features: jax.Array) -> jax.Array:
    """Cuts windows of 0.2 s from features at 100 Hz, one every 40 ms.

    Args:
      features: (B, M, 13), in which the window of picture k begins at row 4 k.

    Returns:
      (B, (M - 20) // 4 + 1, 13, 20, 1).
    """
    count = (features.shape[1] - STEPS) // STEPS_PER_FRAME + 1
    index = np.arange(count)[:, None] * STEPS_PER_FRAME + np.arange(STEPS)[None]
    return features[:, index].swapaxes(2, 3)[..., None]


def resampling(
    size: int, wanted: int, zoom: jax.Array, shift: jax.Array, blur: jax.Array
) -> jax.Array:
    """Makes matrices that resize, zoom, shift and blur one axis of pictures.

    Args:
      size: Number of pixels of the source.
      wanted: Number of pixels of the result.
      zoom: (B,) factors of magnification about the centre; negative ones mirror.
      shift: (B,) shifts of the content, as shares of the picture.
      blur: (B,) standard deviations of an additional Gaussian blur, in source pixels.

    Returns:
      (B, wanted, size) float32, whose rows sum to 1.
    """
    place = (np.arange(wanted, dtype=np.float32) + 0.5) / wanted - 0.5
    place = (place[None] / zoom[:, None] + 0.5 - shift[:, None]) * size
    distance = place[..., None] - (np.arange(size, dtype=np.float32) + 0.5)[None, None]
    # Half a target pixel suffices against aliasing, and hardly blurs where nothing shrinks.
    spread = (0.5 * max(size / wanted, 0.8)) ** 2 + jnp.square(blur)
    # Beyond the edge of the picture, the nearest pixel counts.
    distance = jnp.square(distance)
    distance -= distance.min(-1, keepdims=True)
    weights = jnp.exp(-0.5 * distance / spread[:, None, None])
    return weights / weights.sum(-1, keepdims=True)


def resample(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Applies `resampling` matrices (B, h, H), (B, w, W) to (B, L, H, W, 3): (B, L, h, w, 3)."""
    images = jnp.einsum("bhy,blyxc->blhxc", rows, images)
    return jnp.einsum("bwx,blhxc->blhwc", columns, images)


def network_images(images: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Resizes RGB pictures (B, L, H, W, 3) in [0, 255] to (B, L, *size, 3) in [-1, 1]."""
    images = images.astype(jnp.float32) / 127.5 - 1.0
    none = jnp.zeros((images.shape[0],))
    axes = [
        resampling(have, want, none + 1.0, none, none)
        for have, want in zip(images.shape[2:4], size, strict=True)
    ]
    return resample(images, *axes)


def distances(lips: jax.Array, audio: jax.Array) -> jax.Array:
    """Computes the Euclidean distance of every lip window to every window of sound.

    Args:
      lips: (B, W, D) embeddings.
      audio: (B, N, D) embeddings.

    Returns:
      (B, W, N).
    """
    square = jnp.square(lips[:, :, None] - audio[:, None]).sum(-1)
    return jnp.sqrt(square + 1e-12)  # the slope of the square root is infinite at 0


# ---- networks -----------------------------------------------------------------------------------


class StoredNorm(nn.Module):
    """Batch normalisation with the statistics of published weights, which are not updated."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, row = x.shape[-1:], (1,) * (x.ndim - 1) + (-1,)
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        scale, bias = self.param("scale", ones, size), self.param("bias", zeros, size)
        mean, var = self.param("mean", zeros, size), self.param("var", ones, size)
        slope = scale * jax.lax.rsqrt(var + _EPS)
        return x * slope.reshape(row) + (bias - mean * slope).reshape(row)


def motion_init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Initialises kernels (5, k, k, C, features) so that the first two thirds see motion only.

    Neighbouring windows look almost alike to a random network. Without this initialisation it takes
    long until their embeddings differ, and until then the loss stays at chance level.
    """
    kernel = nn.initializers.lecun_normal()(key, shape)
    moving = np.arange(shape[-1]) < 2 * shape[-1] // 3
    still = jnp.where(jnp.asarray(moving).reshape(1, 1, 1, 1, -1), kernel.mean(0)[None], 0.0)
    return kernel - still


class FrameConv(nn.Module):
    """A convolution over 5 pictures, their height and their width, with pictures as channels.

    Its kernel has the axes (5, k, k, C, features) of the published one.
    """

    features: int
    kernel: tuple[int, int]
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves every run of 5 pictures: (B, L, H, W, C) -> (B * (L - 4), h, w, features)."""
        batch, length, height, width, channels = x.shape
        shape = (FRAMES, *self.kernel, channels, self.features)
        kernel = self.param("kernel", motion_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        index = np.arange(length - FRAMES + 1)[:, None] + np.arange(FRAMES)[None]
        x = x[:, index].transpose(0, 1, 3, 4, 2, 5)
        x = x.reshape(batch * len(index), height, width, FRAMES * channels)
        kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(*self.kernel, -1, self.features)
        x = jax.lax.conv_general_dilated(
            x, kernel, (self.stride,) * 2, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return x + bias.reshape(1, 1, 1, -1)


class SyncExpert(nn.Module):
    """The lip network and the audio network; the published ones by default.

    Attributes:
      width: Factor of all published widths.
      embedding: Number of features D of an embedding.
      norm: "stored" for published weights, whose batch statistics are parameters, or "group" for
        training, which requires no statistics. Group norms of dense layers have one group.
      unit: Whether embeddings are scaled to length 1, so that distances are between 0 and 2.
    """

    width: float = 1.0
    embedding: int = 1024
    norm: str = "stored"
    unit: bool = False

    def _normalise(self, x: jax.Array, name: str) -> jax.Array:
        if self.norm == "stored":
            return StoredNorm(name=name)(x)
        if self.norm != "group":
            raise ValueError(f"unknown norm {self.norm!r}; use 'stored' or 'group'")
        whole = x.ndim == 2 or x.shape[-1] % _GROUP
        groups = 1 if whole else x.shape[-1] // _GROUP
        return nn.GroupNorm(num_groups=groups, epsilon=_EPS, name=name)(x)

    def _features(self, published: int) -> int:
        return max(1, round(published * self.width))

    def _network(self, x: jax.Array, part: str, layers: tuple) -> jax.Array:
        for number, (features, kernel, stride, pad, pool) in enumerate(layers):
            name, features = f"{part}_conv_{number}", self._features(features)
            if x.ndim == 5:  # pictures, before the first layer
                x = FrameConv(features, kernel, stride, name=name)(x)
            else:
                kernel = kernel or x.shape[1:3]
                pads = ((pad, pad),) * 2
                x = nn.Conv(features, kernel, (stride,) * 2, padding=pads, name=name)(x)
            x = nn.relu(self._normalise(x, f"{part}_norm_{number}"))
            if pool:
                window, strides, pad = pool
                x = nn.max_pool(x, window, strides, ((pad, pad),) * 2)
            if 0 in x.shape:
                raise ValueError(f"the {part} inputs of the sync expert are too small")
        x = x.reshape(x.shape[0], -1)
        x = nn.Dense(self._features(_HIDDEN), name=f"{part}_fc_0")(x)
        x = nn.relu(self._normalise(x, f"{part}_fc_norm"))
        x = nn.Dense(self.embedding, name=f"{part}_fc_1")(x)
        if self.unit:
            x = x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-8)
        return x

    @nn.compact
    def __call__(
        self, images: jax.Array | None = None, windows: jax.Array | None = None
    ) -> tuple[jax.Array | None, jax.Array | None]:
        """Embeds runs of pictures, windows of sound, or both.

        Args:
          images: (B, L, H, W, 3) with L >= 5, or None.
          windows: (B, N, 13, 20, 1) from `audio_windows`, or None.

        Returns:
          Embeddings (B, L - 4, D) and (B, N, D), with None for an input that was not given.
        """
        lips = audio = None
        if images is not None:
            lips = self._network(images, "lips", _LIPS)
            lips = lips.reshape(images.shape[0], -1, self.embedding)
        if windows is not None:
            flat = windows.reshape(-1, *windows.shape[2:])
            audio = self._network(flat, "audio", _AUDIO)
            audio = audio.reshape(*windows.shape[:2], self.embedding)
        return lips, audio


def from_config(config: Mapping[str, Any]) -> SyncExpert:
    """Makes the expert that a configuration of stage `sync` trains."""
    sync = config["sync"]
    return SyncExpert(
        width=float(sync["width"]), embedding=int(sync["embedding"]), norm="group", unit=True
    )
