"""Training batches: grain pipelines over clip records.

    options = LoaderOptions(stage="landmark", batch_size=32)
    iterator = iter(train_dataset(SHARDS, options, seed=0, process_index=0, process_count=1))
    batch = next(iterator)                      # a dict of arrays, see `WindowSampler`
    state = iterator.get_state()                # plain data; iterator.set_state(state) resumes

`grain.checkpoint.CheckpointSave(iterator)` puts that state into an Orbax checkpoint. A resumed
iterator continues bit-identically, augmentation included. The batches do not depend on the number
of threads or worker processes.
"""

import dataclasses
import hashlib
import multiprocessing
import os
import threading

import grain
import numpy as np

from talkjax.data import records, windows
from talkjax.data.options import LoaderOptions
from talkjax.data.samples import WindowSampler
from talkjax.data.stored_clips import StoredClip
from talkjax.data.sync_samples import SyncWindowSampler
from talkjax.errors import UserError


def train_dataset(
    data_dir: str | os.PathLike,
    options: LoaderOptions,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    split: str = "train",
) -> grain.IterDataset:
    """Returns endless shuffled batches; every epoch has every slot of footage once.

    A step's samples do not depend on the number of processes that share them. The slots of all
    epochs form one sequence of samples, which is cut into batches. `process_count` consecutive
    batches are one batch of the whole run, and each process takes one of them. So the iterator's
    state is the same in all processes, and a run can resume with another number of them.

    Args:
      data_dir: Folder that `data_pipelines.prepare` wrote, local or in a bucket. Several, separated
        by commas, are mixed sample by sample; an epoch of one does not wait for another's.
      options: See `LoaderOptions`; `weights` are the folders' shares.
      seed: Seed of the order and of everything random in the samples.
      process_index, process_count: The part of the data that this process reads.
      split: Name of the split.

    Raises:
      UserError: There are no data or no usable clips, too many records are damaged, or the latents
        were made with other settings.
    """
    samplers = [_sampler(folder, split, options) for folder in split_folders(data_dir)]
    weights = options.weights or [len(sampler) for sampler in samplers]
    if len(weights) != len(samplers) or min(weights) <= 0:
        raise UserError(
            f"data.weights={tuple(weights)} must be one positive number for each of the "
            f"{len(samplers)} folders of data.dir"
        )
    parts = [
        slot_order(len(sampler), seed + i).random_map(sampler, seed=_sample_seed(seed + i))
        for i, sampler in enumerate(samplers)
    ]
    samples = parts[0] if len(parts) == 1 else grain.MapDataset.mix(parts, list(weights))
    share = dict(process_index=process_index, process_count=process_count)
    return _to_iter_dataset(batches_of_process(samples, options.batch_size, **share), options)


def split_folders(data_dir: str | os.PathLike) -> list[str]:
    """Splits a list of folders that are separated by commas."""
    return [part.strip() for part in os.fspath(data_dir).split(",") if part.strip()]


def _sampler(data_dir: str | os.PathLike, split: str, options: LoaderOptions) -> WindowSampler:
    kind = SyncWindowSampler if options.stage == "sync" else WindowSampler
    return kind(data_dir, split, options)


def slot_order(count: int, seed: int) -> grain.MapDataset:
    """Returns endless slots, shuffled differently in each epoch of `count`."""
    return grain.MapDataset.range(count).seed(seed).shuffle().repeat()


def batches_of_process(
    samples: grain.MapDataset, batch_size: int, process_index: int, process_count: int
) -> grain.MapDataset:
    """Cuts samples into batches and returns every `process_count`-th, from `process_index` on."""
    return samples.batch(batch_size, drop_remainder=True)[process_index::process_count]


def _sample_seed(seed: int) -> int:
    """Returns another seed: draws inside samples must not repeat those of the order."""
    return int(np.random.SeedSequence([seed, 0]).generate_state(1)[0])


