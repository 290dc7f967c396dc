"""Peak memory of sampling for a short and for a long clip.

    python -m benchmarks.sampling_memory --checkpoint=DIR --video=V --audio=A [--minutes 1 10]

For each length, the given template and speech track are repeated to that length, and `sample.py`
runs on them in its own process. One JSON line reports the largest resident memory of that process.
The face detector's process is not included, because its memory does not depend on the clip.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import wave
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def repeat_video(source: str, seconds: float, out: Path) -> None:
    """Writes the template's ping-pong for so many seconds, so that sampling needs none."""
    from talkjax.media.playback import Clock, iterate_pictures
    from talkjax.media.video import VideoReader
    from talkjax.media.video_writer import VideoWriter

    reader = VideoReader(source)
    times = [time for time, _ in reader.decoded()]
    clock = Clock(lambda i: times[i] if i < len(times) else None, 1 / reader.info.fps, seconds)
    with VideoWriter.like(out, reader.info, preset="ultrafast", crf=23) as writer:
        for shown, frame in zip(clock, iterate_pictures(source), strict=False):
            writer.write(frame.rgb, shown.time)


def repeat_audio(source: str, seconds: float, out: Path) -> None:
    """Writes the speech, repeated to so many seconds, as 16 kHz mono WAV."""
    import numpy as np

    from talkjax.conventions import SAMPLE_RATE
    from talkjax.media.audio import load_audio

    samples = np.resize(load_audio(source), round(seconds * SAMPLE_RATE))
    with wave.open(str(out), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def resident_mib(pid: int) -> float:
    """Returns the resident memory of a process in MiB, or 0 if it has ended (on Linux)."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def measure(command: list[str]) -> tuple[float, float, list[float]]:
    """Runs a command and returns (peak MiB, seconds, MiB at each tenth of the run)."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT)
    samples: list[float] = []

    def record() -> None:
        while process.poll() is None:
            samples.append(resident_mib(process.pid))
            time.sleep(0.2)

    thread = threading.Thread(target=record)
    thread.start()
    code = process.wait()
    thread.join()
    if code:
        sys.exit(code)
    tenths = [samples[len(samples) * i // 10] for i in range(10)]
    return max(samples), time.monotonic() - began, tenths


def main() -> None:
    """Measures every length and prints one JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    for name in ("checkpoint", "video", "audio"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument(
        "--steps",
        type=int,
        default=1,
        help="denoising steps; memory does not depend on them (default: %(default)s)",
    )
    parser.add_argument(
        "--pingpong",
        action="store_true",
        help="use the given template, which sampling plays back and forth",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for minutes in arguments.minutes:
            video, audio = Path(folder) / "v.mp4", Path(folder) / "a.wav"
            repeat_audio(arguments.audio, 60 * minutes, audio)
            if arguments.pingpong:
                video = Path(os.path.abspath(arguments.video))
            else:
                repeat_video(arguments.video, 60 * minutes, video)
            flags = {
                "video": video,
                "audio": audio,
                "checkpoint": os.path.abspath(arguments.checkpoint),
                "out": f"{folder}/o.mp4",
                "steps": arguments.steps,
            }
            named = [f"--{name}={value}" for name, value in flags.items()]
            peak, seconds, tenths = measure([sys.executable, "sample.py", "--quiet", *named])
            result = {"minutes": minutes, "peak_mib": round(peak), "seconds": round(seconds, 1)}
            print(json.dumps(result | {"mib_over_time": [round(m) for m in tenths]}), flush=True)


if __name__ == "__main__":
    main()
