import numpy as np
import pytest

from talkjax.errors import UserError
from talkjax.metrics import packages, plots, run_sheet


def test_a_plot_has_the_requested_width_and_shows_its_curves():
    curve = 0.3 + 0.2 * np.sin(np.arange(50) / 3)
    gap = curve.copy()
    gap[20:30] = np.nan
    image = plots.plot_openings({"truth": curve, "model": gap}, "50% of a$b$c", 640)
    assert image.shape == (300, 640, 3) and image.dtype == np.uint8
    red = (image[..., 0] > 150) & (image[..., 1] < 100)
    assert red[:, :250].any() and red[:, -150:].any()  # on both sides of the gap
    sound = np.sin(np.arange(16000))
    assert plots.plot_openings({"truth": curve}, "", 640, sound, 8000, (0.5,)).shape[0] == 370


def test_curves_without_a_number_and_of_one_tick():
    for ticks in (0, 1, 5):
        assert plots.plot_openings({"truth": np.full(ticks, np.nan)}).shape == (300, 900, 3)


def test_a_missing_package_is_named_with_the_extra(monkeypatch):
    monkeypatch.setattr(packages, "is_installed", lambda name: name != "matplotlib")
    packages.require("scipy")
    for make in (run_sheet.RunSheet, lambda: plots.plot_openings({"truth": np.zeros(5)})):
        with pytest.raises(UserError, match=r"matplotlib cannot be imported; .*talkjax\[eval\]"):
            make()
