"""Makes the person of a template video or photograph say a speech track.

    uv run sample.py
    uv run sample.py --video=V --audio=A --out=O.mp4
    uv run sample.py --image=I --audio=A --out=O.mp4 --checkpoint=DIR

The output is as long as the speech, has the size and frame rate of the template, carries the speech
track, and differs from the template only around the mouth. The defaults are part of the
package: the video of an avatar, a spoken sentence and a checkpoint that was trained on such
avatars. Without --out, the result is out/demo.mp4, with a contact sheet beside it.
"""

import argparse
import importlib.util
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from talkjax import commands, files, media
from talkjax.errors import UserError

if TYPE_CHECKING:
    from talkjax.metrics.run_sheet import RunSheet
    from talkjax.sampling.summary import Summary

NOTHING_GENERATED = 3  # exit code
_OUT, _SHEET = Path("out", "demo.mp4"), Path("out", "demo.png")
_FILES = (
    "video", "image", "audio", "out", "checkpoint", "sheet", "summary", "c2pa_certificate",
    "c2pa_key",
)  # fmt: skip
_OPTIONS = (
    "steps", "seed", "face", "landmark_guidance", "reference_guidance", "eta", "batch", "crf",
    "lossless", "audio_codec", "audio_track", "keep_occlusions", "reference_sound", "sync_mode",
    "metadata", "c2pa_certificate", "c2pa_key", "c2pa_timestamp_url", "mark",
)  # fmt: skip
_EPILOG = """Compiled programs are cached in ~/.cache/talkjax. Set TALKJAX_COMPILATION_CACHE=0 or
give --no_compilation_cache to turn this off.

Exit codes: 0 success; 2 a flag or an input cannot be used; 3 the output is complete, but none of
its frames has a new mouth; 129, 130 or 143 stopped by a signal. An output that is not complete
leaves no file.
"""


