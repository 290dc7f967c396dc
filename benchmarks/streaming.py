"""Latency, speed and memory of live sessions.

    python -m benchmarks.streaming [--minutes 30] [--steps 0] [--look_ahead_ms 200] [--chunk 3]
    python -m benchmarks.streaming --media_minutes 20 [--plot memory.png]

Prepares the template, opens sessions, and prints one JSON line for each of these:

- `start`: seconds to prepare the template, and to open the first and the second session.
- `first_frame`: milliseconds from the first sound to the first frame that speaks, for sound that
  comes as fast as it is said (a microphone) and for sound that is there at once (a synthesiser).
- `speed`: frames a second where nothing waits for its time, and the processor time of a frame,
  which depends less on what else the machine does.
- `soak`: so many minutes in real time. A microphone says the speech again and again, with pauses.
  `late_ms` is by how much frames came after they were due, `age_ms` how old their sound was,
  `behind_ms` by how much the session fell behind the clock in all, `drift_ms` what sound and
  pictures differ by in the end, `gaps` the number of frames without sound within speech,
  `repeated` that of frames for which there was no time, and `mib_over_time` the memory of the
  process.
- `media_soak`: so many minutes of output, as fast as they are made. `seconds` is how long it took,
  `mib_over_time` the memory of the process, 40 times (also in lines `memory` while it runs), and
  `mib_growth` the difference between the medians of its last and its second quarter.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.sampling_memory import memory_mib
from talkjax.conventions import SAMPLE_RATE, TICKS_PER_SECOND

PIECE = 320  # samples that a microphone sends at a time, 20 ms
PAUSE_S = 1.0
MEMORY_SAMPLES = 40


def report(name: str, **values) -> None:
    """Prints one line of JSON."""
    print(json.dumps({"what": name, **values}), flush=True)


def speak(session, wave: np.ndarray, pushed: list[float]) -> None:
    """Pushes speech as fast as it is said; notes when each piece began to be said."""
    start = time.monotonic()
    for first in range(0, len(wave), PIECE):
        piece = wave[first : first + PIECE]
        time.sleep(max(start + (first + len(piece)) / SAMPLE_RATE - time.monotonic(), 0))
        pushed.append(start + first / SAMPLE_RATE)
        session.push_audio(piece)
    session.flush()


def first_frame(open_session, wave: np.ndarray, microphone: bool) -> float:
    """Returns milliseconds from the first sound to the first frame that speaks."""
    with open_session() as session:
        for _ in range(10):
            next(session)
        start, pushed = time.monotonic(), []
        if microphone:
            thread = threading.Thread(target=speak, args=(session, wave, pushed))
            thread.start()
        else:
            session.push_audio(wave)
            session.flush()
        while not next(session).speaking:
            pass
        took = time.monotonic() - start
        if microphone:
            thread.join()
    return round(1000 * took, 1)


def speed(open_session, wave: np.ndarray) -> dict[str, float]:
    """Measures frames a second and processor time a frame, of speech and at rest."""
    with open_session(realtime=False) as session:
        counts = {}
        for name in ("speaking", "resting"):
            count, start, used = 0, time.monotonic(), time.process_time()
            while time.monotonic() - start < 5:
                if name == "speaking":
                    session.push_audio(wave)
                    session.flush()
                    while not next(session).end_of_speech:
                        count += 1
                count += 1
                if name == "resting":
                    next(session)
            counts[name] = round(count / (time.monotonic() - start), 1)
            counts[f"{name}_cpu_ms"] = round(1000 * (time.process_time() - used) / count, 1)
    return counts


def soak(open_session, wave: np.ndarray, minutes: float) -> dict:
    """Runs a session in real time."""
    late, age, memory = [], [], []
    sound_samples = said = gaps = 0
    with open_session() as session:
        first = next(session)
        start = time.monotonic()
        shown, speaking, next_memory = 0, False, 0.0
        pushed: list[float] = []
        thread = None
        while time.monotonic() - start < 60 * minutes:
            if thread is None and shown % (10 * TICKS_PER_SECOND) == TICKS_PER_SECOND:
                pushed, said = [], 0
                thread = threading.Thread(target=speak, args=(session, wave, pushed))
                thread.start()
            item = next(session)
            now = time.monotonic()
            late.append(now - item.due)
            sound_samples += len(item.sound)
            shown += 1
            if item.speaking:
                age.append(now - pushed[0] - said / TICKS_PER_SECOND)
                said += 1
            elif speaking:
                gaps += 1
            speaking = item.speaking and not item.end_of_speech
            if item.end_of_speech:
                thread.join()
                thread = None
            if now - start >= next_memory:
                memory.append(round(memory_mib(os.getpid())))
                next_memory += max(6 * minutes, 1)
        elapsed = time.monotonic() - start
        behind = item.due - first.due - shown / TICKS_PER_SECOND
        if thread is not None:
            thread.join()
    return {
        "minutes": minutes,
        "frames_per_second": round(shown / elapsed, 3),
        "late_ms": dict(zip(("median", "p99", "most"), _quantiles(late), strict=True)),
        "age_ms": dict(zip(("median", "p99", "most"), _quantiles(age), strict=True)),
        "behind_ms": round(1000 * behind, 1),
        "drift_ms": round(1000 * (sound_samples / SAMPLE_RATE - shown / TICKS_PER_SECOND), 3),
        "gaps": gaps,
        "dropped": session.dropped,
        "repeated": session.repeated,
        "mib_over_time": memory,
    }


def media_soak(open_session, wave: np.ndarray, minutes: float) -> dict:
    """Runs a session as fast as it goes: speech, one second of rest, speech."""
    frames, memory, shown = round(60 * minutes * TICKS_PER_SECOND), [], 0
    start = time.monotonic()
    with open_session(realtime=False) as session:
        while shown < frames:
            session.push_audio(wave)
            session.flush()
            rest = TICKS_PER_SECOND  # frames of the pause that are still to be read
            while rest and shown < frames:
                item = next(session)
                shown += 1
                rest -= not item.speaking
                if shown * MEMORY_SAMPLES // frames > len(memory):
                    memory.append(round(memory_mib(os.getpid()), 1))
                    report("memory", minutes=round(shown / frames * minutes, 2), mib=memory[-1])
    quarters = np.array_split(np.array(memory), 4)
    return {
        "minutes": minutes,
        "seconds": round(time.monotonic() - start),
        "mib_growth": round(float(np.median(quarters[3]) - np.median(quarters[1])), 1),
        "mib_over_time": memory,
    }


def plot_memory(mib: list[float], minutes: float, path: str) -> None:
    """Draws memory over the minutes of the output."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 2.5), layout="constrained")
    axes.plot(np.arange(1, len(mib) + 1) * minutes / len(mib), mib)
    axes.set(xlabel="minutes of output", ylabel="MiB", ylim=(0, 1.2 * max(mib)))
    figure.savefig(path, dpi=100)


