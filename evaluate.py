"""Evaluates a checkpoint, or the videos of any other system, on held-out clips.

    uv run evaluate.py --checkpoint=DIR --data=SHARDS --split=test --out=report.json
    uv run evaluate.py --checkpoint=DIR --videos=DIR --holdout=60 --clips=12 --out=report.json
    uv run evaluate.py --generated=DIR --truth=DIR --out=report.json
    uv run evaluate.py --landmarks_only --checkpoint=DIR --data=SHARDS --split=test

The first two generate videos, decode the files, find the faces in them and measure: the model with
its own audio, with another clip's and with silence, beside the ground truth and baselines that
cannot lip-sync (`talkjax/metrics/protocol.py` says precisely what each row and number is). Prepared
shards hold crops only, so the original videos are needed: --videos, or where the shards came from.
The third measures given videos against the originals of equal name; no checkpoint, no model.

Beside report.json come report.md (a table), report.csv (every clip) and the folder report.sheets
(contact sheets and plots of the best, median and worst clip). What was generated stays in --work;
started again, an interrupted evaluation goes on.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from talkjax import commands, files
from talkjax.errors import UserError

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "What `train.py --export` wrote.")
_GENERATED = flags.DEFINE_string("generated", None, "Folder of another system's videos.")
_TRUTH = flags.DEFINE_string("truth", None, "Folder of their originals, of equal names.")
_DATA = flags.DEFINE_string("data", None, "Folder made by data_pipelines.prepare.")
_SPLIT = flags.DEFINE_string("split", "test", "Its split.")
_VIDEOS = flags.DEFINE_string("videos", None, "Folder of the original videos.")
_LIST = flags.DEFINE_string("list", None, "File that names some of them, one a line.")
_HOLDOUT = flags.DEFINE_integer("holdout", None, "Only the last so many by name.", lower_bound=1)
_CLIPS = flags.DEFINE_integer("clips", None, "At most so many, evenly chosen.", lower_bound=1)
_ROWS = flags.DEFINE_list("rows", [], "Only these rows, e.g. model,cross_driven,silence.")
_SECONDS = flags.DEFINE_float("seconds", 20.0, "Longer clips are cut there.", lower_bound=1.0)
_OUT = flags.DEFINE_string("out", None, "Report to write (JSON).")
_WORK = flags.DEFINE_string("work", None, "Folder of generated videos; OUT.work by default.")
_STEPS = flags.DEFINE_integer("steps", 10, "Sampling steps.", lower_bound=1)
_LANDMARK_GUIDANCE = flags.DEFINE_float("landmark_guidance", 1.0, "As in sampling; 1 is none.")
_REFERENCE_GUIDANCE = flags.DEFINE_float("reference_guidance", 1.0, "As in sampling; 1 is none.")
_SEED = flags.DEFINE_integer("seed", 0, "Of sampling and of the bootstrap.", lower_bound=0)
_CROP_SIZE = flags.DEFINE_integer(
    "crop_size", 0, "Pixels at which pictures are compared; by default the checkpoint's own, 256 "
    "for given videos. Give it to compare checkpoints of different sizes.", 0, 1024,
)  # fmt: skip
_SHEETS = flags.DEFINE_string("sheets", None, "Folder of sheets and plots; OUT.sheets by default.")
# Weights: FILE, or FILE@SHA256 to be sure of them.
_LPIPS = flags.DEFINE_string("lpips", None, "LPIPS weights (SqueezeNet, safetensors).")
_EMBEDDING = flags.DEFINE_string("face_embedding", None, "Face embedding for CSIM (ONNX).")
_FID = flags.DEFINE_string("fid", None, "Feature network for FID (safetensors).")
_SYNC = flags.DEFINE_string(
    "sync_expert", "bundled", "For LSE and AV offset: SyncNet's weights (safetensors), a directory "
    "that `train.py --export` wrote, 'bundled' (of the synthetic corpus) or 'none'.",
)  # fmt: skip
_LANDMARKS_ONLY = flags.DEFINE_bool("landmarks_only", False, "The landmark network on --data.")


def main(argv: Sequence[str]) -> None:
    """Evaluates as the flags say."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
    if _GENERATED.value or _TRUTH.value:
        given()
    elif not _CHECKPOINT.value:
        raise UserError("say what to evaluate: --checkpoint=DIR, or --generated=DIR --truth=DIR")
    elif _LANDMARKS_ONLY.value:
        landmarks()
    else:
        model()


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


def out_path() -> Path:
    """Where the report goes.

    Raises:
      UserError: it is not said, or there is no such folder.
    """
    if not _OUT.value:
        raise UserError("say where the report is to go: --out=report.json")
    out = Path(_OUT.value)
    if not out.parent.is_dir():
        raise UserError(f"--out={out}: there is no folder {out.parent}; create it first")
    return out