def eval_dataset(
    data_dir: str | os.PathLike,
    options: LoaderOptions,
    split: str = "test",
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset:
    """Returns one pass over windows that cover whole clips, undistorted and in a fixed mixed order.

    The order depends on the clips alone, so it is the same in every run and process, and the first
    N batches are a fair sample of the split.

    Batches are those of training plus `clip` (B,) int32, the clip's position in the split, `start`
    (B,) int32, the window's first tick, and `weight` (B,) float32. All processes get equally many
    batches of equal shape; `weight` is 0 for samples that only fill the last ones, else 1.

    Raises:
      UserError: See `train_dataset`.
    """
    sampler = _sampler(data_dir, split, options)
    plan = _plan_evaluation(sampler)
    if not plan:
        raise UserError(f"{sampler.store.name} has no window with usable image frames")
    group = options.batch_size * process_count
    padded = -(-len(plan) // group) * group

    samples = grain.MapDataset.range(padded).map(_PlannedWindows(sampler, plan))
    share = dict(process_index=process_index, process_count=process_count)
    return _to_iter_dataset(batches_of_process(samples, options.batch_size, **share), options)


def _plan_evaluation(sampler: WindowSampler) -> list[tuple[int, int]]:
    """Lists (position of the clip, first tick) of every window, mixed; only the index is read.

    The windows are sorted by a hash of their clip's id and their start.
    """
    options, reader, keyed = sampler.options, sampler.store.reader, []
    index = reader.frame_index() if options.has_images else None
    for position in map(int, sampler.clips):
        starts = windows.covering_starts(int(reader.ticks[position]), options.window)
        if index is not None:
            ticks, usable = index.of(position)
            frames = sampler.cached_frames(usable)
            if options.stage == "autoencoder":
                starts = frames[:: options.window]
            else:
                inside, outside = windows.count_frames(ticks[frames], starts, options.window, 0)
                starts = starts[(inside > 0) & (outside > 0)]
        for start in map(int, starts):
            name = f"{reader.clip_ids[position]}\0{start}"
            keyed.append((hashlib.sha256(name.encode()).digest(), position, start))
    return [(position, start) for _, position, start in sorted(keyed)]


@dataclasses.dataclass(frozen=True)
class _PlannedWindows:
    """Makes the sample at a place of the plan, which repeats.

    A window of a damaged clip gives way to the next of another clip, with weight 0.
    """

    sampler: WindowSampler
    plan: list[tuple[int, int]]

    def __call__(self, item: int) -> dict[str, np.ndarray]:
        store, damaged = self.sampler.store, set[int]()
        for place in range(item, item + len(self.plan)):
            position, start = self.plan[place % len(self.plan)]
            if position in damaged:
                continue
            try:
                sample = self._sample(store[position], start)
            except records.DamagedRecordError as error:
                store.count_damaged(position, error)
                damaged.add(position)
                continue
            return sample | {
                "clip": np.int32(position),
                "start": np.int32(start),
                "weight": np.float32(place == item < len(self.plan)),
            }
        raise UserError(f"{store.name}: no window of it can be read; prepare the data again")

    def _sample(self, record: StoredClip, start: int) -> dict[str, np.ndarray]:
        usable = self.sampler.usable_frames(record)
        if self.sampler.options.stage == "autoencoder":
            return self.sampler.image(record, usable, start, None)
        return self.sampler.sample_window(record, usable, start, None)


def _to_iter_dataset(dataset: grain.MapDataset, options: LoaderOptions) -> grain.IterDataset:
    # Each element is a whole batch, so the buffer counts batches.
    out = dataset.to_iter_dataset(
        grain.ReadOptions(
            num_threads=options.num_threads, prefetch_buffer_size=max(1, options.prefetch)
        )
    )
    if options.num_workers:
        out = out.mp_prefetch(
            grain.multiprocessing.MultiprocessingOptions(
                num_workers=options.num_workers, per_worker_buffer_size=options.prefetch
            ),
            worker_init_fn=_end_with_parent,
        )
    return out


def _end_with_parent(*unused: int) -> None:
    """Ends this worker process when its parent is gone, even by SIGKILL.

    Otherwise it would wait forever to hand over its next batch, and keep its memory.
    """

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
