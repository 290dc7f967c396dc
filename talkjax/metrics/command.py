"""Evaluates a checkpoint, or the videos of any other system, on held-out clips.

  evaluate.py --checkpoint=DIR --data=SHARDS --split=test --out=report.json
  evaluate.py --checkpoint=DIR --videos=DIR --holdout=60 --clips=12 --out=report.json
  evaluate.py --generated=DIR --truth=DIR --out=report.json
  evaluate.py --landmarks_only --checkpoint=DIR --data=SHARDS --split=test

The first two generate videos, decode the files, find the faces in them and measure them: the model
with its own audio, with another clip's and with silence, beside the ground truth and baselines
that cannot lip-sync (talkjax/metrics/protocol.py defines every row and number). Prepared shards
hold crops only, so the original videos are needed: those in --videos, or in the folder that the
shards were prepared from. The third measures existing videos against the originals of the same
name, without a model.

Next to report.json come report.md (a table), report.csv (every clip) and the folder report.sheets
(contact sheets and plots of the best, the median and the worst clip). Generated videos are kept in
--work; an interrupted evaluation that is started again continues where it stopped.

The fourth measures the landmark network alone, before any picture is made: by clip, and by person
with the lag at which the lips fit the sound best. With --out it plots the openings of five people.
"""

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talkjax import commands, files
from talkjax.errors import UserError
from talkjax.metrics import packages

# Everything else is imported once the flags have been checked, so that mistakes are reported fast.
if TYPE_CHECKING:
    import numpy as np

    from talkjax.metrics.clip_evaluator import MetricModels
    from talkjax.metrics.evaluator import EvaluationResult
    from talkjax.metrics.videos import EvaluationClip

_DAY = 86400.0  # seconds
_PLOTTED = 5  # people


def make_parser() -> commands.Parser:
    """Creates the command line."""
    parser = commands.Parser(__doc__, prog="evaluate.py")
    add = parser.add_argument_group("what to evaluate").add_argument
    add("--checkpoint", metavar="DIR", help="exported checkpoint, or directory of a training run")
    add("--generated", metavar="DIR", help="folder of another system's videos")
    add("--truth", metavar="DIR", help="folder of their originals, which have the same names")
    add("--landmarks_only", action="store_true",
        help="evaluate only the landmark network of --checkpoint, on --data")  # fmt: skip

    add = parser.add_argument_group("what to evaluate it on").add_argument
    add("--data", metavar="DIR", help="folder made by data_pipelines.prepare")
    add("--split", default="test", help="split of --data (default: %(default)s)")
    add("--videos", metavar="DIR", help="folder of the original videos")
    add("--list", metavar="FILE", help="text file that names some of --videos, one per line")
    add("--holdout", type=commands.bounded(int, 1), metavar="N",
        help="use only the last N of --videos by name")  # fmt: skip
    add("--clips", type=commands.bounded(int, 1), metavar="N",
        help="use at most N clips, evenly spread (default: all)")  # fmt: skip
    add("--seconds", type=commands.bounded(float, 1, _DAY), default=20.0, metavar="X",
        help="cut longer clips after X seconds (default: %(default)s)")  # fmt: skip
    add("--rows", type=commands.comma_separated, default=[], metavar="ROW,...",
        help="evaluate only some rows, e.g. model,cross_driven (default: all)")  # fmt: skip

    add = parser.add_argument_group("sampling").add_argument
    add("--steps", type=commands.bounded(int, 0), metavar="N",
        help="denoising steps; 0 warps frames of the template (default: the checkpoint's own)",
        )  # fmt: skip
    add("--reference_seconds", type=commands.bounded(float, 0, _DAY), default=10.0, metavar="X",
        help="seconds of a template that references are taken from; 0 takes the first frame alone, "
        "as if the template were a photograph (default: %(default)s)")  # fmt: skip
    add("--landmark_guidance", type=float, default=1.0, metavar="X",
        help="scale of classifier-free guidance by the landmarks; 1 is none (default)")  # fmt: skip
    add("--reference_guidance", type=float, default=1.0, metavar="X",
        help="scale of classifier-free guidance by the reference; 1 is none (default)")  # fmt: skip
    add("--seed", type=commands.bounded(int, 0), default=0, metavar="S",
        help="seed of sampling and of the bootstrap (default: %(default)s)")  # fmt: skip

    add = parser.add_argument_group(
        "measuring", "Weights are given as FILE, or as FILE@SHA256 to verify them."
    ).add_argument
    add("--crop_size", type=commands.bounded(int, 0, 1024), default=0, metavar="N",
        help="size in pixels at which images are compared; set it to compare checkpoints of "
        "different sizes (default: the checkpoint's own, or 256 without a checkpoint)")  # fmt: skip
    add("--lpips", metavar="FILE", help="weights for LPIPS (SqueezeNet, safetensors)")
    add("--face_embedding", metavar="FILE", help="face embedding network for CSIM (ONNX)")
    add("--fid", metavar="FILE", help="feature network for FID (safetensors)")
    add("--sync_expert", default="bundled", metavar="EXPERT",
        help="sync expert for LSE and AV offset: SyncNet weights (safetensors), a checkpoint of "
        "stage sync, 'bundled' (trained on the synthetic corpus) or 'none' "
        "(default: %(default)s)")  # fmt: skip

    add = parser.add_argument_group("output").add_argument
    add("--out", metavar="FILE", help="report to write (JSON)")
    add("--work", metavar="DIR", help="folder for generated videos (default: OUT.work)")
    add("--sheets", metavar="DIR", help="folder for sheets and plots (default: OUT.sheets)")
    return parser


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    args = make_parser().parse_args(argv)
    if args.generated or args.truth:
        _evaluate_given(args)
    elif not args.checkpoint:
        raise UserError("--checkpoint=DIR is required, or --generated=DIR and --truth=DIR")
    elif args.landmarks_only:
        _evaluate_landmarks(args)
    else:
        _evaluate_checkpoint(args)


