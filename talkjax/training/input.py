"""What a run reads: its datasets, the networks it starts from, and whether all of it agrees."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from talkjax import files, networks, runs
from talkjax.data import describe, latents, loader, storage
from talkjax.errors import UserError
from talkjax.models import whisper
from talkjax.training import checkpoints, joint_stage, picture_losses
from talkjax.training.stage import Params

# (split) -> batches of this process: for "train" endless, with get_state and set_state; for
# "validation", which stands for any held-out data, one pass, the same whenever iterated.
MakeData = Callable[[str], Iterable[dict[str, np.ndarray]]]

_IMAGES_MEASURED = 256  # for the statistics of latents


# ---- datasets -----------------------------------------------------------------------------------


def make_datasets(config: Any) -> MakeData:
    """Returns the datasets of a run: this process's share of prepared shards.

    Args:
      config: Configuration; `data`, `eval.dir`, `stage`, `region`, `batch_size` and `seed` count.

    Raises:
      UserError: `data.dir` is not set, or the batch does not split over the processes.
    """
    process, count = jax.process_index(), jax.process_count()
    if config.batch_size % count:
        raise UserError(
            f"batch_size={config.batch_size} must be a multiple of the {count} processes"
        )
    options = loader_options(config, config.batch_size // count)
    if not config.data.dir:
        raise UserError(
            "data.dir is not set; set --config.data.dir to a folder made by data_pipelines.prepare"
        )
    for folder in loader.split_folders(config.data.dir):
        storage.find_dataset(folder)
    share = {"process_index": process, "process_count": count}

    def make(split: str) -> Any:
        if split == "train":
            return loader.train_dataset(config.data.dir, options, config.seed, **share)
        folder, split = _held_out(config)
        as_recorded = dataclasses.replace(options, sound_offsets=None)
        return loader.eval_dataset(folder, as_recorded, split, **share)

    return make


def loader_options(config: Any, batch_size: int) -> loader.LoaderOptions:
    """Returns the loader's options of a configuration, for batches of this process's size."""
    fields = {name: value for name, value in config.data.items() if name != "dir"}
    fields |= {name: fields[name] or None for name in ("latents", "sound_offsets")}
    return loader.LoaderOptions(
        **fields | {"weights": tuple(fields["weights"])},
        pixels=_needs_pixels(config),
        past=config.landmark.past,
        future=config.landmark.future,
        stage=config.stage,
        region=tuple(config.region),
        batch_size=batch_size,
    )


def _needs_pixels(config: Any) -> bool:
    """Returns whether a batch needs pixels where latents are cached."""
    if config.stage == "autoencoder":
        return config.autoencoder.guided
    if config.denoiser.fill == "warp" or picture_losses.are_used(config):
        return True
    return config.stage == "joint" and config.joint.path in joint_stage.NEEDS_PIXELS


def _held_out(config: Any) -> tuple[str, str]:
    """Folder and split of the held-out data, which is that of a mixture's last folder.

    Choices are made on a validation split where there is one; the test split is for the end.
    """
    folder = config.eval.dir or loader.split_folders(config.data.dir)[-1]
    return folder, "validation" if "validation" in storage.list_splits(folder) else "test"


# ---- networks to start from ---------------------------------------------------------------------


def load_initial_networks(config: Any) -> Params:
    """Loads the networks that a new run starts from: published weights, then `init_from`.

    Returns:
      {network: params}, numpy; networks of `init_from` replace published ones.

    Raises:
      UserError: A file or folder does not exist, is damaged, or is of another kind; or the run
        hears through a speech encoder, and there is none.
    """
    initial = _published_autoencoder(config)
    hears = config.stage in ("landmark", "joint") and config.landmark.audio == "whisper"
    if hears and config.landmark.whisper_weights:
        initial |= {"speech": _published_speech(config.landmark)}
    initial |= checkpoints.load_sources(config.init_from, config)
    if hears and "speech" not in initial:
        raise UserError(
            "landmark.audio='whisper' has no speech encoder; set --config.landmark.whisper_weights="
            "FILE.safetensors, or --config.init_from.landmark to a run that has one"
        )
    return initial


def _published_speech(landmark: Any) -> Params:
    """Loads the encoder that `landmark.whisper_weights` names, of the size `landmark.whisper`."""
    from talkjax import weights

    path = landmark.whisper_weights
    found, params = weights.whisper_params(path)
    if found != whisper.SIZES.get(landmark.whisper):
        fits = next((name for name, size in whisper.SIZES.items() if size == found), None)
        remedy = f"set --config.landmark.whisper={fits}" if fits else "use published weights"
        raise UserError(f"{path} is not of the size landmark.whisper={landmark.whisper}; {remedy}")
    return params


def _published_autoencoder(config: Any) -> Params:
    """Loads the autoencoder that `config.autoencoder.weights` names; {} if it names none."""
    from talkjax import weights  # needs safetensors, which training itself does not

    names = tuple(name for name in config.autoencoder.weights if name)
    if not names:
        return {}
    if len(names) != (2 if config.autoencoder.kind == "taesd" else 1):
        raise UserError(
            "autoencoder.weights must be ('ENCODER.safetensors', 'DECODER.safetensors') for kind "
            "taesd, ('FILE.safetensors',) for kind kl"
        )
    load = weights.taesd_params if len(names) == 2 else weights.autoencoder_kl_params
    return {"autoencoder": load(*names)}


# ---- statistics of latents ----------------------------------------------------------------------


def with_latent_statistics(config: ConfigDict, workdir: files.PathLike) -> ConfigDict:
    """Fills in `autoencoder.latent_mean` and `latent_std`, which normalise latents.

    They come from the first of these that applies: the configuration itself; the run that is
    resumed; cached latents; the run or export whose denoiser this one starts from; the file
    config.json beside published weights (`scaling_factor`, as diffusers writes it); or the first
    256 training images, encoded by the autoencoder that this run starts from.

    Raises:
      UserError: None of these applies, because there is no autoencoder to start from.
    """
    if config.stage not in ("diffusion", "joint") or len(config.autoencoder.latent_std):
        return config
    config.autoencoder.update(_find_latent_statistics(config, workdir))
    return config


def _find_latent_statistics(config: Any, workdir: files.PathLike) -> dict[str, tuple[float, ...]]:
    if (files.as_path(workdir) / runs.CONFIG_FILE).exists():
        found = runs.read_config(workdir).get("autoencoder", {})
        if found.get("latent_std"):
            return _statistics(found["latent_mean"], found["latent_std"])
    if config.data.latents:
        index = latents.read_index(config.data.latents)
        return _statistics(index["mean"], index["std"])
    for field in ("diffusion", "joint"):
        if path := config.init_from.get(field, ""):
            _, source, _ = runs.load_weights(path)
            if source["autoencoder"].get("latent_std"):
                return _statistics(*(source["autoencoder"][f"latent_{x}"] for x in ("mean", "std")))
    initial = load_initial_networks(config)
    if "autoencoder" not in initial:
        raise UserError(
            f"stage {config.stage} has no autoencoder; set --config.init_from.autoencoder=RUN or "
            "--config.autoencoder.weights"
        )
    beside = [Path(name).with_name("config.json") for name in config.autoencoder.weights if name]
    if not config.init_from.get("autoencoder", "") and beside and beside[0].is_file():
        described = files.read_json_object(beside[0], "mend or remove it")
        if "scaling_factor" in described:
            shift = described.get("shift_factor") or 0.0
            return _statistics((shift,), (1 / described["scaling_factor"],))
    return _measure_latents(config, initial["autoencoder"])


def _statistics(mean: Iterable[float], std: Iterable[float]) -> dict[str, tuple[float, ...]]:
    return {"latent_mean": tuple(map(float, mean)), "latent_std": tuple(map(float, std))}


def _measure_latents(config: Any, params: Params) -> dict[str, tuple[float, ...]]:
    """Statistics per channel of the first training images, the same in all processes."""
    model = networks.make_autoencoder(config.autoencoder)
    encode = jax.jit(lambda p, x: model.apply({"params": p}, x, method="encode"))
    dataset = loader.train_dataset(config.data.dir, loader_options(config, 8), config.seed)
    count, total, squares = 0, 0.0, 0.0
    with contextlib.closing(iter(dataset)) as batches:
        for batch in batches:
            images = batch["target"].reshape(-1, *batch["target"].shape[-3:])
            found = encode(params, jnp.asarray(images, jnp.float32) / 127.5 - 1.0)
            z = np.asarray(found[0] if isinstance(found, tuple) else found, np.float64)
            z = z.reshape(-1, z.shape[-1])
            count, total, squares = count + len(images), total + z.sum(0), squares + (z**2).sum(0)
            if count >= _IMAGES_MEASURED:
                break
    cells = count * (len(z) // len(images))
    mean = total / cells
    std = np.sqrt(np.maximum(squares / cells - mean**2, 1e-12))
    mean, std = multihost_utils.broadcast_one_to_all((mean, std))
    return _statistics(mean, std)


# ---- checks -------------------------------------------------------------------------------------


def check_data(config: Any) -> None:
    """Checks that shards, cached latents and configuration agree, before anything is trained.

    Raises:
      UserError: One line that names both sides and the remedy.
    """
    folders = loader.split_folders(config.data.dir)
    if config.eval.every and config.eval.dir:
        folders.append(config.eval.dir)
    cached = config.data.latents if config.stage in ("diffusion", "joint") else ""
    _check_hosts(folders, cached)
    if config.stage == "landmark":
        return  # points in crop coordinates: neither pixels nor latents count
    if cached:
        _check_latents(config)
        if config.denoiser.fill == "grey":
            return
    for folder in sorted(set(folders)):
        size = describe(folder)["crop_size"]
        if size is None:
            raise UserError(
                f"{folder} holds speech without pictures; it trains stage landmark alone"
            )
        if size != config.crop_size:
            raise UserError(
                f"{folder} holds crops of {size} px, the configuration has crop_size="
                f"{config.crop_size}; prepare the data with --crop_size={config.crop_size} or set "
                f"--config.crop_size={size}"
            )


def _check_hosts(folders: Sequence[str], latents_dir: str) -> None:
    """Checks that all processes read the same clips and latents, from copies of their own or not.

    The lists of `latents.json` alone count here: its fingerprints tell what the latents show.
    """
    if jax.process_count() == 1:
        return
    indices = [storage.read_index(folder) for folder in folders]
    lists = [[index[name] for name in ("clips", "ticks", "frames", "usable")] for index in indices]
    cached = latents.read_index(latents_dir)["splits"] if latents_dir else {}
    digest = hashlib.sha256(json.dumps([lists, cached], sort_keys=True).encode()).digest()
    count = sum(len(clips) for index in indices for clips in index["clips"].values())
    rows = sum(entry["rows"] for entry in cached.values())
    here = np.array([count, rows, *np.frombuffer(digest[:8], np.uint32)], np.uint32)
    found = np.asarray(multihost_utils.process_allgather(here)).reshape(-1, len(here))
    differ = np.flatnonzero((found != found[0]).any(1))
    if len(differ):
        other = int(differ[0])
        raise UserError(
            f"the processes read different data: process {other} has {found[other, 0]} clips and "
            f"latents of {found[other, 1]} frames, process 0 has {found[0, 0]} and {found[0, 1]}, "
            "and they are not the same; give all hosts the same shards in data.dir, eval.dir and "
            "data.latents"
        )


def _check_latents(config: Any) -> None:
    index, folder = latents.read_index(config.data.latents), config.data.latents
    remedy = "cache them again with data_pipelines.cache_latents, or change the configuration"

    def compare(name: str, cached: Any, wanted: Any) -> None:
        if np.shape(cached) != np.shape(wanted) or not np.allclose(cached, wanted):
            raise UserError(
                f"the latents in {folder} have {name} {cached}, the configuration has {wanted}; "
                f"{remedy}"
            )

    compare("crop_size", index["crop_size"], config.crop_size)
    compare("region", tuple(index["region"]), tuple(config.region))
    compare("mask", tuple(index["mask"]), tuple(config.mask))
    try:
        wanted = networks.make_networks(config).latent_shape
    except ValueError as error:  # the statistics come from the latents
        raise UserError(
            f"the latents in {folder} do not fit the configuration ({error}); {remedy}"
        ) from error
    compare("latent shape", tuple(index["latent_shape"]), tuple(wanted))


def check_encoder(config: Any, params: Mapping[str, Any]) -> None:
    """Checks that cached latents come from the autoencoder that the run has.

    Args:
      config: Configuration.
      params: The run's parameters, placed on its mesh.

    Raises:
      UserError: They come from another one.
    """
    if not config.data.latents or "autoencoder" not in params:
        return
    encoder = params["autoencoder"]
    if jax.process_count() > 1:
        encoder = multihost_utils.process_allgather(encoder, tiled=True)
    found = latents.encoder_id(jax.device_get(encoder))
    cached = latents.read_index(config.data.latents)["encoder"]
    if found != cached:
        raise UserError(
            f"the latents in {config.data.latents} come from the encoder {cached[:12]}, this run "
            f"has {found[:12]}; start from the autoencoder that they were cached with "
            "(--config.init_from.autoencoder or --config.autoencoder.weights), or cache them again"
        )
