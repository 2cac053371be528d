"""Corpora in shards: the same examples as from files, in any order, on any number of workers and processes; damage is named."""

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm.data.dataset import ClipDataset, Item, Source
from avtlm.data.inputs import InputFormat
from avtlm.data.manifest import ManifestError, read_manifest, validate
from avtlm.data.shard_cache import ShardCache, ShardError, open_remote
from avtlm.data.shards import ShardConfig, ShardReader, read_shards
from avtlm.errors import MissingExtra
from avtlm.text.vocabulary import Vocabulary
from avtlm.training.stream import BatchStream
from avtlm.units.features import FeatureConfig, Features
from preprocess.shards import write_shards
from tests.made_corpus import LETTERS, MadeCorpus, make_corpus
from tests.made_store import s3_server
from tests.training.made_runs import pretraining, run, same


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 24)


@pytest.fixture(scope="module")
def shards(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six shards or so of four clips."""
    return write_shards(corpus.clips, tmp_path_factory.mktemp("shards"), 900_000, corpus.units, workers=0).parent


def copied(folder: Path, target: Path) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def dataset(place: str | Path, units: str | None, task: str = "audio_video", **changes: Any) -> ClipDataset:
    source = replace(Source(str(place), task, units=units), **changes)  # type: ignore[arg-type]
    return ClipDataset(source, 1, InputFormat(), Vocabulary.characters([LETTERS]), Vocabulary.tokens(LETTERS), True)


def equal(one: Item, two: Item) -> bool:
    pairs = [(getattr(one, name), getattr(two, name)) for name in ("audio", "video", "text", "units", "tokens")]
    return one.id == two.id and all((a is None and b is None) or torch.equal(a, b) for a, b in pairs)


# The same as from the manifest ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["audio_video", "recognition"])
@pytest.mark.parametrize("cache", [True, False])
def test_examples_are_bit_for_bit_those_of_the_manifest(corpus: MadeCorpus, shards: Path, task: str, cache: bool) -> None:
    units = (None, None) if task == "recognition" else (str(corpus.units), "shards")
    files = dataset(corpus.clips, units[0], task, cache=cache)
    packed = dataset(shards, units[1], task, cache=cache)
    assert [row.id for row in packed.manifest] == [row.id for row in files.manifest]
    for index in range(len(files)):
        assert equal(files.item(index, 3), packed.item(index, 3))
        assert packed.frames(index) == files.frames(index)
        assert equal(files.item(index, 3), packed.item(index, 3))  # out of the memory, if there is one


def test_videos_and_compressed_sound_come_out_the_same(tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    from avtlm.data.manifest import Manifest, Utterance, write_manifest
    from avtlm.data.media import write_clip

    rng = np.random.default_rng(0)
    write_clip(tmp_path / "a.mp4", np.repeat(rng.integers(0, 255, (1, 96, 96), dtype=np.uint8), 25, 0))
    soundfile.write(tmp_path / "a.flac", rng.normal(0, 0.1, 16000), 16000)
    write_clip(
        tmp_path / "b.mp4", np.repeat(rng.integers(0, 255, (1, 96, 96), dtype=np.uint8), 25, 0), rng.normal(0, 0.1, 16000).astype("f")
    )
    rows = (
        Utterance("a", "a.mp4", "a.flac", 25, 16000, transcript="a", split="train"),
        Utterance("größe/b", "b.mp4", "b.mp4", 25, 16000, transcript="b", split="train"),  # the sound is in the video
    )
    write_manifest(tmp_path / "manifest.jsonl", Manifest(tmp_path, rows))
    place = write_shards(tmp_path, tmp_path / "shards", workers=0)
    files, packed = dataset(tmp_path, None, "recognition"), dataset(place, None, "recognition")
    assert all(equal(files.item(index), packed.item(index)) for index in range(2))
    held = packed.manifest.shards
    assert held is not None
    assert len(held.members) == 3  # the video with sound lies there once


def test_a_training_run_from_shards_is_the_run_from_the_manifest(corpus: MadeCorpus, shards: Path, tmp_path: Path) -> None:
    models = []
    for name, place, units in (("files", corpus.clips, str(corpus.units)), ("shards", shards, "shards")):
        settings = pretraining(corpus, tmp_path / name, steps=4, workers=2 if name == "shards" else 0)
        settings["sources"] = {"clips": {**settings["sources"]["audio_video"], "manifest": str(place), "units": units}}
        models.append(run(settings))
    assert same(*models)


def test_a_url_names_shards_as_well(shards: Path, tmp_path: Path) -> None:
    config = ShardConfig(cache=str(tmp_path / "cache"))
    near, far = dataset(shards, "shards"), dataset(shards.as_uri(), "shards", shards=config)
    assert all(equal(near.item(index), far.item(index)) for index in range(len(near)))
    assert len(list((tmp_path / "cache").glob("*.tar"))) == len(list(shards.glob("*.tar")))


def test_workers_of_a_training_read_from_a_bucket(corpus: MadeCorpus, shards: Path, tmp_path: Path) -> None:
    """They are forked from a process that has spoken to the bucket itself."""
    with s3_server("bucket"):
        write_shards(corpus.clips, "s3://bucket/corpus", 900_000, corpus.units, workers=0)
        near, far = stream(shards, "shards", 0), stream("s3://bucket/corpus", "shards", 2, shards=ShardConfig(cache=str(tmp_path)))
        steps = len(near.plan(0))
        assert taken(far, 0, 1, steps) == taken(near, 0, 1, steps)
    assert len(list(tmp_path.glob("*.tar"))) == len(list(shards.glob("*.tar")))


def test_units_are_made_of_shards_as_of_files(corpus: MadeCorpus, shards: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = [Features(read_manifest(place), FeatureConfig(None)).compute([3, 0]) for place in (corpus.clips, shards, shards.as_uri())]
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert one[0] == other[0]
            assert (one[1] == other[1]).all()
    assert list((tmp_path / "avtlm" / "shards").glob("*.tar"))


def test_the_rows_of_shards_are_valid_and_say_that_they_are_no_files(shards: Path) -> None:
    manifest = read_manifest(shards)
    assert validate(manifest) == []
    with pytest.raises(ManifestError, match=r"lies in a tar file, and this needs plain files"):
        manifest.path(manifest[0].video)


# Dividing -------------------------------------------------------------------------------------------------------------------------------


def stream(place: Path, units: str, workers: int, **changes: Any) -> BatchStream:
    return BatchStream("clips", dataset(place, units, **changes), 1, 60, 3, workers)


def taken(batches: BatchStream, rank: int, ranks: int, steps: int, position: tuple[int, int] = (0, 0), skip: int = 0) -> list[str]:
    """Ids that one of several processes gets, which takes every so many-th batch."""
    turns: Iterator[float | None] = (0.5 if step % ranks == rank else None for step in range(skip, steps))
    return [name for batch, _ in batches.batches(position, turns) if batch is not None for name in batch.ids]


@pytest.mark.parametrize("window", [None, 2])
def test_processes_and_workers_together_see_every_utterance_once_an_epoch(shards: Path, window: int | None) -> None:
    config = ShardConfig(window=window)
    steps = len(stream(shards, "shards", 0, shards=config).plan(0))
    parts = [taken(stream(shards, "shards", workers, shards=config), rank, 2, steps) for rank, workers in ((0, 2), (1, 1))]
    ids = sorted(row.id for row in read_manifest(shards) if row.split == "train")
    assert sorted(parts[0] + parts[1]) == ids
    assert parts[0]
    assert parts[1]


def test_a_position_within_shards_is_gone_on_from_exactly(shards: Path) -> None:
    config = ShardConfig(window=2)
    whole = list(stream(shards, "shards", 0, shards=config).batches((0, 0), iter([0.5] * 14)))
    for workers in (0, 2):
        rest = list(stream(shards, "shards", workers, shards=config).batches(whole[4][1], iter([0.5] * 9)))
        assert [(batch.ids, place) for batch, place in rest if batch] == [(batch.ids, place) for batch, place in whole[5:] if batch]


def test_a_window_mixes_only_so_many_shards_at_a_time(shards: Path) -> None:
    batches = stream(shards, "shards", 0, shards=ShardConfig(window=2))
    index = batches.dataset.manifest.shards
    assert index is not None
    order: list[int] = []
    for rows in batches.plan(0):
        order += [index.homes[batches.dataset.manifest[row].id] for row in rows]
    pairs = [set(order[: order.index(shard)]) for shard in dict.fromkeys(order)]  # shards begun before this one
    for place, shard in enumerate(dict.fromkeys(order)):
        done = {other for other in pairs[place] if other not in order[order.index(shard) :]}
        assert len(pairs[place] - done) <= 1
    assert batches.plan(0) != batches.plan(1)


# The cache ------------------------------------------------------------------------------------------------------------------------------


def test_the_cache_keeps_to_its_bound_and_drops_what_was_unused_for_longest(shards: Path, tmp_path: Path) -> None:
    index = read_shards(shards.as_uri()).shards
    assert index is not None
    limit = 2 * max(shard.bytes for shard in index.shards)
    cache = ShardCache(tmp_path, limit)
    names = []
    for shard in (*index.shards, index.shards[-2]):
        os.close(cache.open(index.location(shard), shard.bytes, shard.sha256))
        names.append(shard.name)
        held = list(tmp_path.glob("*.tar"))
        assert sum(path.stat().st_size for path in held) <= limit
        assert any(path.name.endswith(shard.name) for path in held)
        time.sleep(0.01)
    assert {path.name.partition("-")[2] for path in tmp_path.glob("*.tar")} == set(names[-2:])
    assert not list(tmp_path.glob("*.partial"))


def _read_all(place: str, cache: str, order: int, results: Any) -> None:
    packed = dataset(place, "shards", shards=ShardConfig(cache=cache, cache_gb=0.002), cache=False)
    rows = range(len(packed))
    results.put((order, sum(int(packed.crops(row).sum()) for row in (rows if order % 2 else reversed(rows)))))


def test_several_processes_share_a_cache_that_is_too_small_for_all(shards: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_read_all, args=(shards.as_uri(), str(tmp_path), order, results)) for order in range(4)]
    for worker in workers:
        worker.start()
    sums = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    near = dataset(shards, "shards")
    expected = sum(int(near.crops(row).sum()) for row in range(len(near)))
    assert {value for _, value in sums} == {expected}
    assert not list(tmp_path.glob("*.partial"))


def test_a_fetch_that_dies_leaves_nothing_that_passes_for_a_shard(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = read_shards(shards.as_uri()).shards
    assert index is not None
    shard, cache = index.shards[0], ShardCache(tmp_path, 10**9)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            cache.open(index.location(shard), shard.bytes, shard.sha256)
    assert not list(tmp_path.glob("*.tar"))
    handle = cache.open(index.location(shard), shard.bytes, shard.sha256)
    assert os.pread(handle, shard.bytes + 1, 0) == (shards / shard.name).read_bytes()
    os.close(handle)


# Damage ---------------------------------------------------------------------------------------------------------------------------------


def failure(place: str | Path, config: ShardConfig | None = None) -> str:
    """The one sentence of reading everything."""
    manifest = read_shards(place)
    assert manifest.shards is not None
    reader = ShardReader(manifest.shards, config)
    with pytest.raises(ShardError) as caught:
        [reader.media(row.audio or "") for row in manifest]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_a_cut_and_a_damaged_shard_are_named(shards: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("missing", "cut", "longer", "damaged")):
        folder = copied(shards, tmp_path / name)
        path = folder / "shard-000001.tar"
        content = path.read_bytes()
        if name == "missing":
            path.unlink()
        else:
            at = content.index(b"RIFF") + 100
            damaged = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
            path.write_bytes({"cut": content[:5000], "longer": content + b"0", "damaged": damaged}[name])
        expected = ("there is no such file", "is cut off (5000 bytes instead of", "is another shard than the index means", "is damaged")
        for place, config in ((folder, None), (folder.as_uri(), ShardConfig(cache=str(tmp_path / f"{name} cache")))):
            message = failure(place, config)
            assert "shard-000001.tar" in message
            assert expected[number] in message


def test_an_index_of_other_shards_is_noticed(shards: Path, tmp_path: Path) -> None:
    """Two shards exchanged: of different sizes, and padded to the same one."""
    folder = copied(shards, tmp_path / "exchanged")
    first, second = folder / "shard-000000.tar", folder / "shard-000001.tar"
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    assert any(
        reason in failure(folder) for reason in ("is cut off", "another shard than the index means", "index belongs to other shards")
    )
    size = len(contents[0])
    first.write_bytes(contents[1][:size].ljust(size, b"\0"))
    second.write_bytes(contents[1])
    assert "is damaged, or the index belongs to other shards (its checksum differs)" in failure(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1, is not the head of an index of shards"),
        ('{"id": "a"}\n', "line 1, is not the head of an index of shards"),
        ('{"version": 9, "key": "", "shards": []}\n', "has the version 9 of shards, and 1 is known"),
        ('{"version": 1, "key": "", "shards": []}\n', "lists no utterances"),
        (
            '{"version": 1, "key": "", "shards": [{"name": "../a.tar", "bytes": 1, "sha256": "", "utterances": 1, "frames": 1}]}\n',
            "line 1, is not the head of an index of shards",
        ),
        (
            '{"version": 1, "key": "", "shards": [{"name": "a.tar", "bytes": 9, "sha256": "", "utterances": 1, "frames": 1}]}\n'
            '{"id": "a", "shard": 0, "members": {"audio": ["a.wav", 5, 5, 0]}}\n',
            "line 2, is not a row of an index of shards",
        ),
        ('{"version": 1, "key": "", "shards": []}\n{"id": "a", "shard": 0, "members": {}}\n', "line 2, is not a row of an index of shards"),
    ],
)
def test_an_index_that_is_none_is_refused_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "shards.jsonl").write_text(content)
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path)


def test_a_missing_index_and_an_unknown_kind_of_address_are_named(tmp_path: Path) -> None:
    for place in (str(tmp_path / "shards.jsonl"), f"{tmp_path.as_uri()}/none"):
        with pytest.raises(ManifestError, match=r"shards.jsonl does not exist; make shards with python -m preprocess.shards"):
            read_manifest(place)
    with pytest.raises(ShardError, match=r"carrier-pigeon://x/shards.jsonl: this kind of address cannot be read here \(Protocol not known"):
        read_manifest("carrier-pigeon://x")


def test_without_fsspec_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(MissingExtra, match=r"pip install 'avtlm\[shards\]'"):
        open_remote("s3://bucket")


def test_units_or_settings_of_shards_need_shards(corpus: MadeCorpus, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a manifest of plain files, so the key 'units' cannot speak of shards"):
        dataset(corpus.clips, "shards")
    with pytest.raises(ValueError, match="is a manifest of plain files, so the key 'shards' cannot speak of shards"):
        dataset(corpus.clips, str(corpus.units), shards=ShardConfig(window=3))
    bare = write_shards(corpus.clips, tmp_path, workers=0)
    with pytest.raises(ValueError, match="no labels for utterance"):
        dataset(bare, "shards")
    for wrong in ({"window": 0}, {"cache_gb": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ShardConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ShardError, match="are more than the cache may hold"):
        dataset(shards.as_uri(), "shards", shards=ShardConfig(cache=str(tmp_path / "c"), cache_gb=1e-6)).crops(0)
    assert json.loads((shards / "shards.jsonl").read_text().splitlines()[0])["version"] == 1