def make_parser() -> commands.Parser:
    """Creates the parser of the command line."""
    parser = commands.Parser(
        __doc__,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    # fmt: off
    add("--video", metavar="FILE",
        help="template: a video (see --sync_mode), or a photograph")
    add("--image", metavar="FILE",
        help="template photograph (PNG, JPEG, WebP, BMP or AVIF); --video takes one as well")
    add("--audio", metavar="FILE", help="speech: any audio or video file")
    add("--out", metavar="FILE",
        help=f"output file: .mp4, .m4v, .mov or .mkv (default: {_OUT})")
    add("--checkpoint", metavar="DIR",
        help="folder of exported weights, directory of a training run, or id (owner/name) of a "
        "Hugging Face repository (default: the bundled checkpoint)")
    add("--personalize", type=commands.bounded(float, 0.1, 600), metavar="MINUTES",
        help="first adapt the checkpoint to the template's person, as talkjax-personalize does, "
        "for at most so many minutes; the result is in OUT_person, beside the output, and is used "
        "again by the next run")
    add("--sheet", metavar="FILE",
        help="write a contact sheet (.png) of the first 20 seconds "
        f"(default without --out: {_SHEET})")
    add("--steps", type=int, metavar="N",
        help="number of denoising steps; 0 warps the mouth out of the template's own frames, "
        "without the denoiser (default: the checkpoint's own; that of the bundled one is 0 for "
        "videos and 1 for photographs)")
    add("--seed", type=int, default=0, metavar="S",
        help="seed of the initial noise (default: %(default)s)")
    add("--face", default="largest", metavar="WHICH",
        help="which face speaks: the 'largest'; a number, counted from 0 on the left; the one "
        "that is at a point in pixels at a time, such as 12.5s:640,360; or 'speaking', the one "
        "whose lips move with the template's own sound. Scenes without that point or a clear "
        "speaker use the largest (default: %(default)s)")
    add("--landmark_guidance", type=float, default=1.0, metavar="X",
        help="how strongly the mouth follows the predicted landmarks: the scale of classifier-free "
        "guidance, which 1 turns off (default: %(default)s)")
    add("--reference_guidance", type=float, default=1.0, metavar="X",
        help="how strongly the mouth follows the reference image, as above. Two different scales "
        "take up to 3 times as long (default: %(default)s)")
    add("--eta", type=float, default=0.0, metavar="X",
        help="randomness of the DDIM sampler, from 0 (none) to 1 (default: %(default)s)")
    add("--batch", type=int, default=0, metavar="N",
        help="number of frames that are generated at once; 0 chooses by the device "
        "(default: %(default)s)")
    add("--crf", type=float, default=18.0, metavar="X",
        help="H.264 quality, from 0 (best) to 51 (default: %(default)s)")
    add("--audio_codec", default="auto", metavar="HOW",
        help="'copy' the sound unchanged, encode it as 'aac', or 'auto': copy it if the usual "
        "players of the output play it, and encode it otherwise (default: %(default)s)")
    add("--audio_track", type=int, metavar="N",
        help="number of the audio track with the speech, counted from 0 (default: the one that "
        "players play)")
    add("--sync_mode", default="bounce", metavar="MODE",
        help="what happens where the template is shorter than the speech: it plays back and forth "
        "('bounce'), it starts again ('loop'), the output ends with it ('cut_off'), or its last "
        "picture stands while the lips move on ('hold') (default: %(default)s)")
    add("--no_keep_occlusions", dest="keep_occlusions", action="store_false",
        help="paint the new mouth over hands and objects in front of the face, which otherwise "
        "stay visible")
    add("--no_reference_sound", dest="reference_sound", action="store_false",
        help="do not learn from the template's own sound how the person speaks, for example where "
        "it is not this person's")
    add("--no_metadata", dest="metadata", action="store_false",
        help="leave out the comment in the file that says that it is synthetic, and which version "
        "and checkpoint made it")
    add("--mark", nargs="?", default="", const="AI-generated", metavar="TEXT",
        help="write a text into the lower right corner of every frame; 'AI-generated' where no "
        "text is given (default: none)")
    add("--c2pa_certificate", metavar="FILE",
        help="sign the output with C2PA Content Credentials by this certificate, a PEM file that "
        "also holds those above it; `talkjax-provenance --trial_certificate=DIR` makes one for "
        "trials. C2PA does not know .mkv")
    add("--c2pa_key", metavar="FILE", help="PEM file of the private key of the certificate")
    add("--c2pa_timestamp_url", metavar="URL",
        help="RFC 3161 time-stamp authority, with whose time stamp the signature stays valid after "
        "the certificate has expired")
    add("--lossless", action="store_true", help="write RGB without loss; the file is large")
    add("--summary", metavar="FILE", help="write a summary of the run as JSON")
    add("--quiet", action="store_true", help="show no progress bar and no summary")
    add("--no_compilation_cache", action="store_true", help="compile again in every run")
    # fmt: on
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code; `argv` does not include the program's name."""
    arguments = make_parser().parse_args(argv)
    with commands.flags_in_errors(vars(arguments)):
        summary = _generate(arguments)
    if summary.frames_generated:
        return 0
    why = "no face is seen" if not summary.frames_occluded else "the mouth is hidden or not seen"
    print(f"warning: {summary.output}: no frame has a new mouth, because {why}", file=sys.stderr)
    return NOTHING_GENERATED


def run() -> NoReturn:
    """Runs the command on the arguments of the program."""
    commands.run(main)


def _generate(arguments: argparse.Namespace) -> "Summary":
    start = time.monotonic()
    check_arguments(arguments)
    media.check_packages()
    from talkjax.media.container import check_local_file

    for path in filter(None, (arguments.video, arguments.image, arguments.audio)):
        check_local_file(path)

    from talkjax.sampling import Options, Sampler, bundled, compile_cache, label

    if not (arguments.video or arguments.image):
        arguments.video = bundled.template()
    options = Options(**{name: getattr(arguments, name) for name in _OPTIONS})
    audio = arguments.audio or bundled.speech()
    checkpoint = arguments.checkpoint or bundled.checkpoint()
    out, sheet_file = arguments.out or _OUT, arguments.sheet
    if not arguments.out:
        _make_folder(_OUT.parent)
        if not sheet_file and importlib.util.find_spec("matplotlib"):  # of the extra `eval`
            sheet_file = _SHEET
    # What cannot be signed in the end is said before anything that takes long.
    label.open_signature(options, out, arguments.video or arguments.image)
    if not arguments.no_compilation_cache:
        compile_cache.enable()
    if arguments.personalize:
        checkpoint = _personalize(arguments, checkpoint, out)
    imported = time.monotonic()
    sampler = Sampler.from_pretrained(checkpoint)
    loaded = time.monotonic()
    sheet = None
    if sheet_file:
        from talkjax.metrics.run_sheet import RunSheet

        sheet = RunSheet()
    summary = sampler.generate(
        video=arguments.video,
        image=arguments.image,
        audio=audio,
        out=out,
        options=options,
        progress=not arguments.quiet,
        callback=sheet.add_frame if sheet else None,
    )
    summary.phases |= {"importing": imported - start, "loading": loaded - imported}
    if sheet:
        with summary.phase("sheet"):
            _write_sheet(sheet, sheet_file, arguments, out)
    if arguments.summary:
        files.write_json(arguments.summary, summary.as_dict())
    if not arguments.quiet:
        print(summary.text())
        if sheet:
            print(f"{os.fsdecode(sheet_file)}: template, result, sound and mouth opening")
    return summary


def _personalize(arguments: argparse.Namespace, checkpoint: str | Path, out: str | Path) -> Path:
    """Adapts the checkpoint to the person of the template; returns the folder of the result."""
    from talkjax.personalization.personalize import personalize

    folder = Path(out).with_suffix("")
    folder = folder.with_name(f"{folder.name}_person")
    face = arguments.face if re.fullmatch(r"largest|[0-9]+", arguments.face) else "largest"
    personalize(
        arguments.video, folder, checkpoint=checkpoint, minutes=arguments.personalize, face=face,
        quiet=arguments.quiet,
    )  # fmt: skip
    return folder


def check_arguments(arguments: argparse.Namespace) -> None:
    """Checks what can be checked before anything is loaded.

    Raises:
      UserError: Options contradict each other, or a file cannot be written.
    """
    for name in _FILES:
        if getattr(arguments, name) == "":
            raise UserError(f"--{name} is empty; name a file, or leave the flag out")
    if arguments.video is not None and arguments.image is not None:
        raise UserError("two templates are given; give either --video=FILE or --image=FILE")
    if arguments.personalize and arguments.image:
        raise UserError("--personalize needs a video of the person speaking; give --video=FILE")
    if arguments.sheet and not arguments.sheet.lower().endswith(".png"):
        raise UserError(f"{arguments.sheet}: --sheet must end in .png")
    for name in ("summary", "sheet"):
        if path := getattr(arguments, name):
            _check_output(path, name, arguments)


def _check_output(path: str, name: str, arguments: argparse.Namespace) -> None:
    """Checks the file that the flag --NAME writes beside the video."""
    if not os.access(os.path.dirname(path) or ".", os.W_OK):
        raise UserError(f"{path}: its directory is missing or not writable")
    if os.path.isdir(path):
        raise UserError(f"{path}: is a directory; give the name of a file")
    for other in filter(None, (arguments.video, arguments.image, arguments.audio)):
        if all(map(os.path.exists, (path, other))) and os.path.samefile(path, other):
            raise UserError(f"{path}: is an input as well; give another --{name}")
    outputs = [getattr(arguments, o) for o in ("out", "summary", "sheet") if o != name]
    if os.path.abspath(path) in map(os.path.abspath, filter(None, outputs)):
        raise UserError(f"{path}: two outputs have this name; give another --{name}")


def _make_folder(folder: Path) -> None:
    """Creates the folder of the default output."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be created ({error.strerror}); give --out=FILE"
        ) from error


def _write_sheet(
    sheet: "RunSheet", path: str | Path, arguments: argparse.Namespace, out: str | Path
) -> None:
    """Draws and writes the contact sheet of a finished run."""
    from talkjax.pictures import write_png
    from talkjax.sampling import pipeline, template

    mode = arguments.sync_mode
    shown = template.open_template(arguments.video, arguments.image, sync_mode=mode)
    with pipeline.make_detector(arguments.face) as detector:
        image = sheet.draw(shown, out, detector)
    write_png(path, image)


if __name__ == "__main__":
    run()
