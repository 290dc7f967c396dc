"""Gaussian averages over time of samples at any times, as they arrive or of a whole clip."""

import numpy as np

_ROUNDING = 1e-9  # seconds by which two equal times may differ


class StreamingSmoother:
    """Gaussian average over time, cut at three sigma, of samples that arrive in order.

    A sample's average is returned once no later sample can change it.
    """

    _times: np.ndarray
    _values: np.ndarray
    _next: int  # index of the next sample to be returned

    def __init__(self, sigma: float) -> None:
        """Starts with no samples; `sigma` is the Gaussian's standard deviation in seconds."""
        self._sigma = sigma
        self._reach = 3 * sigma
        self._reset()

    def push(self, times: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Adds the next n samples.

        Args:
          times: (n,) seconds, increasing also from call to call.
          values: (n, D) samples; angles must not wrap.

        Returns:
          (m, D) averages of the next m samples that have become final, in order.
        """
        if not len(times):
            return np.empty((0, self._values.shape[1]))
        self._times = np.concatenate([self._times, times])
        self._values = np.concatenate([self._values, values]) if len(self._values) else values
        averages = self._averages(
            int(np.sum(self._times + self._reach + _ROUNDING < self._times[-1]))
        )
        if self._next < len(self._times):
            oldest = self._times[self._next] - self._reach - _ROUNDING
            old = int(np.searchsorted(self._times, oldest))
            self._times, self._values = self._times[old:], self._values[old:]
            self._next -= old
        return averages

    def flush(self) -> np.ndarray:
        """Returns the remaining averages (m, D) at the end of a run; a new run may begin."""
        averages = self._averages(len(self._times))
        self._reset()
        return averages

    def _reset(self) -> None:
        self._times = np.zeros(0)
        self._values = np.zeros((0, 0))
        self._next = 0

    def _averages(self, stop: int) -> np.ndarray:
        """Averages of the samples up to index `stop` that were not returned yet."""
        times, values = self._times, self._values
        out = np.empty((max(stop - self._next, 0), values.shape[1]))
        for i, time in enumerate(times[self._next : stop]):
            reach = self._reach + _ROUNDING
            lo, hi = np.searchsorted(times, [time - reach, time + reach])
            lo, hi = min(lo, len(times) - 1), max(hi, lo + 1)
            weight = np.exp(-0.5 * ((times[lo:hi] - time) / self._sigma) ** 2) + 1e-12
            out[i] = (values[lo:hi] * weight[:, None]).sum(0) / weight.sum()
        self._next = max(stop, self._next)
        return out


def smooth(values: np.ndarray, times: np.ndarray, sigma: float) -> np.ndarray:
    """Computes the Gaussian average over time of a whole clip; see `StreamingSmoother`.

    Args:
      values: (N, D) samples; angles must not wrap within a window.
      times: (N,) seconds, increasing.
      sigma: Standard deviation in seconds.

    Returns:
      (N, D) averages at the times of the samples.
    """
    smoother = StreamingSmoother(sigma)
    return np.concatenate([smoother.push(np.asarray(times, np.float64), values), smoother.flush()])
