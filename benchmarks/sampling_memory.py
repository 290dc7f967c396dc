"""Speed and peak memory of sampling for a short and for a long speech.

    python -m benchmarks.sampling_memory [--seconds 60 300] [--steps 2] [--root DIR]

For each length, the speech is repeated to that length, and `sample.py` runs on it in its own
process, by default with the bundled template, which sampling plays back and forth. One JSON line
reports frames per second and the largest memory (proportional set size) of that process and its
children, among them the face detector's. `--root` measures another working copy of the project.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
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


def parents() -> dict[int, int]:
    """Returns the parent of every process (on Linux)."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    return found


def memory_mib(pid: int) -> float:
    """Returns the memory of a process and its descendants in MiB; shared pages count once."""
    parent_of, family, total = parents(), {pid}, 0.0
    while more := {p for p, parent in parent_of.items() if parent in family} - family:
        family |= more
    for member in family:
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
    return total


def measure(command: list[str], root: Path) -> list[float]:
    """Runs a command and returns MiB over time."""
    process = subprocess.Popen(command, cwd=root)
    samples: list[float] = []
    while process.poll() is None:
        samples.append(memory_mib(process.pid))
        time.sleep(0.5)
    if process.returncode:
        sys.exit(process.returncode)
    return samples


def main() -> None:
    """Measures every length and prints one JSON line for each."""
    assets = ROOT / "talkjax" / "assets" / "demo"
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--checkpoint", help="default: the bundled one")
    parser.add_argument("--video", default=assets / "template.mp4", help="default: the bundled one")
    parser.add_argument("--audio", default=assets / "speech.flac", help="default: the bundled one")
    parser.add_argument("--root", type=Path, default=ROOT, help="working copy that is measured")
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0, 300.0])
    parser.add_argument(
        "--steps",
        type=int,
        default=2,
        help="denoising steps; memory does not depend on them (default: %(default)s)",
    )
    parser.add_argument(
        "--repeat_video",
        action="store_true",
        help="write a template as long as the speech, so that sampling plays it once",
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for seconds in arguments.seconds:
            video, audio = Path(folder) / "v.mp4", Path(folder) / "a.wav"
            repeat_audio(os.fspath(arguments.audio), seconds, audio)
            if arguments.repeat_video:
                repeat_video(os.fspath(arguments.video), seconds, video)
            else:
                video = Path(os.path.abspath(arguments.video))
            summary = Path(folder) / "summary.json"
            flags = {
                "video": video,
                "audio": audio,
                "out": f"{folder}/o.mp4",
                "summary": summary,
                "steps": arguments.steps,
            }
            if arguments.checkpoint:
                flags["checkpoint"] = os.path.abspath(arguments.checkpoint)
            named = [f"--{name}={value}" for name, value in flags.items()]
            used = measure([sys.executable, "sample.py", "--quiet", *named], arguments.root)
            made = json.loads(summary.read_text())
            result = {
                "speech_s": seconds,
                "frames": made["frames"],
                "frames_per_second": round(made["frames_per_second"], 2),
                "peak_mib": round(max(used)),
                "mib_over_time": [round(used[len(used) * i // 10]) for i in range(10)],
            }
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
