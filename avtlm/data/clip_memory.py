"""Decoded clips kept in memory that all forked workers share, so that it is filled once and does not grow with workers or epochs."""

import logging
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np

log = logging.getLogger(__name__)


class ClipMemory:
    """Arrays of bytes by number, kept up to a bound.

    A slot is filled by whoever decodes its clip first, and its length is written after its content. Two who fill it at once write the same.
    What does not fit is not kept: the first clips are, in their order.

    Args:
        sizes: bytes of every clip at most; 0 keeps none of it.
        limit: bytes of all.
    """

    def __init__(self, sizes: Sequence[int], limit: int) -> None:
        self._offsets: list[int | None] = []
        self._sizes = list(sizes)
        total = 0
        for size in sizes:
            fits = size > 0 and total + size <= limit
            self._offsets.append(total if fits else None)
            total += size if fits else 0
        self.total = total
        self._map()

    def _map(self) -> None:
        """Anonymous shared memory: the system gives pages as they are written, and forked processes see the same ones."""
        self._data = self._lengths = np.zeros(0, np.uint8)
        if not self.total:
            return
        try:
            self._data = np.frombuffer(mmap.mmap(-1, self.total), np.uint8)
            self._lengths = np.frombuffer(mmap.mmap(-1, 8 * len(self._sizes)), np.int64)
        except OSError as error:
            log.warning("%.1f GB of memory for decoded clips cannot be had (%s); they are decoded each time", self.total / 1e9, error)
            self._offsets = [None] * len(self._offsets)

    @property
    def kept(self) -> int:
        """Number of clips that are in memory now."""
        return int(np.count_nonzero(self._lengths))

    def get(self, index: int) -> np.ndarray | None:
        """uint8 (bytes,), or None if the clip is not kept."""
        offset = self._offsets[index]
        if offset is None or not self._lengths[index]:
            return None
        return self._data[offset : offset + int(self._lengths[index])]

    def put(self, index: int, array: np.ndarray) -> None:
        """Keep an array if it has a slot that is large enough."""
        offset, content = self._offsets[index], np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        if offset is not None and 0 < len(content) <= self._sizes[index]:
            self._data[offset : offset + len(content)] = content
            self._lengths[index] = len(content)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_data", "_lengths")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # a spawned worker has a memory of its own
        self._map()
