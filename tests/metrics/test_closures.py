import json

import numpy as np
import pytest

from talkjax.metrics import closures


def curve(ticks=100):
    return 0.2 + 0.1 * np.sin(np.arange(ticks) / 3)


def test_shut_lips_are_counted():
    truth = curve()
    truth[:10] = truth[[20, 21, 50, 51, 80]] = 0.0
    due = np.array([[0.80, 0.84], [2.0, 2.04], [3.16, 3.24]])
    assert closures.closed_share(truth, truth, due) == 1
    opening = truth.copy()
    opening[80] = 0.15
    assert closures.closed_share(opening, truth, due) == pytest.approx(2 / 3)
    assert closures.closed_share(curve(), truth, due) == 0


def test_the_window_is_60_ms_to_either_side_of_the_middle():
    truth = curve()
    truth[:10] = truth[40] = 0.0
    for middle, share in ((1.6, 1), (1.65, 1), (1.55, 1), (1.67, 0), (1.53, 0)):
        due = np.array([[middle - 0.03, middle + 0.03]])
        assert closures.closed_share(truth, truth, due) == share, middle


def test_the_threshold_is_a_tenth_of_the_truths_range():
    truth = np.tile([0.1, 0.5], 50)  # closed lips are seen as 0.1, the range is 0.4
    due = np.array([[0.4, 0.4]])
    for gap, share in ((0.139, 1), (0.141, 0)):
        assert closures.closed_share(np.full(100, gap), truth, due) == share


def test_what_is_not_seen_does_not_count():
    truth = curve()
    truth[:10] = truth[40] = 0.0
    due = np.array([[1.6, 1.6], [9.0, 9.1]])
    assert closures.closed_share(truth, truth, due) == 1
    unseen = truth.copy()
    unseen[38:43] = np.nan
    assert np.isnan(closures.closed_share(unseen, truth, due))
    assert np.isnan(closures.closed_share(truth, truth, np.zeros((0, 2))))
    assert np.isnan(closures.closed_share(truth, np.zeros(100), due))
    assert np.isnan(closures.closed_share(truth, np.full(100, np.nan), due))


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "null", '{"format": "x", "bilabial": []}', '{"format": "talkjax-truth"}',
        '{"format": "talkjax-truth", "bilabial": [1]}',
        '{"format": "talkjax-truth", "bilabial": [[NaN, 1]]}',
    ],
)  # fmt: skip
def test_other_files_beside_a_video_are_no_truth(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert closures.read_closures(tmp_path / "a.mp4") is None
    assert closures.read_closures(tmp_path / "none.mp4") is None


def test_a_sidecar_is_read(tmp_path):
    content = {"format": "talkjax-truth", "bilabial": [[0.5, 0.6]], "more": 1}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert closures.read_closures(tmp_path / "a.mp4").tolist() == [[0.5, 0.6]]
