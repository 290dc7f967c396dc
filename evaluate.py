"""Evaluates a checkpoint on held-out clips, or its landmark network alone.

    uv run evaluate.py --checkpoint=DIR --videos=DIR --holdout=60 --clips=12 --out=report.json
    uv run evaluate.py --checkpoint=DIR --data=SHARDS --split=test --out=report.json
    uv run evaluate.py --landmarks_only --checkpoint=DIR --data=SHARDS --split=test

The first two generate videos, decode the files, find the faces in them and measure: the model with
its own audio, with another clip's and with silence, beside the ground truth and baselines that
cannot lip-sync (`talkjax/metrics/rows.py` says precisely what each row and number is). Prepared
shards hold crops only, so the original videos are needed: --videos, or where the shards came from.
What was generated stays in --work; started again, an interrupted evaluation goes on.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from talkjax import commands
from talkjax.errors import UserError

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "What `train.py --export` wrote.")
_DATA = flags.DEFINE_string("data", None, "Folder made by data_pipelines.prepare.")
_SPLIT = flags.DEFINE_string("split", "test", "Its split.")
_VIDEOS = flags.DEFINE_string("videos", None, "Folder of the original videos.")
_LIST = flags.DEFINE_string("list", None, "File that names some of them, one a line.")
_HOLDOUT = flags.DEFINE_integer("holdout", None, "Only the last so many by name.", lower_bound=1)
_CLIPS = flags.DEFINE_integer("clips", None, "At most so many, evenly chosen.", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 20.0, "Longer clips are cut there.", lower_bound=1.0)
_OUT = flags.DEFINE_string("out", None, "Report to write (JSON).")
_WORK = flags.DEFINE_string("work", None, "Folder of generated videos; OUT.work by default.")
_STEPS = flags.DEFINE_integer("steps", 10, "Sampling steps.", lower_bound=1)
_LANDMARK_GUIDANCE = flags.DEFINE_float("landmark_guidance", 1.0, "As in sampling; 1 is none.")
_REFERENCE_GUIDANCE = flags.DEFINE_float("reference_guidance", 1.0, "As in sampling; 1 is none.")
_SEED = flags.DEFINE_integer("seed", 0, "Of sampling and of the bootstrap.", lower_bound=0)
_CROP_SIZE = flags.DEFINE_integer(
    "crop_size", 0, "Pixels at which pictures are compared; the checkpoint's own by default. "
    "Give it to compare checkpoints of different sizes.", 0, 1024,
)  # fmt: skip
_SHEETS = flags.DEFINE_string("sheets", None, "Folder for contact sheets and plots (PNG).")
_SHEET_CLIPS = flags.DEFINE_integer("sheet_clips", 4, "How many clips get one.", lower_bound=1)
_LPIPS = flags.DEFINE_string("lpips", None, "LPIPS weights (SqueezeNet, safetensors).")
_EMBEDDING = flags.DEFINE_string("face_embedding", None, "Face embedding for CSIM (ONNX).")
_LANDMARKS_ONLY = flags.DEFINE_bool("landmarks_only", False, "The landmark network on --data.")


def main(argv: Sequence[str]) -> None:
    """Evaluates as the flags say."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
    if not _CHECKPOINT.value:
        raise UserError("say what to evaluate: --checkpoint=DIR")
    if _LANDMARKS_ONLY.value:
        landmarks()
    else:
        videos()


def choose_clips() -> list[Any]:
    """The test clips that the flags name.

    Raises:
      UserError: none, or flags that do not go together.
    """
    from talkjax.metrics import clips

    if _DATA.value:
        if _HOLDOUT.value:
            raise UserError("--holdout chooses among --videos; with --data the split does")
        found = clips.from_manifest(_DATA.value, _SPLIT.value, _VIDEOS.value)
    elif _VIDEOS.value:
        found = clips.in_folder(_VIDEOS.value)
        if not _LIST.value and not _HOLDOUT.value:
            raise UserError(
                "say which videos are held out: --holdout=N (the last by name) or --list=FILE"
            )
    else:
        raise UserError("say what to evaluate on: --videos=DIR --holdout=N, or --data=SHARDS")
    if _LIST.value:
        found = clips.listed(found, _LIST.value)
    if _HOLDOUT.value:
        found = found[-_HOLDOUT.value :]
    return clips.evenly(found, _CLIPS.value)