def instruments() -> tuple[Any, dict[str, Any]]:
    """What is measured with, and a description of it for the report.

    Raises:
      UserError: weights that cannot be read, or are not those that were asked for.
    """
    from talkjax.metrics import fid, identity, judge, lpips, sync, weight_files
    from talkjax.sampling import bundled

    files = {
        kind: weight_files.resolve(spec, kind) if spec else None
        for kind, spec in {
            "lpips": _LPIPS.value, "face_embedding": _EMBEDDING.value, "fid": _FID.value
        }.items()
    }  # fmt: skip
    described = {
        kind: {"name": file.name, "sha256": file.sha256} if file else None
        for kind, file in files.items()
    }
    features = fid.FeatureNet.load(files["fid"].path) if files["fid"] else None
    if features:
        described["fid"]["name"] = features.name
    expert = None
    if _SYNC.value != "none":
        own = bundled.ASSETS / "sync_demo"
        expert = sync.SyncExpert.load(own if _SYNC.value == "bundled" else _SYNC.value)
        described["sync_expert"] = {"name": expert.name, "sha256": expert.sha256}
    tools = judge.Instruments(
        perceptual=lpips.metric(files["lpips"].path) if files["lpips"] else None,
        embedding=(
            identity.FaceEmbedding(files["face_embedding"].path)
            if files["face_embedding"]
            else None
        ),
        features=features,
        expert=expert,
    )
    return tools, described


def finish(result: Any, clips: Sequence[Any], out: Path) -> None:
    """Writes the report in all its forms, and shows it."""
    from talkjax.metrics import evaluator, report

    table = report.markdown(result.report)
    files.write_json(out, result.report)
    files.write_text(out.with_suffix(".csv"), report.per_clip(result.judged))
    files.write_text(out.with_suffix(".md"), table + "\n")
    evaluator.draw(result, clips, _SHEETS.value or out.with_suffix(".sheets"))
    print(table)
    print(f"wrote {out}, {out.stem}.csv, {out.stem}.md and sheets")


def model() -> None:
    """Generates and measures videos of a checkpoint."""
    from talkjax.media.facemesh import FaceMesh
    from talkjax.metrics import evaluator, workspace
    from talkjax.metrics.generator import SamplerGenerator
    from talkjax.sampling import compile_cache
    from talkjax.sampling.sampler import Options

    out, clips = out_path(), choose_clips()
    compile_cache.enable()
    tools, weights = instruments()
    pinned = {
        "checkpoint": workspace.checkpoint_hash(_CHECKPOINT.value), "code": workspace.code_hash()
    }  # fmt: skip
    options = Options(
        steps=_STEPS.value, seed=_SEED.value, landmark_guidance=_LANDMARK_GUIDANCE.value,
        reference_guidance=_REFERENCE_GUIDANCE.value,
    )  # fmt: skip
    more = pinned | {
        "split": _SPLIT.value if _DATA.value else None,
        "sampling": dataclasses.asdict(options),
        "weights": weights,
    }
    settings = evaluator.Settings(
        _SECONDS.value, _CROP_SIZE.value, _SEED.value, tuple(_ROWS.value), more
    )
    with FaceMesh(max_faces=4) as detector:  # as sampling does
        generator = SamplerGenerator(_CHECKPOINT.value, pinned, options, detector)
        work = _WORK.value or f"{out}.work"
        result = evaluator.evaluate(clips, generator, detector, work, settings, tools)
        finish(result, clips, out)


def given() -> None:
    """Measures the videos of another system."""
    from talkjax.media.facemesh import FaceMesh
    from talkjax.metrics import clips as clip_lists
    from talkjax.metrics import evaluator
    from talkjax.sampling import compile_cache

    if not (_GENERATED.value and _TRUTH.value):
        raise UserError("--generated=DIR and --truth=DIR go together; give both")
    if _CHECKPOINT.value or _DATA.value or _VIDEOS.value:
        raise UserError("--generated and --truth say it all; leave --checkpoint, --data, --videos")
    out = out_path()
    files, clips, unmatched = clip_lists.matched(_GENERATED.value, _TRUTH.value)
    clips = clip_lists.evenly(clips, _CLIPS.value)
    compile_cache.enable()
    tools, weights = instruments()
    settings = evaluator.Settings(
        _SECONDS.value, _CROP_SIZE.value, _SEED.value, tuple(_ROWS.value),
        {"weights": weights, "unmatched": unmatched},
    )  # fmt: skip
    with FaceMesh(max_faces=4) as detector:
        work = _WORK.value or f"{out}.work"
        result = evaluator.evaluate_given(files, clips, detector, work, settings, tools)
        finish(result, clips, out)


def landmarks() -> None:
    """Measures the landmark network on prepared clips."""
    if not _DATA.value:
        raise UserError("--landmarks_only needs prepared data: --data=SHARDS")
    from talkjax.data import records
    from talkjax.metrics import landmarks as landmark_metrics
    from talkjax.metrics import workspace
    from talkjax.metrics.clips import evenly

    reader = records.ShardReader(_DATA.value, _SPLIT.value)
    chosen = evenly(range(len(reader)), _CLIPS.value)
    predict, config = landmark_metrics.load_predict(_CHECKPOINT.value)
    result = landmark_metrics.evaluate_landmarks(
        predict,
        (records.with_normalized_pose(reader.read(i, with_frames=False)) for i in chosen),
        window=config["data"]["window"],
        references=config["data"]["references"],
        seed=_SEED.value,
    )
    print(landmark_metrics.table(result))
    if _OUT.value:
        pinned = {"checkpoint": workspace.checkpoint_hash(_CHECKPOINT.value), "split": _SPLIT.value}
        files.write_json(_OUT.value, {"protocol": pinned, **result})
        print(f"wrote {_OUT.value}")


if __name__ == "__main__":
    commands.exit_on_sigterm()
    app.run(lambda argv: sys.exit(commands.run_main(main, argv)), flags_parser=commands.parse_flags)
