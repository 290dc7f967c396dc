import pytest

from talkjax.compile_ahead import report, search, slices


def fake(each, *, base=2 << 30, sample=1 << 30, fixed=0.004, per_sample=0.001, chips=4):
    """A chip of 16 GiB; the step takes `fixed` seconds and more by the sample."""
    used = base + each * sample
    chip = slices.CHIPS["v5e"]
    return report.Report(
        slices.parse("v5e-4"), chips, each * chips, 1.0, used, chip.hbm,
        flops=chip.flops * (fixed + per_sample * each), model_flops=chip.flops * per_sample * each,
    )  # fmt: skip


def tried(**settings):
    sizes = []

    def compile_at(each):
        sizes.append(each)
        return fake(each, **settings)

    *_, best = search.best_batch(compile_at, settings.pop("start", 1))
    return sizes, best.samples // 4


def test_doubles_and_fills_the_memory():
    sizes, best = tried()
    assert sizes == [1, 2, 4, 8, 16, 13] and best == 13
    assert fake(13).fits and not fake(16).fits


def test_stops_where_more_does_not_pay():
    sizes, best = tried(sample=1 << 20, fixed=0.0001)
    assert sizes == [1, 2, 4, 8] and best == 8  # 5%, 2.4% and 1.3% more


def test_goes_down_when_even_the_first_does_not_fit():
    *_, best = search.best_batch(lambda n: fake(n), 64)
    assert best.samples // 4 in range(8, 15)
    *_, best = search.best_batch(lambda n: fake(n, base=20 << 30), 2)
    assert not best.fits


def test_report_arithmetic():
    one = report.Report(
        slices.parse("v5e-4"), 4, 8, 60.0, 8 << 30, 16 << 30,
        flops=2 * 197e9, model_flops=197e9, traffic=819e6, sent={"all-reduce": (3, 50_000_000)},
    )  # fmt: skip
    times = {"compute": 2e-3, "HBM": 1e-3, "network": 0.5e-3}  # the sum goes round twice
    assert one.times == pytest.approx(times)
    assert one.seconds == pytest.approx((2e-3, 3.5e-3))
    assert one.mfu == pytest.approx((1 / 3.5, 0.5))
    text = "\n".join(one.lines())
    assert "fits: memory 8.00 GiB of 16.00 GiB" in text and "3 all-reduce" in text
    assert one.row().count("|") == report.HEADER.splitlines()[0].count("|")
    full = report.Report(slices.parse("v5e-4"), 4, 8, 60.0, 20 << 30, 16 << 30)
    assert "DOES NOT FIT" in full.lines()[1] and "4.00 GiB too much" in full.lines()[1]
    assert full.row().count("|") == one.row().count("|")
