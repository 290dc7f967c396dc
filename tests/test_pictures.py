import cv2
import numpy as np

from talkjax import pictures


def test_a_written_png_reads_back(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (13, 7, 3), dtype=np.uint8)
    pictures.write_png(tmp_path / "new" / "a.png", image, "truth | prediction")
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "new" / "a.png"))[..., ::-1], image)
    assert b"truth | prediction" in (tmp_path / "new" / "a.png").read_bytes()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


def test_a_grid_has_a_row_per_example_and_a_column_per_name():
    truth = np.full((3, 4, 5, 3), -1.0, np.float32)
    truth[1] = 1.0
    other = np.full((2, 2, 6, 3), 7, np.uint8)  # fewer and smaller ones, already bytes
    sheet = pictures.grid({"truth": truth, "other": other})
    assert sheet.shape == (2 * 6 - 2, 5 + 2 + 6, 3)
    assert not sheet[:4, :5].any()
    assert (sheet[6:, :5] == 255).all()
    assert (sheet[:2, 7:] == 7).all()


def test_what_is_no_number_or_too_bright_is_still_shown():
    images = np.array([np.nan, -9.0, 0.0, 9.0], np.float32).reshape(1, 1, 4, 1)
    sheet = pictures.grid({"x": np.broadcast_to(images, (1, 1, 4, 3))})
    assert sheet[0, :, 0].tolist() == [0, 0, 128, 255]
