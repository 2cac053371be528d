"""The corpus that is read aloud: nothing leaks between its splits, targets say the same, and the same seed gives the same files."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="synthetic speech needs the extra 'synthetic'")

from avtlm.data.manifest import Manifest, read_manifest, validate
from avtlm.data.media import read_audio
from preprocess.corpora.read_aloud import READER, SIZES, generate, main, plan

PARTS = ("reader", "others", "named", "unpaired", "text")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("read"), "smoke", seed=1, workers=0)


def parts(folder: Path) -> dict[str, Manifest]:
    return {name: read_manifest(folder / name) for name in PARTS}


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_part_is_valid_and_has_its_counts(smoke: Path) -> None:
    found = parts(smoke)
    for manifest in found.values():
        assert not validate(manifest, read_files=True)
    assert {name: len(manifest) for name, manifest in found.items()} == {
        "reader": 36,
        "others": 16,
        "named": 16,
        "unpaired": 24,
        "text": 40,
    }
    assert all(row.transcript is None for row in found["unpaired"])
    assert all(row.audio is None for row in found["text"])


@pytest.mark.parametrize("size", list(SIZES))
def test_sentences_are_shared_by_the_reader_and_the_others_of_a_split_alone(size: str) -> None:
    readings, texts = plan(Path("corpus"), SIZES[size], 1)
    places: dict[str, set[str]] = {}
    for reading in readings:
        part = "pair" if reading.part in ("reader", "others") else reading.part
        places.setdefault(reading.text, set()).add(f"{part} {reading.split}")
    for row in texts:
        assert row.transcript is not None
        places.setdefault(row.transcript, set()).add("text")
    assert all(len(where) == 1 for where in places.values())
    assert len({(reading.part, reading.id) for reading in readings}) == len(readings)


@pytest.mark.parametrize("size", list(SIZES))
def test_some_voices_are_heard_in_no_other_split_and_none_is_the_readers(size: str) -> None:
    readings, _ = plan(Path("corpus"), SIZES[size], 1)
    others = [reading for reading in readings if reading.part == "others"]
    variants = {split: {r.voice.name.partition("+")[2] for r in others if r.split == split} for split in ("train", "valid", "test")}
    assert not variants["train"] & (variants["valid"] | variants["test"])
    assert not variants["valid"] & variants["test"]
    assert READER.name.partition("+")[2] not in set().union(*variants.values())
    named = {split: {r.speaker for r in readings if r.part == "named" and r.split == split} for split in ("train", "valid", "test")}
    assert named["train"] == named["valid"] == named["test"]
    assert len(named["train"]) == SIZES[size].voices[0]


def test_a_target_says_the_same_sentence_in_the_readers_voice(smoke: Path) -> None:
    found = parts(smoke)
    said = {found["reader"].path(row.audio).resolve(): row for row in found["reader"]}
    for row in found["others"]:
        target = said[found["others"].path(row.extra["target"]).resolve()]
        assert (target.transcript, target.split, target.speaker) == (row.transcript, row.split, "reader")
        assert target.extra["translation"] == row.extra["translation"]


def test_sound_lasts_as_long_as_the_manifest_says(smoke: Path) -> None:
    manifest = read_manifest(smoke / "reader")
    row = manifest[0]
    path = manifest.path(row.audio)
    assert path is not None
    wave = read_audio(path)
    assert len(wave) == row.audio_samples
    assert 1.5 < row.duration < 8.0
    assert float(np.sqrt(np.mean(wave**2))) > 0.02


def test_the_same_seed_gives_the_same_files_on_any_number_of_workers(smoke: Path, tmp_path: Path) -> None:
    again = generate(tmp_path / "again", "smoke", seed=1, workers=2)
    assert digests(again) == digests(smoke)


def test_a_folder_keeps_its_recipe(smoke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(smoke), "--size", "smoke", "--seed", "2", "--workers", "0"]) == 1
    assert "was made with seed 1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="choose one of smoke, default, long"):
        generate(smoke, "huge")
