"""Noise from a tree in the layout of MUSAN and from a manifest: the published rules, any number of workers, runs that were stopped."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import write_wav
from avtlm.data.noise_files import read_noise_files
from preprocess import noise_pieces
from preprocess.noise import Recipe, main, make_noise

SOURCES = {"music": ("fma", "rfm"), "noise": ("free-sound", "sound-bible"), "speech": ("librivox", "us-gov")}
# A tenth of the published lengths and few babbles; all rules stay.
SMALL = Recipe(babbles=(4, 2, 2), voices=3, piece_seconds=1.0, least_seconds=0.3, babble_seconds=1.5, speech_seconds=2.0, combined=50)
RATE = 16000


@pytest.fixture(scope="module")
def musan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten files of every source: of 3.5 s or, the last two, of 1 s and 1.2 s. Every file is one level throughout."""
    root = tmp_path_factory.mktemp("data") / "musan"
    value = 100
    for kind, folders in SOURCES.items():
        (root / kind).mkdir(parents=True)
        (root / kind / "ANNOTATIONS").write_text("words")
        for folder in folders:
            for number in range(10):
                seconds = {8: 1.0, 9: 1.2}.get(number, 3.5)
                value += 10
                path = root / kind / folder / f"{kind}-{folder}-{number:04d}.wav"
                write_wav(path, np.full(round(seconds * RATE), value, np.int16))
            (root / kind / folder / "LICENSE").write_text("words")
    return root


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 training utterances of 1.6 s to 2.55 s, one of another split."""
    root = tmp_path_factory.mktemp("speech")
    rows = []
    for number in range(21):
        samples = round((1.6 + 0.05 * number) * RATE)
        write_wav(root / "audio" / "t" / f"{number:02d}.wav", np.full(samples, 50 + number, np.int16))
        name, split = f"t/{number:02d}", "valid" if number == 20 else "train"
        rows.append(Utterance(name, audio=f"audio/{name}.wav", audio_samples=samples, split=split))
    write_manifest(root / "manifest.jsonl", Manifest(root, tuple(rows)))
    return root / "manifest.jsonl"


def names(out: Path, kind: str, split: str) -> list[str]:
    return (out / kind / f"{split}.tsv").read_text().splitlines()


def wave(path: str | Path) -> np.ndarray:
    sound, rate = soundfile.read(str(path), dtype="int16")
    assert rate == RATE
    return sound


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(str(folder).encode(), b"")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_music_and_noise_become_pieces_split_in_eighty_ten_ten(musan: Path, tmp_path: Path) -> None:
    report = make_noise(tmp_path, musan, None, SMALL, workers=0)
    for kind in ("music", "noise"):
        lists = {split: names(tmp_path, kind, split) for split in ("train", "valid", "test")}
        # 16 files of 3.5 s give four pieces each; of 1.2 s the rest is too short, and 1 s is not longer than a piece.
        assert {split: len(paths) for split, paths in lists.items()} == {"train": 52, "valid": 6, "test": 8}
        every = [path for paths in lists.values() for path in paths]
        assert len(set(every)) == 66
        assert sorted({len(wave(path)) for path in every}) == [8000, 16000]
        assert all(Path(path).is_absolute() for path in every)
    assert any("MUSAN music: 20 files, the released corpus has 660" in remark for remark in report["remarks"])
    assert any("2 files of 1 s or less are not used" in remark for remark in report["remarks"])
    assert len(names(tmp_path, "all", "train")) == 150
    assert len(names(tmp_path, "all", "test")) == 8 + 8 + 2


def test_babble_is_the_mean_of_pieces_of_speakers_of_its_split_alone(musan: Path, tmp_path: Path) -> None:
    make_noise(tmp_path, musan, None, SMALL, workers=0)
    levels = {int(wave(path)[0]) for path in (musan / "speech").rglob("*.wav")}
    assert [len(names(tmp_path, "babble", split)) for split in ("train", "valid", "test")] == [4, 2, 2]
    few = Recipe(**{**vars(SMALL), "voices": 1, "babbles": (40, 10, 10)})
    make_noise(tmp_path / "single", musan, None, few, workers=0)
    found = [{int(wave(path)[0]) for path in names(tmp_path / "single", "babble", split)} for split in ("train", "valid", "test")]
    assert set.union(*found) <= levels
    assert all(found)
    assert sum(map(len, found)) == len(set.union(*found))
    for path in names(tmp_path, "babble", "train"):
        sound = wave(path)
        assert len(sound) in (8000, 16000)
        assert sound.std() == 0


def test_speech_and_the_babble_of_valid_and_test_come_from_the_manifest(musan: Path, speech: Path, tmp_path: Path) -> None:
    make_noise(tmp_path, musan, speech, SMALL, workers=0)
    (one,) = names(tmp_path, "babble", "test")
    assert names(tmp_path, "babble", "valid") == [one]
    assert len(wave(one)) > 1.5 * RATE
    assert len(names(tmp_path, "babble", "train")) == 4
    lists = [names(tmp_path, "speech", split) for split in ("train", "valid", "test")]
    assert [len(paths) for paths in lists] == [6, 2, 2]  # of the 11 longer than 2 s
    assert {len(wave(path)) for paths in lists for path in paths} == {2 * RATE}
    assert {Path(path).parent.name for paths in lists for path in paths} == {"t"}
    assert sum("speech/wav" in path for path in names(tmp_path, "all", "train")) == 50
    assert one not in names(tmp_path, "all", "test")
    assert set(read_noise_files(tmp_path, ["babble", "music", "noise", "speech", "all"], "test").files) >= {"babble", "all"}


def test_a_manifest_alone_is_enough_to_evaluate_in_babble_and_speech(speech: Path, tmp_path: Path) -> None:
    report = make_noise(tmp_path, None, speech, SMALL, workers=0)
    assert report["lists"]["babble"] == {"valid": 1, "test": 1}
    assert report["lists"]["speech"] == {"train": 6, "valid": 2, "test": 2}
    assert report["lists"]["all"] == {"train": 50, "valid": 3, "test": 3}


def test_pieces_of_one_file_may_be_kept_on_one_side(musan: Path, tmp_path: Path) -> None:
    make_noise(tmp_path / "file", musan, None, Recipe(**{**vars(SMALL), "split_by": "file"}), workers=0)
    make_noise(tmp_path / "piece", musan, None, SMALL, workers=0)

    def crossing(folder: Path) -> int:
        sides = [{path.rpartition("-")[0] for path in names(folder, "music", split)} for split in ("train", "valid", "test")]
        return sum(len(side & other) for side, other in zip(sides, sides[1:] + sides[:1], strict=True))

    assert crossing(tmp_path / "file") == 0
    assert crossing(tmp_path / "piece") > 0


def test_any_number_of_workers_and_a_stopped_run_give_the_same_bytes(musan: Path, speech: Path, tmp_path: Path) -> None:
    make_noise(tmp_path / "one", musan, speech, SMALL, workers=0)
    make_noise(tmp_path / "two", musan, speech, SMALL, workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    for path in [*sorted((tmp_path / "two" / "music").rglob("*.wav"))[::2], *(tmp_path / "two").glob("*/train.tsv")]:
        path.unlink()
    make_noise(tmp_path / "two", musan, speech, SMALL, workers=0)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    make_noise(tmp_path / "other", musan, speech, Recipe(**{**vars(SMALL), "seed": 1}), workers=0)
    assert names(tmp_path / "other", "music", "test")[0][-30:] != names(tmp_path / "one", "music", "test")[0][-30:]


def test_finished_files_are_not_made_again(musan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_noise(tmp_path, musan, None, SMALL, workers=0)
    made: list[Path] = []
    real = noise_pieces._write
    monkeypatch.setattr(noise_pieces, "_write", lambda state, mixture: made.append(mixture.target) or real(state, mixture))
    (tmp_path / "babble" / "wav" / "valid-00002.wav").unlink()
    make_noise(tmp_path, musan, None, SMALL, workers=0)
    assert [path.name for path in made] == ["valid-00002.wav"]
    with pytest.raises(ValueError, match="holds noise that was made with seed 0"):
        make_noise(tmp_path, musan, None, Recipe(**{**vars(SMALL), "seed": 5}), workers=0)


def test_files_that_cannot_be_used_are_listed_with_the_reason(musan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "musan"
    for path in musan.rglob("*.wav"):
        target = root / path.relative_to(musan)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    (root / "music" / "fma" / "words.wav").write_text("words")
    write_wav(root / "noise" / "free-sound" / "slow.wav", np.zeros(30000, np.int16), sample_rate=8000)
    arguments = ["--babbles", "2", "1", "1", "--voices", "3", "--piece-seconds", "1", "--least-seconds", "0.3", "--workers", "0"]
    assert main(["--musan", str(tmp_path), "--out", str(tmp_path / "out"), *arguments]) == 0  # a folder too high is found
    captured = capsys.readouterr()
    assert "words.wav: cannot be read" in captured.err
    assert "slow.wav: has 1 channels at 8000 Hz" in captured.err
    assert "2 files left out" in captured.err
    assert "babble   2 train, 1 valid, 1 test" in captured.out
    assert len(json.loads((tmp_path / "out" / "noise.json").read_text())["unusable"]) == 2


def test_what_cannot_be_made_is_one_sentence(musan: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    for arguments, reason in (
        ([], "give the folder of MUSAN, a manifest with speech, or both"),
        (["--musan", str(tmp_path)], "give the folder with MUSAN's music, noise and speech"),
        (["--speech", str(speech)], "0 training utterances longer than 15 s, fewer than the 30 voices of one babble"),
        (["--speech", str(speech), "--babble-seconds", "1", "--voices", "2"], "no training utterance is longer than 20 s"),
        (
            ["--musan", str(musan), "--piece-seconds", "1", "--least-seconds", "0.3", "--voices", "90"],
            "pieces of speech, fewer than the 90",
        ),
        (["--musan", str(musan), "--voices", "0"], "give whole numbers from 1"),
    ):
        assert main(["--out", out, "--workers", "0", *arguments]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert reason in lines[0]
