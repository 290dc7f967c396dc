"""The search for the best batch."""

from talkjax.compile_ahead import report, search, slices


def fake(each, *, base=2 << 30, sample=1 << 30, fixed=0.004, per_sample=0.001, chips=4):
    """A chip of 15.75 GiB; the step takes `fixed` seconds and more by the sample."""
    used = base + each * sample
    chip = slices.CHIPS["v5e"]
    return report.CompileReport(
        slices.parse_slice("v5e-4"), chips, each * chips, 1.0, used, chip.hbm,
        flops=chip.flops * (fixed + per_sample * each), model_flops=chip.flops * per_sample * each,
    )  # fmt: skip


def tried(**settings):
    sizes = []

    def compile_at(each):
        sizes.append(each)
        return fake(each, **settings)

    best = search.best_batch(compile_at, settings.pop("start", 1))
    return sizes, best.samples // 4


def test_doubles_and_fills_the_memory():
    sizes, best = tried()
    assert sizes == [1, 2, 4, 8, 16, 13] and best == 13
    assert fake(13).fits and not fake(16).fits


def test_stops_where_more_does_not_pay():
    sizes, best = tried(sample=1 << 20, fixed=0.0001)
    assert sizes == [1, 2, 4, 8] and best == 4  # 5%, 2.4% and 1.3% more


def test_goes_down_when_even_the_first_does_not_fit():
    best = search.best_batch(lambda n: fake(n), 64)
    assert best.samples // 4 in range(8, 15)
    best = search.best_batch(lambda n: fake(n, base=20 << 30), 2)
    assert not best.fits
