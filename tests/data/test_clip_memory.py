"""Decoded clips in memory: shared by forked processes, bounded, and never a wrong one."""

import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avtlm.data import clip_memory
from avtlm.data.clip_memory import ClipMemory
from avtlm.data.dataset import ClipDataset, Source
from tests.made_corpus import make_corpus


def test_what_one_forked_process_decodes_the_others_have() -> None:
    memory = ClipMemory([10, 4], 100)
    worker = multiprocessing.get_context("fork").Process(target=memory.put, args=(0, np.arange(5, dtype=np.int16)))
    worker.start()
    worker.join()
    kept = memory.get(0)
    assert kept is not None
    assert kept.view(np.int16).tolist() == [0, 1, 2, 3, 4]
    assert memory.get(1) is None
    assert memory.kept == 1


def test_only_what_fits_is_kept() -> None:
    memory = ClipMemory([6, 6, 3, 0], 10)
    for index in range(4):
        memory.put(index, np.full(3, index, np.uint8))
    assert [None if (kept := memory.get(index)) is None else kept.tolist() for index in range(4)] == [[0] * 3, None, [2] * 3, None]
    assert memory.total == 9
    memory.put(2, np.zeros(4, np.uint8))  # longer than its slot: the manifest was wrong
    assert memory.get(2) is not None
    short = ClipMemory([3], 10)
    short.put(0, np.zeros(4, np.uint8))
    assert short.get(0) is None


def test_a_spawned_worker_starts_with_an_empty_memory_of_its_own() -> None:
    memory = ClipMemory([3], 10)
    memory.put(0, np.ones(3, np.uint8))
    copy = pickle.loads(pickle.dumps(memory))
    assert copy.get(0) is None
    copy.put(0, np.zeros(3, np.uint8))
    assert memory.get(0) is not None
    assert int(memory.get(0).sum()) == 3  # type: ignore[union-attr]


def test_a_machine_without_the_memory_decodes_each_time(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def none(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(clip_memory.mmap, "mmap", none)
    memory = ClipMemory([3], 10)
    memory.put(0, np.ones(3, np.uint8))
    assert memory.get(0) is None
    assert "they are decoded each time" in caplog.text


def test_a_dataset_keeps_its_clips_up_to_its_bound(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, 6)
    source = Source(str(corpus.clips), "audio_video", units=str(corpus.units))
    counts = {}
    for gigabytes in (4.0, 0.0005, 0.0):
        data = ClipDataset(replace(source, cache_gb=gigabytes))
        for index in range(len(data)):
            data.item(index)
        counts[gigabytes] = data._waves.kept + data._crops.kept
    assert counts[4.0] == 2 * len(data)
    assert 0 < counts[0.0005] < counts[4.0]
    assert counts[0.0] == 0
    with pytest.raises(ValueError, match="cache_gb: -1"):
        replace(source, cache_gb=-1)
