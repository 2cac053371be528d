"""Sources of models that read and write both speech and text: what their batches hold, what repeats, and what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avtlm import config
from avtlm.data.dataset import Source
from avtlm.data.inputs import InputFormat
from avtlm.data.manifest import Manifest, Utterance, read_manifest, write_manifest
from avtlm.data.media import write_wav
from avtlm.data.spoken_clips import SpokenDataset, open_source
from avtlm.frontends.mel import log_mel, mel_frames
from avtlm.text.vocabulary import BOS, EOS, Vocabulary
from avtlm.units.labels import read_labels, write_labels
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_runs import with_units_at_50_hz

FORM = InputFormat(
    audio_normalise="none", video_size=None, label_rate=50.0, waveform=True, frame_rate=50.0, shortest=400, mel_bands=80, voice_dim=3
)
LETTERS = Vocabulary.characters(["abcdef"])
SPEAKERS = ("s0", "s1", "s2", "s3")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    folder = tmp_path_factory.mktemp("corpus")
    made = with_units_at_50_hz(make_corpus(folder), folder)
    np.savez(folder / "voices.npz", **{name: np.full(3, number, np.float32) for number, name in enumerate(SPEAKERS)})
    return made


def dataset(corpus: MadeCorpus, task: Any, training: bool = True, form: InputFormat = FORM, **keys: Any) -> SpokenDataset:
    voiced = {"voices": str(corpus.units.with_name("voices.npz"))} if task in ("speech", "synthesis", "conversion") else {}
    source = Source(str(keys.pop("manifest", corpus.sound)), task, **{**voiced, **keys})
    found = open_source(source, 1, form, LETTERS, None, training, SPEAKERS)
    assert isinstance(found, SpokenDataset)
    return found


def changed(corpus: MadeCorpus, folder: Path, change: Callable[[int, Utterance], Utterance]) -> Path:
    """A manifest with other rows over the same sound."""
    rows = tuple(change(number, row) for number, row in enumerate(read_manifest(corpus.sound)))
    write_manifest(folder / "manifest.jsonl", Manifest(corpus.sound.parent, rows))
    return folder / "manifest.jsonl"


def targets(corpus: MadeCorpus, folder: Path, **extra: str) -> Path:
    """The first row has a target."""
    return changed(corpus, folder, lambda number, row: replace(row, extra=dict(extra)) if number == 0 else row)


# What batches hold --------------------------------------------------------------------------------------------------------------------


def test_speech_comes_with_units_spectrogram_and_voice(corpus: MadeCorpus) -> None:
    rows = dataset(corpus, "speech", units=str(corpus.units))
    batch = rows.batch([0, 1])
    assert batch.task == "speech"
    assert batch.audio is not None
    assert batch.audio_lengths is not None
    for place, samples in enumerate(batch.audio_lengths.tolist()):
        wave = batch.audio[place, :samples]
        assert torch.equal(wave, torch.from_numpy(rows.wave(place).astype(np.float32) / 32768))
        assert batch.target_lengths["mel"][place] == mel_frames(samples)
        assert torch.equal(batch.targets["mel"][place, : mel_frames(samples)], log_mel(wave))
        assert batch.target_lengths["units"][place] == samples // 320
        assert batch.targets["voice"][place].tolist() == [place] * 3


def test_what_the_model_does_not_want_is_left_out(corpus: MadeCorpus) -> None:
    batch = dataset(corpus, "speech", form=replace(FORM, mel_bands=0, voice_dim=0), voices=None).batch([0, 1])
    assert batch.targets == {}


def test_texts_stand_between_start_and_end_and_are_as_long_as_that(corpus: MadeCorpus) -> None:
    rows = dataset(corpus, "infilling", manifest=corpus.text)
    batch = rows.batch([0, 1])
    assert batch.audio is None
    assert batch.text is not None
    assert batch.text_lengths is not None
    for place in range(2):
        ids = LETTERS.encode(rows.manifest[place].transcript or "")
        assert batch.text[place, : batch.text_lengths[place]].tolist() == [BOS, *ids, EOS]
        assert rows.frames(place) == batch.text_lengths[place] == len(ids) + 2


def test_units_of_texts_come_with_their_end_and_with_the_text(corpus: MadeCorpus) -> None:
    rows = dataset(corpus, "units", manifest=corpus.text, units=str(corpus.units), form=replace(FORM, first_unit=4))
    labels = read_labels(corpus.units)
    batch = rows.batch([0, 1])
    assert batch.audio is None
    assert batch.text is not None
    assert batch.text_lengths is not None
    assert batch.text_units is not None
    assert batch.text_units_lengths is not None
    for place in range(2):
        row = rows.manifest[place]
        units = batch.text_units[place, : batch.text_units_lengths[place]].tolist()
        assert units == [*(labels[row.id] + 4).tolist(), EOS]
        assert batch.text[place, : batch.text_lengths[place]].tolist() == LETTERS.encode(row.transcript or "")
        assert rows.frames(place) == len(units)
    assert batch.to("cpu").text_units is not None


def test_reduced_units_have_no_repeats(corpus: MadeCorpus) -> None:
    form = replace(FORM, first_unit=4, reduced_units=True)
    rows = dataset(corpus, "units", manifest=corpus.text, units=str(corpus.units), form=form)
    batch = rows.batch([0])
    spelled = rows.manifest[0].transcript or ""
    runs = [letter for place, letter in enumerate(spelled) if letter != spelled[place - 1 : place]]
    assert batch.text_units is not None
    assert batch.text_units[0].tolist() == [*(4 + "abcdef".index(letter) for letter in runs), EOS]
    assert rows.frames(0) == max(len(runs) + 1, len(spelled) + 2)


def test_units_alone_need_no_text_and_may_be_those_of_speech(corpus: MadeCorpus) -> None:
    rows = dataset(corpus, "units", units=str(corpus.units), written=None)
    batch = rows.batch([0, 2])
    assert batch.text is None
    assert batch.text_units is not None
    assert batch.audio is None


def test_synthesis_reads_the_transcript_and_writes_its_clip(corpus: MadeCorpus) -> None:
    rows = dataset(corpus, "synthesis")
    batch = rows.batch([2])
    assert batch.audio is None
    assert batch.text is not None
    assert batch.text[0].tolist() == LETTERS.encode(rows.manifest[2].transcript or "")
    assert set(batch.targets) == {"mel", "voice"}
    assert rows.frames(2) == round(50 * rows.manifest[2].duration)


def test_conversion_writes_the_target_in_its_voice(corpus: MadeCorpus, tmp_path: Path) -> None:
    rows = read_manifest(corpus.sound)
    mel = log_mel(torch.from_numpy(dataset(corpus, "speech").wave(1).astype(np.float32) / 32768))
    by_id = dataset(corpus, "conversion", manifest=targets(corpus, tmp_path, target=rows[1].id)).batch([0])
    by_file = dataset(corpus, "conversion", manifest=targets(corpus, tmp_path, target=str(rows[1].audio), target_speaker="s1")).batch([0])
    for batch in (by_id, by_file):
        assert torch.equal(batch.targets["mel"][0], mel)
        assert batch.targets["voice"][0].tolist() == [1, 1, 1]
    assert by_id.audio is not None
    assert by_id.audio.shape[1] == rows[0].audio_samples


def test_enhancement_hears_noise_and_writes_the_clip_without_it(corpus: MadeCorpus) -> None:
    noise = {"noise": {"prob": 1.0, "snr_low": 0.0, "snr_high": 0.0, "voices": 2}}
    source = config.load(Source, {"manifest": str(corpus.sound), "task": "conversion", "augment": noise})
    rows = open_source(source, 1, replace(FORM, voice_dim=0), LETTERS)
    batch = rows.batch([0])
    assert batch.audio is not None
    clean = torch.from_numpy(rows.wave(0).astype(np.float32) / 32768)
    assert not torch.equal(batch.audio[0], clean)
    assert torch.equal(batch.targets["mel"][0], log_mel(clean))
    # Validation hears the noise that its own source asks for, the same in every run.
    held_out = [open_source(source, seed, replace(FORM, voice_dim=0), LETTERS, training=False).batch([0]).audio for seed in (1, 2)]
    assert held_out[0] is not None
    assert held_out[1] is not None
    assert not torch.equal(held_out[0][0], clean)
    assert torch.equal(held_out[0], held_out[1])
    quiet = replace(source, augment=replace(source.augment, noise=None))
    still = open_source(quiet, 1, replace(FORM, voice_dim=0), LETTERS, training=False).batch([0])
    assert still.audio is not None
    assert torch.equal(still.audio[0], clean)


def test_speakers_have_their_numbers(corpus: MadeCorpus) -> None:
    batch = dataset(corpus, "speaker").batch([0, 1, 2])
    assert batch.targets["speaker"].tolist() == [0, 1, 2]
    assert "mel" not in batch.targets


# Cuts ---------------------------------------------------------------------------------------------------------------------------------


def test_clips_of_a_batch_are_cut_to_one_length_and_the_same_again_in_the_same_epoch(corpus: MadeCorpus) -> None:
    rows, twin = (dataset(corpus, "speech", units=str(corpus.units), crop_frames=20) for _ in range(2))
    first, again, later = rows.batch([0, 1, 2], 3), twin.batch([0, 1, 2], 3), rows.batch([0, 1, 2], 4)
    assert first.audio is not None
    assert again.audio is not None
    assert later.audio is not None
    assert first.audio.shape == (3, 20 * 320)
    assert first.targets["units"].shape == (3, 20)
    assert first.targets["mel"].shape[1] in (24, 25)
    assert torch.equal(first.audio, again.audio)
    assert torch.equal(first.targets["mel"], again.targets["mel"])
    assert not torch.equal(first.audio, later.audio)
    whole = dataset(corpus, "speech", training=False, units=str(corpus.units), crop_frames=20).batch([0])
    assert whole.audio is not None
    assert whole.audio.shape[1] == rows.manifest[0].audio_samples


def test_clips_of_speakers_are_cut_where_they_are_too_long_and_padded_otherwise(corpus: MadeCorpus) -> None:
    rows = dataset(corpus, "speaker", crop_frames=40)
    batch = rows.batch([0, 1, 2])
    assert batch.audio_lengths is not None
    assert batch.audio_lengths.tolist() == [min(rows.manifest[place].audio_samples, 40 * 320) for place in range(3)]


# Bad input ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("synthesis", {"transcript": None}, "utterance 'sound00' has no transcript; leave it out"),
        ("synthesis", {"transcript": " "}, "utterance 'sound00' has an empty transcript; leave it out"),
        ("synthesis", {"transcript": "abx"}, r"'sound00' has symbols that the vocabulary lacks \(1 of 3 symbols unknown.*'x' 1x"),
        ("conversion", {"extra": {"target": "nobody"}}, "target 'nobody', which is neither an utterance of this manifest nor"),
        ("conversion", {"extra": {"target": 3}}, "has the target 3; give the id of an utterance, or a file"),
        ("speech", {"speaker": "bob"}, "no speaker embedding of 'sound00' or 'bob'"),
        ("speaker", {"speaker": "bob"}, "utterance 'sound00' is of speaker 'bob', who is not among those of the training; leave it out"),
        ("speaker", {"speaker": None}, "utterance 'sound00' names no speaker; leave it out"),
        ("speech", {"audio": None}, "utterance 'sound00' has no audio, which speech needs; leave it out"),
        ("speaker", {"audio_samples": 399}, "has 399 samples, fewer than the 400 of one frame; raise min_seconds or leave it out"),
        ("speech", {"audio_samples": 512}, "has 512 samples, fewer than the 513 of half a window of the spectrogram; raise min_seconds"),
    ],
)
def test_rows_that_cannot_be_used_are_named_before_the_first_step(
    corpus: MadeCorpus, tmp_path: Path, task: str, change: dict[str, Any], message: str
) -> None:
    manifest = changed(corpus, tmp_path, lambda number, row: replace(row, **change) if number == 0 else row)
    with pytest.raises(ValueError, match=message):
        dataset(corpus, task, manifest=manifest, min_seconds=0.0)


def test_a_file_shorter_than_its_manifest_says_is_named(corpus: MadeCorpus, tmp_path: Path) -> None:
    write_wav(tmp_path / "short.wav", np.zeros(500, np.float32))
    row = replace(read_manifest(corpus.sound)[0], id="short", audio="short.wav")
    write_manifest(tmp_path / "manifest.jsonl", Manifest(tmp_path, (row,)))
    rows = dataset(corpus, "synthesis", manifest=tmp_path / "manifest.jsonl")
    with pytest.raises(ValueError, match="utterance 'short' has 500 samples, fewer than the 513 of half a window of the spectrogram"):
        rows.batch([0])


def test_voices_are_missing_or_of_another_size(corpus: MadeCorpus) -> None:
    with pytest.raises(ValueError, match="the model writes in voices of 3 values; name their file under the source's key voices"):
        dataset(corpus, "synthesis", voices=None)
    with pytest.raises(ValueError, match=r"the speaker embedding of 's0' has 3 values, but the model takes 7"):
        dataset(corpus, "synthesis", form=replace(FORM, voice_dim=7))
    with pytest.raises(ValueError, match=r"voices: x\.npz for speaker; only speech, synthesis and conversion have a voice"):
        Source("m", "speaker", voices="x.npz")


def test_bounds_and_bands_that_do_not_fit_are_refused(corpus: MadeCorpus) -> None:
    with pytest.raises(ValueError, match=r"model\.spectrogram\.bands: 6, but the spectrograms of clips have 80; set 80"):
        dataset(corpus, "speech", form=replace(FORM, mel_bands=6))
    with pytest.raises(ValueError, match="max_frames: 0; give at least 1"):
        Source("m", "infilling", max_frames=0)
    with pytest.raises(ValueError, match="crop_frames: 4 for conversion"):
        Source("m", "conversion", crop_frames=4)


def test_texts_may_stand_in_another_column(corpus: MadeCorpus, tmp_path: Path) -> None:
    manifest = changed(corpus, tmp_path, lambda number, row: replace(row, extra={"translation": "fe"}))
    batch = dataset(corpus, "synthesis", manifest=manifest, written="translation").batch([0])
    assert batch.text is not None
    assert batch.text[0].tolist() == LETTERS.encode("fe")
    with pytest.raises(ValueError, match="has no translation; leave it out"):
        dataset(corpus, "synthesis", written="translation")


def test_units_that_cannot_be_used_are_refused_by_their_row(corpus: MadeCorpus, tmp_path: Path) -> None:
    labels = dict(read_labels(corpus.units).items())
    first = read_manifest(corpus.text)[0].id
    write_labels(tmp_path / "short.units", {name: row for name, row in labels.items() if name != first})
    with pytest.raises(ValueError, match=rf"utterance '{first}' has no units in .*short\.units; run avtlm units text2units"):
        dataset(corpus, "units", manifest=corpus.text, units=str(tmp_path / "short.units"))
    write_labels(tmp_path / "empty.units", labels | {first: labels[first][:0]})
    with pytest.raises(ValueError, match=rf"utterance '{first}' stands for no unit at all; leave it out"):
        dataset(corpus, "units", manifest=corpus.text, units=str(tmp_path / "empty.units"))
    source = Source(str(corpus.text), "units", units=str(corpus.units))
    with pytest.raises(ValueError, match="symbols that the vocabulary lacks"):
        open_source(source, 1, FORM, Vocabulary.characters(["ab"]))


def test_only_units_stand_without_a_text() -> None:
    with pytest.raises(ValueError, match="written: null for recognition; only units stand without a text"):
        Source("manifest.jsonl", "recognition", written=None)
    with pytest.raises(ValueError, match="crop_frames: 40 for units"):
        Source("manifest.jsonl", "units", crop_frames=40)
