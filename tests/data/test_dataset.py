"""Rows of a manifest as training examples: what is read, matched, drawn and refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avtlm.data.augment import AugmentConfig, NoiseConfig
from avtlm.data.dataset import ClipDataset, Item, Source, Task, choose, collate, crop_together, cut, frame_level_phones
from avtlm.data.inputs import InputFormat
from avtlm.data.manifest import Manifest, Utterance, read_manifest, write_manifest
from avtlm.data.media import write_wav
from avtlm.text.vocabulary import UNKNOWN, Vocabulary
from avtlm.units.labels import write_labels
from tests.made_corpus import FRAMES, LETTERS, MadeCorpus, make_corpus

PHONES = Vocabulary.tokens(LETTERS)
LOUD = AugmentConfig(noise=NoiseConfig(1.0, 0.0, 0.0, voices=2), frequency_warp=0.08, frequency_masks=2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


def dataset(corpus: MadeCorpus, task: Task, training: bool = False, **changes: object) -> ClipDataset:
    manifest = {"audio": corpus.sound, "audio_text": corpus.sound, "text": corpus.text}.get(task, corpus.clips)
    units = None if task == "recognition" else str(corpus.units)
    source = replace(Source(str(manifest), task, units=units), **changes)  # type: ignore[arg-type]
    return ClipDataset(source, 1, InputFormat(), Vocabulary.characters([LETTERS]), PHONES, training)


def test_each_task_reads_what_it_needs(corpus: MadeCorpus) -> None:
    expected = {
        "audio_video": {"audio", "video", "units"},
        "audio": {"audio", "units"},
        "audio_text": {"audio", "text", "units"},
        "text": {"text", "units"},
        "recognition": {"audio", "video", "tokens"},
    }
    for task, parts in expected.items():
        item = dataset(corpus, task).item(0)  # type: ignore[arg-type]
        assert {name for name in ("audio", "video", "text", "units", "tokens") if getattr(item, name) is not None} == parts, task


def test_recognition_may_be_given_sound_or_lips_alone(corpus: MadeCorpus) -> None:
    heard, read = (dataset(corpus, "recognition", modality=letter).item(0) for letter in ("a", "v"))
    assert heard.audio is not None
    assert heard.video is None
    assert read.video is not None
    assert read.audio is None
    assert heard.tokens is not None
    with pytest.raises(ValueError, match="only recognition has a choice"):
        Source("m", "audio_video", modality="v")


def test_sound_picture_units_and_phones_agree_in_length(corpus: MadeCorpus) -> None:
    for task in ("audio_video", "audio_text", "text"):
        data = dataset(corpus, task)  # type: ignore[arg-type]
        for index in range(len(data)):
            item = data.item(index)
            assert item.units is not None
            frames = FRAMES * len(data.manifest[index].transcript or "")
            assert data.frames(index) == len(item.units) == frames
            assert item.audio is None or item.audio.shape == (frames, 104)
            assert item.video is None or item.video.shape == (frames, 88, 88)
            assert item.text is None or len(item.text) == 4 * frames


def test_without_augmentation_an_example_is_always_the_same_and_centred(corpus: MadeCorpus) -> None:
    data = dataset(corpus, "audio_video", augment=LOUD)
    first, again = data.item(0, epoch=0), data.item(0, epoch=5)
    assert first.audio is not None
    assert first.video is not None
    assert again.audio is not None
    assert torch.equal(first.audio, again.audio)
    assert torch.equal(first.video, torch.from_numpy(data.crops(0)[:, 4:92, 4:92].copy()))


def test_augmentation_repeats_from_seed_epoch_and_id_and_changes_with_each(corpus: MadeCorpus) -> None:
    data, fresh = dataset(corpus, "audio_video", True, augment=LOUD), dataset(corpus, "audio_video", True, augment=LOUD)
    data.item(3)  # what was asked for before must not matter
    for index in (0, 1):
        one, two, later = data.item(index, 2), fresh.item(index, 2), fresh.item(index, 3)
        assert one.audio is not None
        assert two.audio is not None
        assert later.audio is not None
        assert one.video is not None
        assert two.video is not None
        assert torch.equal(one.audio, two.audio)
        assert torch.equal(one.video, two.video)
        assert not torch.equal(one.audio, later.audio)


def test_a_limit_takes_the_same_rows_every_time_and_grows_by_adding(corpus: MadeCorpus) -> None:
    manifest = read_manifest(corpus.clips)
    sets = [{row.id for row in choose(manifest, Source("m", "recognition", limit=n))} for n in (3, 3, 6)]
    assert sets[0] == sets[1]
    assert sets[0] < sets[2]
    assert {row.id for row in choose(manifest, Source("m", "recognition", limit=3, limit_seed=1))} != sets[0]


def test_clips_outside_the_bounds_of_length_are_left_out(corpus: MadeCorpus) -> None:
    manifest = read_manifest(corpus.clips)
    rows = choose(manifest, Source("m", "recognition", min_seconds=0.7, max_seconds=1.0))
    assert {len(row.transcript or "") for row in rows} <= {4, 5}
    with pytest.raises(ValueError, match="no utterance of split train between 50 and 60 seconds"):
        choose(manifest, Source("m", "recognition", min_seconds=50, max_seconds=60))


def test_a_split_that_is_not_there_is_told_with_those_that_are(corpus: MadeCorpus) -> None:
    manifest = read_manifest(corpus.clips)
    there = ", ".join(sorted({row.split or "" for row in manifest}))
    with pytest.raises(ValueError, match=f"m: no utterance of split dev; there is {there}\\."):
        choose(manifest, Source("m", "recognition", split="dev"))
    folder = Manifest(manifest.root, tuple(replace(row, split=None) for row in manifest))  # as of clips in a folder
    with pytest.raises(ValueError, match="no utterance of split train; its rows have none: write them, or take all"):
        choose(folder, Source("m", "recognition"))
    assert len(choose(folder, Source("m", "recognition", split=None))) == len(folder)


def test_babble_is_of_other_speakers(corpus: MadeCorpus) -> None:
    data = dataset(corpus, "recognition", True, augment=LOUD)
    for index in range(len(data)):
        voices = data._others(index, 2, np.random.default_rng(index))
        speakers = {data.manifest[i].speaker for i in range(len(data)) if any(np.array_equal(data.wave(i), voice) for voice in voices)}
        assert speakers
        assert data.manifest[index].speaker not in speakers


def test_where_one_person_speaks_babble_is_of_other_clips(corpus: MadeCorpus) -> None:
    rows = read_manifest(corpus.clips)
    alone = Manifest(corpus.clips.parent, tuple(replace(row, speaker="s1") for row in rows))
    write_manifest(corpus.clips.parent / "alone.jsonl", alone)
    data = ClipDataset(Source(str(corpus.clips.parent / "alone.jsonl"), "recognition", split=None, augment=LOUD))
    for index in range(len(data)):
        voices = data._others(index, 2, np.random.default_rng(index))
        assert len(voices) == 2
        assert not any(np.array_equal(data.wave(index), voice) for voice in voices)


def test_phones_last_as_long_as_they_sound_and_unknown_ones_are_unknown() -> None:
    row = Utterance("u", phones="a:0.00:0.03 b:0.03:0.05 zz:0.05:0.06")
    assert frame_level_phones(row, PHONES) == [4, 4, 4, 5, 5, UNKNOWN]


def test_phone_symbols_with_a_colon_are_read_whole() -> None:
    vocabulary = Vocabulary.tokens(["a:", "b"])
    assert frame_level_phones(Utterance("u", phones="a::0.00:0.02 b:0.02:0.03"), vocabulary) == [4, 4, 5]


def test_units_of_almost_the_same_length_are_matched_and_gaps_are_no_unit(corpus: MadeCorpus, tmp_path: Path) -> None:
    data = dataset(corpus, "audio_video")
    assert data.labels is not None
    frames = data.frames(0)
    row = data.manifest[0]
    for length in (frames - 2, frames + 2):
        labels = {u.id: np.arange(length if u.id == row.id else round(u.duration * 25)) for u in data.manifest}
        write_labels(tmp_path / "units", labels)
        item = dataset(corpus, "audio_video", units=str(tmp_path / "units")).item(0)
        assert item.units is not None
        assert len(item.units) == frames
        assert item.units[: min(length, frames)].tolist() == list(range(min(length, frames)))
        assert (item.units[length:] == -1).all()


def test_labels_of_other_media_are_refused_with_file_and_utterance(corpus: MadeCorpus, tmp_path: Path) -> None:
    name = read_manifest(corpus.clips)[0].id
    write_labels(tmp_path / "wrong.units", {u.id: np.zeros(3, int) for u in read_manifest(corpus.clips)})
    with pytest.raises(ValueError, match=rf"wrong\.units: 3 labels for utterance '{name}' of \d+ frames"):
        dataset(corpus, "audio_video", units=str(tmp_path / "wrong.units"))
    write_labels(tmp_path / "few.units", {})
    with pytest.raises(ValueError, match=rf"few\.units: no labels for utterance '{name}'"):
        dataset(corpus, "audio_video", units=str(tmp_path / "few.units"))


def test_what_a_source_lacks_is_named(corpus: MadeCorpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a pre-training source needs unit labels"):
        dataset(corpus, "text", units=None).item(0)
    bare = tmp_path / "manifest.jsonl"
    write_manifest(bare, Manifest(tmp_path, (Utterance("u", audio="u.wav", audio_samples=16000, split="train"),)))
    with pytest.raises(ValueError, match="'u' has no phones"):
        ClipDataset(Source(str(bare), "text", units=None), phones=PHONES).item(0)
    write_manifest(bare, Manifest(tmp_path, (replace(read_manifest(corpus.clips)[0], transcript=None, video=None, audio=None),)))
    with pytest.raises(ValueError, match="has no transcript"):
        ClipDataset(Source(str(bare), "recognition"), vocabulary=PHONES).item(0)


def test_a_row_without_picture_in_a_batch_has_length_zero(corpus: MadeCorpus) -> None:
    data = dataset(corpus, "recognition")
    whole, deaf = data.item(0), replace(data.item(1), audio=None)
    batch = collate([whole, replace(data.item(2), video=None), deaf], "recognition")
    assert batch.video_lengths is not None
    assert batch.audio_lengths is not None
    assert batch.video_lengths.tolist()[1] == 0
    assert batch.audio_lengths.tolist()[2] == 0
    assert batch.text is None
    assert batch.targets["tokens"].shape[0] == 3
    assert collate([whole], "recognition").video is not None
    assert collate([replace(whole, video=None)], "recognition").video is None


@pytest.mark.parametrize("size", [88, 44, 22])
def test_smaller_frames_are_means_of_square_cells(size: int) -> None:
    crops = np.random.default_rng(0).integers(0, 256, (3, 96, 96), dtype=np.uint8)
    cell = 88 // size
    frames = InputFormat(video_size=size).video(crops, (2, 5), mirror=True)
    expected = crops[:, 2:90, 5:93].reshape(3, size, cell, size, cell).mean((2, 4))[:, :, ::-1]
    assert frames.shape == (3, size, size)
    assert np.abs(frames.numpy() - expected).max() <= 0.5


def test_a_size_that_does_not_divide_the_crop_is_refused() -> None:
    with pytest.raises(ValueError, match="video_size: 50"):
        InputFormat(video_size=50)


def test_a_weight_that_is_no_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight: 1\.5"):
        Source("m", "audio", weight=1.5)


# Cutting a batch to its shortest clip ---------------------------------------------------------------------------------------------------


def clip(frames: int, rate: int = 1) -> Item:
    """A clip whose every value is the number of its frame."""
    places = torch.arange(frames)
    return Item("x", places[:, None].float(), places[:, None, None], places.repeat_interleave(4), torch.arange(frames * rate))


def test_clips_are_cut_to_the_shortest_with_all_that_belongs_to_their_frames() -> None:
    starts = set()
    for seed in range(40):
        items = crop_together([clip(14), clip(9), clip(11)], 100, np.random.default_rng(seed))
        for item in items:
            assert item.audio is not None
            assert item.video is not None
            assert item.text is not None
            assert item.units is not None
            first = int(item.audio[0])
            shown = torch.arange(first, first + 9)
            assert torch.equal(item.audio[:, 0], shown.float())
            assert torch.equal(item.video[:, 0, 0], shown)
            assert torch.equal(item.text, shown.repeat_interleave(4))
            assert torch.equal(item.units, shown)
        starts.add(int(items[0].units[0]))  # type: ignore[index]
    assert starts == set(range(6))


def test_units_of_another_rate_are_cut_at_the_same_time() -> None:
    [item] = cut([clip(10, rate=4)], 3, [2], label_rate=100.0)
    assert item.units is not None
    assert item.units.tolist() == list(range(8, 20))
    assert all(len(part.units) == 24 for part in crop_together([clip(10, 4), clip(6, 4)], 8, np.random.default_rng(0), 100.0))  # type: ignore[arg-type]


def test_lengths_for_planning_are_those_of_the_crops_in_training_only(corpus: MadeCorpus) -> None:
    training, validation = (dataset(corpus, "audio_video", training, crop_frames=12) for training in (True, False))
    assert {training.frames(index) for index in range(len(training))} == {12}
    assert max(validation.frames(index) for index in range(len(validation))) > 12


def test_units_of_the_models_rate_are_read(corpus: MadeCorpus, tmp_path: Path) -> None:
    manifest = read_manifest(corpus.clips)
    rows = {row.id: np.arange(4 * (row.video_frames or 0) - 1, dtype=np.int32) for row in manifest}
    write_labels(tmp_path / "fine.units", rows)
    source = Source(str(corpus.clips), "audio_video", units=str(tmp_path / "fine.units"))
    item = ClipDataset(source, inputs=InputFormat(label_rate=100.0), training=False).item(0)
    assert item.units is not None
    assert item.video is not None
    assert item.units.tolist() == [*range(4 * len(item.video) - 1), -1]
    with pytest.raises(ValueError, match="at 25 Hz; the labels belong to other media, or have another rate"):
        ClipDataset(source, training=False)


def test_units_of_further_inventories_are_targets_of_their_own(corpus: MadeCorpus, tmp_path: Path) -> None:
    counts = {row.id: row.video_frames or 0 for row in read_manifest(corpus.clips)}
    for number in range(3):
        write_labels(tmp_path / f"{number}.units", {name: np.full(count, number, dtype=np.int32) for name, count in counts.items()})
    files = [str(tmp_path / f"{number}.units") for number in range(3)]
    data = dataset(corpus, "audio_video", units=files[0], further_units=tuple(files[1:]))
    items = [data.item(0), data.item(1)]
    for part in (items, cut(items, 5, [2, 0])):
        batch = collate(part, "audio_video")
        assert [name for name in batch.targets if name != "tokens"] == ["units", "units_1", "units_2"]
        for number, name in enumerate(("units", "units_1", "units_2")):
            assert batch.targets[name].shape == batch.targets["units"].shape
            assert set(batch.targets[name].flatten().tolist()) - {-1} == {number}
            assert torch.equal(batch.target_lengths[name], batch.target_lengths["units"])
    write_labels(tmp_path / "2.units", {})
    with pytest.raises(ValueError, match=r"2\.units: no labels for utterance"):
        dataset(corpus, "audio_video", units=files[0], further_units=tuple(files[1:]))
    with pytest.raises(ValueError, match="further_units: x, but there are no units"):
        Source("m", "audio", further_units=("x",))


@pytest.mark.parametrize("task", ["recognition", "text"])
def test_what_cannot_be_cut_is_refused(task: Task) -> None:
    with pytest.raises(ValueError, match="only for clips without transcripts"):
        Source("m", task, crop_frames=4)


def test_noise_may_come_from_lists_of_recordings(corpus: MadeCorpus, tmp_path: Path) -> None:
    write_wav(tmp_path / "music" / "hum.wav", (3000 * np.sin(np.arange(4000) / 9)).astype(np.int16))
    (tmp_path / "music" / "train.tsv").write_text("hum.wav\n")
    noise = NoiseConfig(1.0, lists=str(tmp_path), kinds=("music",))
    noisy, clean = (dataset(corpus, "audio", True, augment=AugmentConfig(noise=n)).item(0).audio for n in (noise, None))
    again = dataset(corpus, "audio", True, augment=AugmentConfig(noise=noise)).item(0).audio
    assert noisy is not None
    assert clean is not None
    assert again is not None
    assert torch.equal(noisy, again)
    assert not torch.equal(noisy, clean)
    with pytest.raises(ValueError, match=r"all/train.tsv does not exist \(it has lists of music\)"):
        dataset(corpus, "audio", True, augment=AugmentConfig(noise=NoiseConfig(lists=str(tmp_path))))
