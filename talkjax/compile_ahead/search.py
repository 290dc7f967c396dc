"""The best batch per chip: the smallest that fits and whose roofline promises nearly the most."""

from collections.abc import Callable, Iterator

from talkjax.compile_ahead.report import Report

_WORTH = 1.02  # a larger batch that promises less than this much more is not worth its memory
_MARGIN = 0.97  # of the memory, that an extrapolation aims at


def best_batch(compile_at: Callable[[int], Report], start: int = 1) -> Iterator[Report]:
    """Compiles at one number of samples a chip after another; the last report yielded is the best.

    Every compilation takes minutes, so there are few: doubling as long as it fits and pays, and
    where memory ends it, once more at what the line through the largest two says will fit.

    Args:
      compile_at: samples a chip -> report.
      start: samples a chip to begin with.

    Yields:
      Every report, in the order of compilation, then the best one again: of those that fit and
      come within 2% of the most samples a second, the one with the fewest samples.
    """
    tried: dict[int, Report] = {}
    size = start
    while size:
        report = tried[size] = compile_at(size)
        yield report
        size = _next(tried)
    fitting = [tried[size] for size in sorted(tried) if tried[size].fits]
    most = max(map(_rate, fitting), default=0)
    yield next((r for r in fitting if _WORTH * _rate(r) >= most), tried[min(tried)])


def _rate(report: Report) -> float:
    return report.samples / report.seconds[0]


def _next(tried: dict[int, Report]) -> int:
    """The next number of samples a chip to try, 0 for none."""
    fitting = sorted(n for n, report in tried.items() if report.fits)
    failing = sorted(n for n, report in tried.items() if not report.fits)
    if not fitting:
        return failing[0] // 2
    if not failing:
        last = fitting[-1]
        pays = len(fitting) < 2 or _rate(tried[last]) > _WORTH * _rate(tried[fitting[-2]])
        return 2 * last if pays else 0
    low, high = fitting[-1], failing[0]
    if high > 2 * low or len(failing) > 1:
        return 0
    base, top = tried[low], tried[high]
    slope = (top.used - base.used) / (high - low)
    middle = int(low + (_MARGIN * base.available - base.used) / slope)
    return middle if low < middle < high and middle not in tried else 0
