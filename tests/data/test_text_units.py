"""Texts with the units of their speech as training examples: durations add up, rows that cannot be used are named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avtlm.data.dataset import Source
from avtlm.data.inputs import InputFormat
from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.spoken_clips import open_source
from avtlm.data.text_units import TextUnitDataset, phone_durations, row_phones
from avtlm.text.vocabulary import EOS, PAD, UNKNOWN, Vocabulary
from avtlm.units.labels import write_labels

ROWS = (
    Utterance("one", audio="1.wav", audio_samples=4800, transcript="a b", phones="sil:0:0.1 a:0.1:0.16 b:0.16:0.16 sil:0.16:0.3"),
    Utterance("two", audio="2.wav", audio_samples=3200, transcript="b", phones="sil:0:0.05 b:0.05:0.2"),
)
LABELS = {"one": np.arange(15, dtype=np.int32), "two": np.array([3, 3, 1, 1, 1, 2, 2, 2, 2, 9], np.int32)}
TIMED = InputFormat(video_size=None, label_rate=50.0, frame_rate=50.0, phone_durations=True)
PHONES = Vocabulary.tokens(["a b sil"])


def source(folder: Path, rows: tuple[Utterance, ...] = ROWS, labels: dict[str, np.ndarray] | None = None) -> Source:
    write_manifest(folder / "manifest.jsonl", Manifest(folder, rows))
    write_labels(folder / "some.units", LABELS if labels is None else labels)
    return Source(str(folder / "manifest.jsonl"), "text_to_units", split=None, units=str(folder / "some.units"))


def test_a_batch_has_phones_with_their_end_units_and_durations(tmp_path: Path) -> None:
    dataset = open_source(source(tmp_path), 0, TIMED, PHONES)
    assert isinstance(dataset, TextUnitDataset)
    batch = dataset.batch([0, 1])
    assert batch.text is not None
    a, b, sil = (PHONES.encode(phone)[0] for phone in ("a", "b", "sil"))
    assert batch.text.tolist() == [[sil, a, sil, EOS], [sil, b, EOS, PAD]]
    assert batch.targets["durations"].tolist() == [[5, 3, 7, 0], [2, 8, 0, 0]]
    assert batch.targets["units"][1].tolist() == [*LABELS["two"].tolist(), *[-1] * 5]
    assert batch.target_lengths["units"].tolist() == [15, 10] == batch.targets["durations"].sum(1).tolist()
    assert (batch.task, batch.audio, [dataset.frames(row) for row in (0, 1)]) == ("text_to_units", None, [15, 10])


def test_without_durations_a_batch_has_none_and_phones_need_no_times(tmp_path: Path) -> None:
    plain = tuple(replace(row, phones="sil a sil") for row in ROWS)
    batch = open_source(source(tmp_path, plain), 0, replace(TIMED, phone_durations=False), PHONES).batch([0])
    assert set(batch.targets) == {"units"}
    assert batch.text is not None
    assert batch.text.shape == (1, 4)


def test_a_vocabulary_of_characters_reads_transcripts(tmp_path: Path) -> None:
    letters = Vocabulary.characters(["ab"])
    batch = open_source(source(tmp_path), 0, replace(TIMED, phone_durations=False), letters).batch([0])
    assert batch.text is not None
    assert batch.text[0].tolist() == [*letters.encode("a b"), EOS]


def test_phones_that_training_had_none_of_are_unknown(tmp_path: Path) -> None:
    batch = open_source(source(tmp_path), 0, TIMED, Vocabulary.tokens(["a sil"])).batch([1])
    assert batch.text is not None
    assert batch.text[0, 1] == UNKNOWN


def test_durations_add_up_wherever_the_phones_end() -> None:
    row = Utterance("u", phones="a:0:0.013 b:0.013:0.027 c:0.027:0.251")
    for frames in (11, 12, 13, 14):
        durations = phone_durations(row, frames, 50.0)
        assert sum(durations) == frames
        assert min(durations) >= 0
    assert phone_durations(row, 12, 50.0) == [1, 0, 11]
    assert row_phones(Utterance("u", phones="a: b")) == ["a:", "b"]


@pytest.mark.parametrize(
    ("row", "labels", "reason"),
    [
        (replace(ROWS[0], phones=None), LABELS, "utterance 'one' has no phones; this model reads them"),
        (replace(ROWS[0], phones="a b"), LABELS, "utterance 'one' has no timed phones"),
        (replace(ROWS[0], phones="a:0:2.0"), LABELS, "utterance 'one' has phones of 2.00 s but 15 units at 50 Hz, which are 0.30 s"),
        (ROWS[0], {"one": np.zeros(0, np.int32)}, "no labels for utterance 'one'|0 labels for utterance 'one'"),
        (ROWS[0], {"other": LABELS["one"]}, "no labels for utterance 'one'"),
        (ROWS[0], {"one": np.zeros(60, np.int32)}, "60 labels for utterance 'one' of 15 frames at 50 Hz"),
    ],
)
def test_rows_that_cannot_be_used_are_named(row: Utterance, labels: dict[str, np.ndarray], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        open_source(source(tmp_path, (row,), labels), 0, TIMED, PHONES)


def test_labels_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="text_to_units needs unit labels"):
        open_source(replace(source(tmp_path), units=None), 0, TIMED, PHONES)
    letters = Vocabulary.characters(["ab"])
    with pytest.raises(ValueError, match="utterance 'one' has no transcript"):
        open_source(source(tmp_path, (replace(ROWS[0], transcript=None),)), 0, replace(TIMED, phone_durations=False), letters)
