"""The reader of MuST-C, on a generated tree in the layout of the release."""

from pathlib import Path

import numpy as np
import pytest

from avtlm.data.manifest import read_manifest
from avtlm.data.media import read_audio
from preprocess.corpora.must_c import main, read
from tests.preprocess.corpora.made_sound import sound, text

ITEMS = (
    ("ted_2", 0.5, 0.25, "spk.2", "Second of two.", "Zweiter von zweien."),
    ("ted_1", 0.1, 0.2, "spk.1", "Hello.", "Hallo."),
    ("ted_2", 0.125, 0.25, "spk.2", "First, by its start.", "Erster dem Anfang nach."),
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for part in ("train", "dev", "tst-COMMON", "tst-HE"):
        folder = tmp_path / "MUSTC" / "en-de" / "data" / part
        for talk in ("ted_1", "ted_2"):
            sound(folder / "wav" / f"{part}_{talk}.wav", 1.0)
        items = [
            f"- {{duration: {item[2]}, offset: {item[1]}, rW: 4, uW: 0, speaker_id: {item[3]}, wav: {part}_{item[0]}.wav}}"
            for item in ITEMS
        ]
        text(folder / "txt" / f"{part}.yaml", *items)
        text(folder / "txt" / f"{part}.en", *(item[4] for item in ITEMS))
        text(folder / "txt" / f"{part}.de", *(item[5] for item in ITEMS))
    return tmp_path / "MUSTC"


def test_utterances_are_cut_out_of_their_talks_in_the_order_of_their_starts(tree: Path, tmp_path: Path) -> None:
    reading = read(tree, out=tmp_path / "out")
    rows = {row.id: row for row in reading.rows}
    assert len(rows) == 9  # not tst-HE
    first, second = rows["train_ted_2_0"], rows["train_ted_2_1"]
    assert (first.transcript, first.extra["translation"], first.speaker) == ("First, by its start.", "Erster dem Anfang nach.", "spk.2")
    assert second.transcript == "Second of two."
    assert (first.audio, first.audio_samples, first.extra["span"]) == ("audio/train_ted_2_0.flac", 4000, [0.125, 0.375])
    talk = read_audio(tree / "en-de" / "data" / "train" / "wav" / "train_ted_2.wav")
    assert np.abs(read_audio(tmp_path / "out" / (first.audio or "")) - talk[2000:6000]).max() < 1e-4
    assert {row.split for row in rows.values()} == {"train", "valid", "test"}
    assert "dev has 3 clips, the published corpus 1,423" in reading.remarks


def test_tst_he_has_a_manifest_of_its_own_when_it_is_asked_for(tree: Path, tmp_path: Path) -> None:
    parts = ["--parts", "tst-COMMON", "tst-HE"]
    assert main(["--root", str(tree / "en-de"), "--out", str(tmp_path / "out"), "--workers", "0", *parts]) == 0
    assert len(read_manifest(tmp_path / "out" / "tst-HE.jsonl").split("test")) == 3


def test_damaged_items_and_missing_talks_are_listed(tree: Path, tmp_path: Path) -> None:
    folder = tree / "en-de" / "data" / "train"
    text(
        folder / "txt" / "train.yaml",
        "- {duration: 9.0, offset: 0.5, wav: train_ted_2.wav}",
        "- {duration: x}",
        "- {duration: 0.1, offset: 0, wav: gone.wav}",
    )
    with pytest.raises(ValueError, match="holds no usable sound"):
        read(tree, out=tmp_path / "out", parts=["train"])
    text(
        folder / "txt" / "train.yaml",
        "- {duration: 0.1, offset: 0.5, wav: train_ted_2.wav}",
        "- {duration: x}",
        "- {duration: 0.1, offset: 0, wav: gone.wav}",
    )
    reading = read(tree, out=tmp_path / "out", parts=["train"])
    assert [row.id for row in reading.rows] == ["train_ted_2_0"]
    reasons = list(reading.left_out.values())
    assert reasons == ["is '- {duration: x}', not an utterance", "is listed, and not there"]


def test_texts_that_do_not_fit_the_list_are_refused(tree: Path, tmp_path: Path) -> None:
    text(tree / "en-de" / "data" / "dev" / "txt" / "dev.de", "nur einer")
    with pytest.raises(ValueError, match=r"dev\.yaml has 3 items, the texts 3 and 1 lines"):
        read(tree, out=tmp_path / "out")
    with pytest.raises(ValueError, match="has no folder en-fr"):
        read(tree, out=tmp_path / "out", target="fr")
