"""The search for the best batch size per chip."""

from collections.abc import Callable

from talkjax.compile_ahead.report import CompileReport

_WORTH = 1.02  # a larger batch must promise this many times the rate to be worth its memory
_MARGIN = 0.97  # share of the memory that an extrapolation aims at


def best_batch(compile_at: Callable[[int], CompileReport], start: int = 1) -> CompileReport:
    """Compiles at several batch sizes and returns the report of the best one.

    Every compilation takes minutes, so there are few of them: the size doubles as long as the
    program fits and the rate grows. Where memory ends that, one more size is tried, at which a line
    through the last two reports predicts that memory is nearly full.

    Args:
      compile_at: Compiles a number of samples per chip.
      start: Samples per chip to begin with.

    Returns:
      Of the reports that fit and come within 2% of the most samples per second, the one with the
      fewest samples. If none fits, the one with the fewest samples.
    """
    tried: dict[int, CompileReport] = {}
    size = start
    while size:
        tried[size] = compile_at(size)
        size = _next_size(tried)
    fitting = [tried[size] for size in sorted(tried) if tried[size].fits]
    most = max(map(_rate, fitting), default=0)
    return next((r for r in fitting if _WORTH * _rate(r) >= most), tried[min(tried)])


def _rate(report: CompileReport) -> float:
    return report.samples / report.seconds[0]


def _next_size(tried: dict[int, CompileReport]) -> int:
    """Returns the next number of samples per chip to try, 0 for none."""
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
    below, above = tried[low], tried[high]
    slope = (above.used - below.used) / (high - low)
    middle = int(low + (_MARGIN * below.available - below.used) / slope)
    return middle if low < middle < high and middle not in tried else 0
