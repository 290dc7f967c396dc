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
import multiprocessing
import os
import threading

import grain
import numpy as np

from talkjax.data import records, windows
from talkjax.data.samples import LoaderOptions, Sampler
from talkjax.data.sync_samples import SyncSampler
from talkjax.errors import UserError


def train_dataset(
    data_dir: str | os.PathLike,
    options: LoaderOptions,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    split: str = "train",
) -> grain.IterDataset:
    """Endless shuffled batches; every epoch has every slot of footage once.

    A step's samples are the same however many processes share them: the slots of all epochs and
    what is random in them make one sequence of samples, cut into batches, and of every
    `process_count` batches in a row, which are one batch of the whole run, each process takes its
    own. So the iterator's state is the same in all of them, and for any number of them.

    Args:
      data_dir: what `data_pipelines.prepare` made.
      options: see `LoaderOptions`.
      seed: of the order and of everything random in the samples.
      process_index, process_count: which part of the data this process reads.
      split: the split.

    Raises:
      UserError: no data, no usable clip, too many damaged records, latents of other settings.
    """
    sampler = _sampler(data_dir, split, options)
    samples = slot_order(len(sampler), seed).random_map(sampler, seed=_sample_seed(seed))
    share = dict(process_index=process_index, process_count=process_count)
    return _to_iter_dataset(batches_of_process(samples, options.batch_size, **share), options)


def _sampler(data_dir: str | os.PathLike, split: str, options: LoaderOptions) -> Sampler:
    kind = SyncSampler if options.stage == "sync" else Sampler
    return kind(data_dir, split, options)


def slot_order(count: int, seed: int) -> grain.MapDataset:
    """Slots for ever, shuffled anew in each epoch of `count`."""
    return grain.MapDataset.range(count).seed(seed).shuffle().repeat()


def batches_of_process(
    samples: grain.MapDataset, batch_size: int, process_index: int, process_count: int
) -> grain.MapDataset:
    """Rows [p B/P, (p+1) B/P) of every batch of B = `process_count` x `batch_size` samples."""
    return samples.batch(batch_size, drop_remainder=True)[process_index::process_count]


def _sample_seed(seed: int) -> int:
    """What is drawn inside of samples must not go the way of the order, which has `seed`."""
    return int(np.random.SeedSequence([seed, 0]).generate_state(1)[0])


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

    samples = grain.MapDataset.range(padded).map(_EvalSampler(sampler, plan))
    share = dict(process_index=process_index, process_count=process_count)
    return _to_iter_dataset(batches_of_process(samples, options.batch_size, **share), options)


def _eval_plan(sampler: Sampler) -> list[tuple[int, int]]:
    """(position of the clip, first tick) of every window; damaged records have none."""
    options, plan = sampler.options, []
    for position in map(int, sampler.clips):
        try:
            record = sampler.store[position]
        except records.DamagedRecordError:
            continue  # the store has told
        if options.stage == "autoencoder":
            usable = sampler.usable_frames(position, record)
            plan += [(position, int(f)) for f in usable[:: options.window]]
            continue
        starts = windows.covering_starts(int(sampler.store.lengths[position]), options.window)
        if options.has_images:
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
            ),
            worker_init_fn=_end_with_parent,
        )
    return out


def _end_with_parent(*unused: int) -> None:
    """Ends this worker process when the one that started it is gone, by SIGKILL too.

    It would wait for ever to hand over its next batch, and keep its memory.
    """

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