def run() -> None:
    """Runs the command on the program's arguments and exits."""
    commands.run(main)


def _evaluate_checkpoint(args: argparse.Namespace) -> None:
    """Generates and measures videos of a checkpoint."""
    out = _output_path(args)
    packages.require(*packages.EVAL_MODULES)
    clips = _choose_clips(args)

    from talkjax.metrics import evaluator, workspace
    from talkjax.metrics.generator import SamplerGenerator
    from talkjax.sampling.sampler import Options

    options = Options(
        steps=args.steps, seed=args.seed, landmark_guidance=args.landmark_guidance,
        reference_guidance=args.reference_guidance,
        first_pass=args.reference_seconds,
        keep_occlusions=False,  # no pixel of the measured mouth may be the template's own
        reference_sound=False,  # in paired rows, the same sound has the same mouth
    )  # fmt: skip
    work = args.work or f"{out}.work"
    pinned = {
        "checkpoint": workspace.hash_checkpoint(args.checkpoint), "code": workspace.hash_code()
    }  # fmt: skip
    with _prepare_models(args) as (detector, models, weights):
        generator = SamplerGenerator(args.checkpoint, pinned, options, detector)
        more = pinned | {
            "split": args.split if args.data else None,
            "sampling": dataclasses.asdict(generator.options),
            "weights": weights,
        }
        settings = evaluator.EvaluationSettings(
            args.seconds, args.crop_size, args.seed, tuple(args.rows), more
        )
        result = evaluator.evaluate_model(clips, generator, detector, work, settings, models)
        _write_results(result, clips, out, args.sheets)


def _evaluate_given(args: argparse.Namespace) -> None:
    """Measures the videos of another system."""
    if not (args.generated and args.truth):
        raise UserError("--generated=DIR and --truth=DIR are required together")
    if args.checkpoint or args.data or args.videos:
        raise UserError(
            "--generated and --truth cannot be combined with --checkpoint, --data or --videos"
        )
    out = _output_path(args)
    packages.require(*packages.EVAL_MODULES)

    from talkjax.metrics import clips as clip_lists
    from talkjax.metrics import evaluator

    given, clips, unmatched = clip_lists.match_by_name(args.generated, args.truth)
    clips = clip_lists.take_evenly(clips, args.clips)
    with _prepare_models(args) as (detector, models, weights):
        settings = evaluator.EvaluationSettings(
            args.seconds, args.crop_size, args.seed, tuple(args.rows),
            {"weights": weights, "unmatched": unmatched},
        )  # fmt: skip
        work = args.work or f"{out}.work"
        result = evaluator.evaluate_videos(given, clips, detector, work, settings, models)
        _write_results(result, clips, out, args.sheets)


def _evaluate_landmarks(args: argparse.Namespace) -> None:
    """Measures the landmark network on prepared clips."""
    if not args.data:
        raise UserError("--data=SHARDS is required with --landmarks_only")
    packages.require(*packages.EVAL_MODULES)

    from talkjax.data import records, stored_clips
    from talkjax.metrics import clips, landmarks, report, workspace

    reader = stored_clips.ShardReader(args.data, args.split, ("clips", "frames"))
    chosen = clips.take_evenly(range(len(reader)), args.clips)
    shown: dict[str, dict[str, np.ndarray]] = {}
    predict, config = landmarks.load_predictor(args.checkpoint)
    landmark = config["landmark"]
    result = landmarks.evaluate_landmarks(
        predict,
        (reader.read(i, with_frames=False) for i in chosen),
        window=config["data"]["window"],
        references=config["data"]["references"],
        context=(landmark["past"], landmark["future"]),
        seed=args.seed,
        observe=lambda clip, curves: shown.setdefault(records.person_of(clip), curves),
    )
    print(landmarks.format_table(result))
    if args.out:
        plotted = _plot_openings(shown, Path(args.sheets or Path(args.out).with_suffix(".sheets")))
        pinned = {"checkpoint": workspace.hash_checkpoint(args.checkpoint), "split": args.split}
        files.write_json(args.out, report.replace_non_finite({"protocol": pinned, **result}))
        print(f"wrote {args.out} and {plotted}")