def _quantiles(seconds: list[float]) -> list[float]:
    return [round(1000 * float(np.quantile(seconds, q)), 1) for q in (0.5, 0.99, 1.0)]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    assets = Path(__file__).resolve().parents[1] / "talkjax" / "assets" / "demo"
    parser.add_argument("--checkpoint", help="default: the bundled one")
    parser.add_argument("--template", default=assets / "template.mp4", help="default: the bundled")
    parser.add_argument("--avatar", help="a prepared template, instead of preparing one")
    parser.add_argument("--audio", default=assets / "speech.flac", help="default: the bundled one")
    parser.add_argument("--minutes", type=float, default=1.0, help="of the soak; 0 for none")
    parser.add_argument(
        "--media_minutes", type=float, default=0.0, help="of the soak faster than real time"
    )
    parser.add_argument("--plot", help="PNG of the memory of that soak")
    parser.add_argument("--steps", type=int, default=0, help="denoising steps (default: 0)")
    parser.add_argument("--look_ahead_ms", type=float, default=200.0)
    parser.add_argument("--chunk", type=int, default=3, help="frames that are made together")
    arguments = parser.parse_args()

    import talkjax
    from talkjax.media.audio import load_audio
    from talkjax.sampling import compile_cache

    compile_cache.enable()
    sampler = talkjax.Sampler.from_pretrained(arguments.checkpoint)
    wave = load_audio(arguments.audio)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        avatar = arguments.avatar or talkjax.prepare_avatar(
            arguments.template, f"{folder}/avatar.safetensors", sampler=sampler
        )
        prepared = time.monotonic() - begun

        def open_session(**settings):
            return sampler.stream(
                avatar,
                options=talkjax.Options(steps=arguments.steps),
                look_ahead_ms=arguments.look_ahead_ms,
                chunk=arguments.chunk,
                **settings,
            )

        opened = []
        for _ in range(2):
            begun = time.monotonic()
            open_session().close()
            opened.append(round(time.monotonic() - begun, 3))
        size = os.path.getsize(avatar) / 2**20
        report("start", prepare_s=round(prepared, 2), open_s=opened, avatar_mib=round(size, 2))
        for source in ("microphone", "synthesiser"):
            times = [first_frame(open_session, wave, source == "microphone") for _ in range(5)]
            report("first_frame", source=source, median_ms=float(np.median(times)), all_ms=times)
        report("speed", **speed(open_session, wave))
        if arguments.minutes:
            report("soak", **soak(open_session, wave, arguments.minutes))
        if arguments.media_minutes:
            result = media_soak(open_session, wave, arguments.media_minutes)
            report("media_soak", **result)
            if arguments.plot:
                plot_memory(result["mib_over_time"], arguments.media_minutes, arguments.plot)


if __name__ == "__main__":
    main()
