"""Endless batches of one source, in an order that the seed and the epoch fix; a position (epoch, batch) is all there is to remember."""

import ctypes
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.utils.data import DataLoader

from avtlm.data.batching import Batch, plan_batches, plan_by_groups, summarise
from avtlm.data.dataset import ClipDataset
from avtlm.data.seeds import seed_for
from avtlm.training.interruption import ignore_in_worker

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


class _Rows(torch.utils.data.Dataset[Batch]):
    """One batch for one plan entry, so that workers build whole batches."""

    def __init__(self, dataset: ClipDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, plan: tuple[list[int], int, float]) -> Batch:
        # As in a worker: on short clips a second thread costs more than it does, and most of all where there are but two.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self.dataset.batch(*plan)
        finally:
            torch.set_num_threads(threads)


class BatchStream:
    """Batches of a dataset for ever.

    Args:
        name: of the source; part of the seed.
        max_frames, max_rows: see plan_batches.
        workers: processes that build batches ahead; 0 builds them in this one.
        buckets: see plan_batches.

    Attributes:
        planned: gives the batches of an epoch in place of one pass over all rows (see avtlm.data.mixing).

    Raises:
        ValueError: an utterance is longer than ``max_frames``.
    """

    def __init__(
        self, name: str, dataset: ClipDataset, seed: int, max_frames: int, max_rows: int, workers: int = 0, buckets: int = 8
    ) -> None:
        self.name = name
        self.dataset = dataset
        self.seed = seed
        self.max_frames = max_frames
        self.max_rows = max_rows
        self.workers = workers
        self.buckets = buckets
        self.planned: Callable[[int], list[list[int]]] | None = None
        self.lengths: Sequence[int] = [dataset.frames(index) for index in range(len(dataset))]
        # An utterance that fits no batch is found here, before the first step.
        log.info("%s: %s", name, summarise(self.lengths, self.plan(0), max_frames))

    def plan(self, epoch: int) -> list[list[int]]:
        """Rows of every batch of an epoch."""
        return self.planned(epoch) if self.planned is not None else self.plan_rows(range(len(self.lengths)), epoch)

    def plan_rows(self, rows: Sequence[int], epoch: int) -> list[list[int]]:
        """Batches of one pass over these rows, each as often as it is named."""
        generator = torch.Generator().manual_seed(seed_for(self.seed, "order", self.name, epoch))
        lengths, groups, window = [self.lengths[row] for row in rows], self.dataset.groups, self.dataset.source.shards.window
        if groups is None or window is None:
            plan = plan_batches(lengths, self.max_frames, self.max_rows, generator, self.buckets)
        else:
            homes = [groups[row] for row in rows]
            plan = plan_by_groups(lengths, homes, window, self.max_frames, self.max_rows, generator, self.buckets)
        return [[rows[place] for place in batch] for batch in plan]

    def batches(self, position: tuple[int, int], steps: Iterator[float | None]) -> Iterator[tuple[Batch | None, tuple[int, int]]]:
        """From a position on: each batch and the position after it.

        Args:
            steps: for each batch that will be asked for, the share of the training that is done by then (drives the noise ramp); None for
                those that another process takes, in whose place None is given.
        """
        ahead, steps = itertools.tee(steps)
        plans = zip(self._plans(position), ahead, strict=False)
        wanted = ((rows, place[0], progress) for (rows, place), progress in plans if progress is not None)
        loader: DataLoader[Batch] = DataLoader(
            _Rows(self.dataset),
            sampler=_Once(wanted),
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_start_worker,
        )
        built = iter(loader)
        for (_, place), progress in zip(self._plans(position), steps, strict=False):
            yield None if progress is None else next(built), place

    def _plans(self, position: tuple[int, int]) -> Iterator[tuple[list[int], tuple[int, int]]]:
        epoch, index = position
        while True:
            plan = self.plan(epoch)
            while index < len(plan):
                index += 1
                yield plan[index - 1], (epoch, index)
            epoch, index = epoch + 1, 0


def _start_worker(number: int) -> None:
    """Buffers over 4 MB go back to the system when they are freed: glibc would keep them, and every worker would grow for some epochs until
    it has met its largest batches. This costs a few hundredths of a worker's time."""
    ignore_in_worker(number)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 22)
        mallopt(M_TRIM_THRESHOLD, 1 << 24)


class _Once(torch.utils.data.Sampler[tuple[list[int], int, float]]):
    """A sampler over an iterator that is consumed once."""

    def __init__(self, plans: Iterator[tuple[list[int], int, float]]) -> None:
        self.plans = plans

    def __iter__(self) -> Iterator[tuple[list[int], int, float]]:
        return self.plans
