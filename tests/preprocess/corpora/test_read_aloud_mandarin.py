"""The Mandarin corpus that is read aloud: nothing leaks between its parts, its texts have their phonemes, and seeds repeat it."""

import hashlib
from pathlib import Path

import pytest

pytest.importorskip("espeakng_loader", reason="synthetic speech needs the extra 'synthetic'")

from avtlm.data.manifest import Manifest, read_manifest, validate
from avtlm.text.mandarin import PHONEMES, phonemes_of
from avtlm.units.labels import read_labels
from preprocess.corpora import __main__ as corpora
from preprocess.corpora.read_aloud_mandarin import LEAST_RANGE, SIZES, WITH_TEXTS, generate, main, plan

PARTS = ("labelled", "others", "unlabelled", "text")


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
    assert {name: len(manifest) for name, manifest in found.items()} == {"labelled": 26, "others": 6, "unlabelled": 16, "text": 3000}
    assert all(row.transcript is None and not row.extra for row in found["unlabelled"])
    assert all(row.audio is None for row in found["text"])
    assert {split: len(found["labelled"].split(split)) for split in ("train", "valid", "test")} == {"train": 16, "valid": 4, "test": 6}


@pytest.mark.parametrize("size", list(SIZES))
def test_no_sentence_stands_in_two_parts_or_splits_but_those_of_the_test(size: str) -> None:
    readings, texts = plan(Path("corpus"), SIZES[size], 1)
    places: dict[str, set[str]] = {}
    for reading in readings:
        part = "labelled" if reading.part == "others" else reading.part
        places.setdefault(reading.text, set()).add(f"{part} {reading.split}")
    for row in texts:
        places.setdefault(row.transcript or "", set()).add("text")
    assert all(len(where) == 1 for where in places.values())
    assert len({reading.id for reading in readings}) == len(readings)
    tested = [[r.text for r in readings if r.part == part and r.split == "test"] for part in ("labelled", "others")]
    assert tested[0] == tested[1] != []


@pytest.mark.parametrize("size", list(SIZES))
def test_other_voices_are_heard_nowhere_else_and_all_have_tones(size: str) -> None:
    readings, _ = plan(Path("corpus"), SIZES[size], 1)
    variants = {part: {r.voice.name for r in readings if r.part == part} for part in ("labelled", "others", "unlabelled")}
    assert (len(variants["labelled"]), len(variants["others"])) == SIZES[size].voices
    assert variants["unlabelled"] == variants["labelled"]
    assert not variants["others"] & variants["labelled"]
    assert all(r.voice.name.startswith("cmn+") and r.voice.pitch_range >= LEAST_RANGE for r in readings)


def test_texts_have_their_pinyin_and_labels_are_their_phonemes(smoke: Path) -> None:
    for part in WITH_TEXTS:
        labels = read_labels(smoke / part / "phonemes.units")
        for row in read_manifest(smoke / part):
            syllables = row.extra["pinyin"].split()
            assert len(syllables) == len(row.transcript or "")
            phonemes = [phoneme for syllable in syllables for phoneme in phonemes_of(syllable)]
            assert row.extra["phonemes"].split() == phonemes
            assert [PHONEMES[number] for number in labels[row.id]] == phonemes
    others, tested = read_manifest(smoke / "others"), read_manifest(smoke / "labelled").split("test")
    assert [row.transcript for row in others] == [row.transcript for row in tested]


def test_a_character_takes_about_a_quarter_of_a_second(smoke: Path) -> None:
    for row in read_manifest(smoke / "labelled"):
        assert 0.1 < (row.duration - 0.25) / len(row.transcript or "") < 0.6, row.id


def test_the_same_seed_gives_the_same_files_on_any_number_of_workers(smoke: Path, tmp_path: Path) -> None:
    assert corpora.main(["read_aloud_mandarin", "--out", str(tmp_path / "again"), "--size", "smoke", "--workers", "2"]) == 0
    assert digests(tmp_path / "again") == digests(smoke)


def test_a_folder_keeps_its_recipe(smoke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(smoke), "--size", "smoke", "--seed", "2", "--workers", "0"]) == 1
    assert "was made with seed 1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="choose one of smoke, default, long"):
        generate(smoke, "huge")