def videos() -> None:
    """Generates and measures videos; writes the report."""
    from talkjax.media.facemesh import FaceMesh
    from talkjax.metrics import evaluator, identity, lpips, report, workspace
    from talkjax.metrics.generator import SamplerGenerator
    from talkjax.sampling import compile_cache
    from talkjax.sampling.sampler import Options
    from talkjax.sampling.summary import write_json

    if not _OUT.value:
        raise UserError("say where the report is to go: --out=report.json")
    out = Path(_OUT.value)
    if not out.parent.is_dir():
        raise UserError(f"--out={out}: there is no folder {out.parent}; create it first")
    clips = choose_clips()
    compile_cache.enable()
    perceptual = lpips.metric(_LPIPS.value) if _LPIPS.value else None
    embedding = identity.FaceEmbedding(_EMBEDDING.value) if _EMBEDDING.value else None
    weights = {
        "checkpoint": workspace.checkpoint_hash(_CHECKPOINT.value), "code": workspace.code_hash()
    }  # fmt: skip
    options = Options(
        steps=_STEPS.value, seed=_SEED.value, landmark_guidance=_LANDMARK_GUIDANCE.value,
        reference_guidance=_REFERENCE_GUIDANCE.value,
    )  # fmt: skip
    extras = {"lpips": _LPIPS.value, "face_embedding": _EMBEDDING.value}
    protocol = weights | {
        "split": _SPLIT.value if _DATA.value else None,
        "sampling": dataclasses.asdict(options),
        "weights": {k: workspace.file_hash(v) if v else None for k, v in extras.items()},
    }
    settings = evaluator.Settings(_SECONDS.value, _CROP_SIZE.value, _SEED.value)
    with FaceMesh(max_faces=4) as detector:  # as sampling does
        generator = SamplerGenerator(_CHECKPOINT.value, weights, options, detector)
        result = evaluator.evaluate(
            clips, generator, detector, _WORK.value or f"{out}.work", settings, protocol,
            perceptual, embedding,
        )  # fmt: skip
        write_json(out, result.report)
        if _SHEETS.value:
            evaluator.draw(result, clips, _SHEETS.value, _SHEET_CLIPS.value)
    print(report.table(result.report))
    print(f"wrote {out}")


def landmarks() -> None:
    """Measures the landmark network on prepared clips."""
    if not _DATA.value:
        raise UserError("--landmarks_only needs prepared data: --data=SHARDS")
    from data_pipelines import records
    from talkjax.metrics import landmarks as landmark_metrics
    from talkjax.metrics import workspace
    from talkjax.metrics.clips import evenly
    from talkjax.sampling.summary import write_json

    reader = records.ShardReader(_DATA.value, _SPLIT.value)
    chosen = evenly(range(len(reader)), _CLIPS.value)
    predict, config = landmark_metrics.load_predict(_CHECKPOINT.value)
    result = landmark_metrics.evaluate_landmarks(
        predict,
        (records.with_steady_pose(reader.read(i, with_frames=False)) for i in chosen),
        window=config["data"]["window"],
        references=config["data"]["references"],
        seed=_SEED.value,
    )
    print(landmark_metrics.table(result))
    if _OUT.value:
        pinned = {"checkpoint": workspace.checkpoint_hash(_CHECKPOINT.value), "split": _SPLIT.value}
        write_json(_OUT.value, {"protocol": pinned, **result})
        print(f"wrote {_OUT.value}")


if __name__ == "__main__":
    commands.exit_on_sigterm()
    app.run(lambda argv: sys.exit(commands.run_main(main, argv)), flags_parser=commands.parse_flags)
