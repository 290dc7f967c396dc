"""sample.py --personalize, with real footage, the real face detector and the bundled checkpoint."""

import cv2
import pytest

from talkjax import commands, files
from talkjax.media import video, video_writer
from talkjax.sampling import command


@pytest.mark.slow
def test_a_person_speaks_after_half_a_minute(shared_data, tmp_path, capsys):
    source = shared_data / "people_gov" / "president_clip1.mp4"
    person = tmp_path / "person.mp4"
    reader = video.VideoReader(source)
    with video_writer.VideoWriter.like(person, reader.info, audio=source, cut_audio=True) as writer:
        for frame in reader:
            if frame.time >= 8:
                break
            writer.write(frame.rgb, frame.time)
    arguments = [
        f"--video={person}", f"--audio={shared_data / 'audio' / 'speech_16k.wav'}",
        f"--out={tmp_path / 'said.mp4'}", "--personalize=0.1",
        f"--summary={tmp_path / 'summary.json'}",
    ]  # fmt: skip
    assert commands.run_main(command.main, arguments) == 0
    out = tmp_path / "said_person"
    report = files.read_json_object(out / "report.json", "")
    assert report["footage"]["train_seconds"] + report["footage"]["held_out_seconds"] > 7.5
    assert report["footage"]["agreement"] > 0.3
    for part in ("landmarks", "videos"):
        assert report[part]["before"]["opening_correlation"] is not None
    sheet = cv2.imread(str(out / "before_after.png"))
    assert sheet is not None and sheet.shape[0] > 200
    summary = files.read_json_object(tmp_path / "summary.json", "")
    assert summary["frames_generated"] == summary["frames"]
    assert "sound: " in capsys.readouterr().out  # it is later than the picture in this footage


def test_a_photograph_has_no_speech_to_learn_from(capsys):
    arguments = ["--image=i.png", "--personalize=1"]
    assert commands.run_main(command.main, arguments) == 2
    assert "needs a video of the person speaking" in capsys.readouterr().err
