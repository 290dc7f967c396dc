"""What a pretrained Whisper encoder hears in talkjax's own log-mel windows.

Prepared data hold talkjax's log-mel (`talkjax.conventions`) and no waveform, so Whisper's log-mel
is computed from it. Both look at the same 25 ms every 10 ms through the same window, and differ in
their bins, logarithm and unit, so that bins are interpolated and shifted. The level is that of
talkjax, to which all speech is brought.

`_OFFSET`, `_EDGES` and `_BELOW_FLOOR` were fitted on 150 clips of English speech against
`talkjax.media.whisper_mel.log_mel`. Whisper's values span 2. On five clips of other recordings
(synthetic speech, Mandarin news, singing, two readings) the mean absolute error is 0.072 and
the correlation 0.971; where talkjax's log-mel is above its floor, 0.038 and 0.979.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from talkjax.conventions import (
    MEL_FLOOR,
    MEL_WINDOW,
    MELS_PER_TICK,
    NUM_MELS,
    SAMPLE_RATE,
    mel_frequencies,
)
from talkjax.models.whisper import WhisperEncoder

# All of these are in bels, as Whisper's logarithm of power. Theory has 0.107 for the offset: sums
# over bins of the Fourier transform are smaller by 400 / 512. The two lowest and the two highest
# bins lie beyond the bins of talkjax, whose next one is used.
_OFFSET = -0.09
_EDGES = {0: -0.645, 1: -0.224, 78: -0.199, 79: -1.0}
# Talkjax cuts quiet sound off at a higher level than Whisper does. What lies at the floor is
# lowered to where quiet sound usually is, and what is little above the floor is lowered less.
_BELOW_FLOOR, _NEAR_FLOOR = 1.0, 0.25


def _interpolation() -> tuple[np.ndarray, np.ndarray]:
    """Returns (80, 80) float32 weights [talkjax's bin, Whisper's bin] and (80,) offsets."""
    own, whispers = mel_frequencies(), mel_frequencies(0.0, SAMPLE_RATE / 2)
    weights = np.stack([np.interp(whispers, own, unit) for unit in np.eye(NUM_MELS)])
    offsets = np.full(NUM_MELS, _OFFSET)
    offsets[list(_EDGES)] = list(_EDGES.values())
    return weights.astype(np.float32), offsets.astype(np.float32)


_WEIGHTS, _OFFSETS = _interpolation()


def to_whisper_mel(mel: jax.Array) -> jax.Array:
    """Converts log-mel frames of talkjax to Whisper's with 80 bins: (..., 80) -> (..., 80).

    Whisper raises what is 8 bels below the loudest value of its 30 s to that level, which is about
    -0.74 here. This is left out, because the floor of talkjax, which becomes -0.52, leaves less
    than 1 % of the values below that level. So a frame is converted without regard to others.
    """
    bels = 1.0 / np.float32(np.log(10.0))
    power = jnp.matmul(mel * bels, jnp.asarray(_WEIGHTS), precision=jax.lax.Precision.HIGHEST)
    above = jnp.clip((power - MEL_FLOOR * bels) / _NEAR_FLOOR, 0.0, 1.0)
    offsets = jnp.broadcast_to(_OFFSETS, power.shape)
    return (power - _BELOW_FLOOR * (1.0 - above) + offsets + 4.0) / 4.0


def join_windows(windows: jax.Array) -> jax.Array:
    """Joins the overlapping windows of n ticks in a row: (B, n, 16, 80) -> (B, 12 + 4 n, 80)."""
    batch, ticks = windows.shape[:2]
    rest = windows[:, 1:, MEL_WINDOW - MELS_PER_TICK :]
    rest = rest.reshape(batch, MELS_PER_TICK * (ticks - 1), NUM_MELS)
    return jnp.concatenate([windows[:, 0], rest], 1)


def tick_features(encoder: WhisperEncoder, params: Any, windows: jax.Array) -> jax.Array:
    """Encodes the sound of ticks.

    Args:
      encoder: Encoder of 80 bins.
      params: Its parameters. No gradient reaches them.
      windows: (B, n, 16, 80) log-mel windows of n ticks in a row.

    Returns:
      (B, n, width) float32 means of the tokens around each tick, which are 20 ms apart. They depend
      on the sound of all n windows.
    """
    ticks = windows.shape[1]
    mel = to_whisper_mel(join_windows(windows))
    tokens = encoder.apply({"params": params}, mel).astype(jnp.float32)
    # Tick k is in the middle of its window: mel frame 4 k + 8, which is token 2 k + 4. With its
    # neighbours by half, every token counts the same.
    middle = MEL_WINDOW // 4
    before, at, after = (tokens[:, middle + i :][:, : 2 * ticks : 2] for i in (-1, 0, 1))
    return jax.lax.stop_gradient(0.25 * before + 0.5 * at + 0.25 * after)
