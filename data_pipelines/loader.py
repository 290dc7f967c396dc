"""Training batches: grain pipelines over clip records.

    options = LoaderOptions(stage="landmark", batch_size=32)
    iterator = iter(train_dataset(SHARDS, options, seed=0, process_index=0, process_count=1))
    batch = next(iterator)                      # a dict of numpy arrays, see `Sampler`
    state = iterator.get_state()                # plain data; iterator.set_state(state) resumes

`grain.checkpoint.CheckpointSave(iterator)` puts that state into an Orbax checkpoint. A resumed
iterator goes on bit-identically, augmentation included. The batches do not depend on the number of
threads or worker processes.
"""

import dataclasses
import os

import grain
import numpy as np

from data_pipelines import windows
from data_pipelines.samples import LoaderOptions, Sampler
from data_pipelines.sync_samples import SyncSampler
from talkjax.errors import UserError


def train_dataset(
    data_dir: str | os.PathLike,
    options: LoaderOptions,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    split: str = "train",
) -> grain.IterDataset:
    """Endless shuffled batches; within an epoch every slot of footage goes to one process.

    Args:
      data_dir: what `data_pipelines.prepare` made.
      options: see `LoaderOptions`.
      seed: of the order and of everything random in the samples.
      process_index, process_count: which part of the data this process reads.
      split: the split.

    Raises:
      UserError: no data, no usable clip, NaN or Inf in a clip (named), latents of other settings.
    """
    sampler = _sampler(data_dir, split, options)
    usable = len(sampler) - len(sampler) % process_count  # epochs of equal length everywhere
    if not usable:
        raise UserError(
            f"{sampler.store.name} has less footage than there are processes ({process_count}); "
            "add clips or use fewer processes"
        )
    dataset = (
        slots_of_process(len(sampler), usable, seed, process_index, process_count)
        .repeat()
        .random_map(sampler, seed=sample_seed(seed, process_index))
        .batch(options.batch_size, drop_remainder=True)
    )
    return _to_iter_dataset(dataset, options)


def _sampler(data_dir: str | os.PathLike, split: str, options: LoaderOptions) -> Sampler:
    kind = SyncSampler if options.stage == "sync" else Sampler
    return kind(data_dir, split, options)


def slots_of_process(
    count: int, usable: int, seed: int, process_index: int, process_count: int
) -> grain.MapDataset:
    """The slots that one process sees in an epoch; `usable` of `count` are dealt out."""
    order = grain.MapDataset.range(count).seed(seed).shuffle()
    return order[process_index:usable:process_count]


def sample_seed(seed: int, process_index: int) -> int:
    """The order is common to all processes; what happens inside of a sample must not be."""
    return int(np.random.SeedSequence([seed, process_index]).generate_state(1)[0])


def eval_dataset(
    data_dir: str | os.PathLike,
    options: LoaderOptions,
    split: str = "test",
    process_index: int = 0,
    process_count: int = 1,
) -> grain.IterDataset:
    """One pass over windows that cover whole clips, in order and without distortion.

    Batches are as in training plus `clip` (B,) int32, the clip's position in the split, `start`
    (B,) int32, the window's first tick, and `weight` (B,) float32, 0 for what only fills the last
    batch: all processes get equally many batches of equal shape.

    Raises:
      UserError: as `train_dataset`.
    """
    sampler = _sampler(data_dir, split, options)
    plan = _eval_plan(sampler)
    if not plan:
        raise UserError(f"{sampler.store.name} has no window with usable image frames")
    group = options.batch_size * process_count
    padded = -(-len(plan) // group) * group

    dataset = (
        grain.MapDataset.range(padded)[process_index::process_count]
        .map(_EvalSampler(sampler, plan))
        .batch(options.batch_size, drop_remainder=True)
    )
    return _to_iter_dataset(dataset, options)


def _eval_plan(sampler: Sampler) -> list[tuple[int, int]]:
    """(position of the clip, first tick) of every window."""
    options, plan = sampler.options, []
    for position in map(int, sampler.clips):
        if options.stage == "autoencoder":
            usable = sampler.usable_frames(position, sampler.store[position])
            plan += [(position, int(f)) for f in usable[:: options.window]]
            continue
        starts = windows.covering_starts(int(sampler.store.lengths[position]), options.window)
        if options.has_images:
            record = sampler.store[position]
            ticks = record.frame_ticks[sampler.usable_frames(position, record)]
            inside, outside = windows.count_frames(ticks, starts, options.window, 0)
            starts = starts[(inside > 0) & (outside > 0)]
        plan += [(position, int(s)) for s in starts]
    return plan


@dataclasses.dataclass(frozen=True)
class _EvalSampler:
    sampler: Sampler
    plan: list[tuple[int, int]]

    def __call__(self, item: int) -> dict[str, np.ndarray]:
        position, start = self.plan[item % len(self.plan)]
        record = self.sampler.store[position]
        if self.sampler.options.stage == "autoencoder":
            sample = self.sampler.image(record, start)
        else:
            usable = self.sampler.usable_frames(position, record)
            sample = self.sampler.sample_window(position, record, usable, start, None)
        return sample | {
            "clip": np.int32(position),
            "start": np.int32(start),
            "weight": np.float32(item < len(self.plan)),
        }


def _to_iter_dataset(dataset: grain.MapDataset, options: LoaderOptions) -> grain.IterDataset:
    # An element is a whole batch here, so the buffer counts batches.
    out = dataset.to_iter_dataset(
        grain.ReadOptions(
            num_threads=options.num_threads, prefetch_buffer_size=max(1, options.prefetch)
        )
    )
    if options.num_workers:
        out = out.mp_prefetch(
            grain.multiprocessing.MultiprocessingOptions(
                num_workers=options.num_workers, per_worker_buffer_size=options.prefetch
            )
        )
    return out