def _plot_openings(openings: dict[str, dict[str, "np.ndarray"]], folder: Path) -> Path:
    """Plots one clip of each of at most five people, who are evenly spread; returns the folder."""
    from talkjax import pictures
    from talkjax.metrics import clips, plots

    folder.mkdir(parents=True, exist_ok=True)
    for person in clips.take_evenly(list(openings), _PLOTTED):
        name = person.replace("/", "_") + ".png"
        curves = {k: v for k, v in openings[person].items() if k != "noise"}
        pictures.write_png(folder / name, plots.plot_openings(curves, person))
    return folder


def _output_path(args: argparse.Namespace) -> Path:
    if not args.out:
        raise UserError("--out=report.json is required")
    out = Path(args.out)
    if not out.parent.is_dir():
        raise UserError(f"--out={out}: the folder {out.parent} does not exist; create it first")
    return out


def _choose_clips(args: argparse.Namespace) -> list["EvaluationClip"]:
    """Returns the clips that the flags name.

    Raises:
      UserError: There is none, or the flags do not fit together.
    """
    from talkjax.metrics import clips

    if args.data:
        if args.holdout:
            raise UserError("--holdout cannot be combined with --data, whose --split is held out")
        found = clips.find_split_clips(args.data, args.split, args.videos)
    elif args.videos:
        found = clips.find_clips(args.videos)
        if not args.list and not args.holdout:
            raise UserError(
                "--holdout=N (the last N videos by name) or --list=FILE is required with --videos"
            )
    else:
        raise UserError("--data=SHARDS is required, or --videos=DIR with --holdout=N")
    if args.list:
        found = clips.select_listed(found, args.list)
    if args.holdout:
        found = found[-args.holdout :]
    return clips.take_evenly(found, args.clips)


@contextlib.contextmanager
def _prepare_models(
    args: argparse.Namespace,
) -> Iterator[tuple[Any, "MetricModels", dict[str, Any]]]:
    """Yields a face detector, the networks of the metrics, and their description for the report.

    Raises:
      UserError: Weights cannot be read, or are not those that were asked for.
    """
    from talkjax.media.facemesh import FaceMesh
    from talkjax.media.turned_faces import TurnedFaces
    from talkjax.metrics import clip_evaluator, fid, identity, lpips, sync, weight_files
    from talkjax.sampling import bundled, compile_cache

    compile_cache.enable()
    found = {
        kind: weight_files.identify_weights(spec, kind) if spec else None
        for kind in ("lpips", "face_embedding", "fid")
        for spec in (getattr(args, kind),)
    }
    described = {
        kind: {"name": file.name, "sha256": file.sha256} if file else None
        for kind, file in found.items()
    }
    features = fid.FeatureNet.load(found["fid"].path) if found["fid"] else None
    if features:
        described["fid"]["name"] = features.name
    expert = None
    if args.sync_expert != "none":
        bundled_expert = bundled.ASSETS / "sync_demo"
        expert = sync.SyncScorer.load(
            bundled_expert if args.sync_expert == "bundled" else args.sync_expert
        )
        described["sync_expert"] = {"name": expert.name, "sha256": expert.sha256}
    embedding = found["face_embedding"]
    models = clip_evaluator.MetricModels(
        perceptual=lpips.load_metric(found["lpips"].path) if found["lpips"] else None,
        embedding=identity.FaceEmbedding(embedding.path) if embedding else None,
        features=features,
        sync_expert=expert,
    )
    with TurnedFaces(FaceMesh(max_faces=4)) as detector:  # as in sampling
        yield detector, models, described


def _write_results(
    result: "EvaluationResult", clips: Sequence["EvaluationClip"], out: Path, sheets: str | None
) -> None:
    """Writes the report in all its forms, and prints it."""
    from talkjax.metrics import evaluator, report

    table = report.format_markdown(result.report)
    files.write_json(out, result.report)
    files.write_text(out.with_suffix(".csv"), report.format_csv(result.scores))
    files.write_text(out.with_suffix(".md"), table + "\n")
    evaluator.write_sheets(result, clips, sheets or out.with_suffix(".sheets"))
    print(table)
    print(f"wrote {out}, {out.stem}.csv, {out.stem}.md and sheets")


if __name__ == "__main__":
    run()
