"""Lists of recorded noise: which files they name, what is read of them, and that a choice depends on a seed alone."""

from pathlib import Path

import numpy as np
import pytest

from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import MediaError, write_wav
from avtlm.data.noise_files import NoiseFiles, read_noise, read_noise_files


def level(value: int, samples: int = 1600) -> np.ndarray:
    return np.full(samples, value, np.int16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Music of the levels 100 and 101, noise of 200 to 203, speech of 300 (a manifest)."""
    root = tmp_path_factory.mktemp("noise")
    for kind, first, count in (("music", 100, 2), ("noise", 200, 4)):
        for number in range(count):
            write_wav(root / kind / "wav" / f"{number}.wav", level(first + number))
        names = [str(root / kind / "wav" / "0.wav"), *(f"wav/{number}.wav" for number in range(1, count))]
        (root / kind / "train.tsv").write_text("\n".join(names) + "\n")
    write_wav(root / "speech" / "a.wav", level(300))
    rows = (Utterance("a", audio="a.wav", audio_samples=1600, split="train"), Utterance("b", transcript="text alone", split="train"))
    write_manifest(root / "speech" / "manifest.jsonl", Manifest(root / "speech", rows))
    return root


def test_lists_and_manifests_name_files(folder: Path) -> None:
    files = read_noise_files(folder, ["music", "noise", "speech"]).files
    assert {kind: len(paths) for kind, paths in files.items()} == {"music": 2, "noise": 4, "speech": 1}
    assert files["speech"] == (folder / "speech" / "a.wav",)


def test_kinds_are_equally_likely_and_files_within_them(folder: Path) -> None:
    files = read_noise_files(folder, ["music", "noise"])
    drawn = [int(files.draw(np.random.default_rng(seed), 10)[0]) for seed in range(600)]
    shares = {value: drawn.count(value) / 600 for value in (100, 101, 200, 201, 202, 203)}
    assert sum(shares.values()) == 1
    assert all(abs(share - (0.25 if value < 200 else 0.125)) < 0.06 for value, share in shares.items())


def test_several_files_are_averaged_and_rounded_down(folder: Path) -> None:
    files = NoiseFiles({"music": read_noise_files(folder, ["music"]).files["music"]})
    drawn = {float(files.draw(np.random.default_rng(seed), 10, count=2)[0]) for seed in range(40)}
    assert drawn == {100.0, 101.0}  # of 100 and 101 the mean is 100.5, in whole steps 100


def test_only_as_much_as_needed_is_read_and_other_rates_are_brought_to_16_khz(folder: Path, tmp_path: Path) -> None:
    sound = read_noise(folder / "music" / "wav" / "0.wav", 7)
    assert sound.dtype == np.float32
    assert sound.tolist() == [100.0] * 7
    assert len(read_noise(folder / "music" / "wav" / "0.wav", 99999)) == 1600
    write_wav(tmp_path / "slow.wav", level(1000, 8000), sample_rate=8000)
    slow = read_noise(tmp_path / "slow.wav", 99999)
    assert len(slow) == 16000
    assert np.median(slow) == pytest.approx(1000, rel=0.01)


def test_the_noise_of_an_evaluation_depends_on_seed_kind_and_clip_alone(folder: Path) -> None:
    files = read_noise_files(folder, ["music", "noise"])
    first = [files.behind("noise", f"clip{index}", 5, seed=0)[0] for index in range(30)]
    assert first == [files.behind("noise", f"clip{index}", 5, seed=0)[0] for index in range(30)]
    assert first != [files.behind("noise", f"clip{index}", 5, seed=1)[0] for index in range(30)]
    assert set(first) == {200, 201, 202, 203}


def test_lists_that_cannot_be_used_are_refused_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"babble/train.tsv does not exist \(it has lists of music, noise\)"):
        read_noise_files(folder, ["babble"])
    with pytest.raises(ValueError, match="it has no lists of noise"):
        read_noise_files(tmp_path, ["music"])
    with pytest.raises(ValueError, match="lists no sound files for the split test"):
        read_noise_files(folder, ["speech"], "test")
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "train.tsv").write_text("gone.wav\n")
    with pytest.raises(ValueError, match=r"lists .*gone.wav, which does not exist"):
        read_noise_files(tmp_path, ["music"])
    (tmp_path / "broken.wav").write_text("words")
    with pytest.raises(MediaError, match=r"broken.wav"):
        read_noise(tmp_path / "broken.wav", 5)
    write_wav(tmp_path / "empty.wav", level(0, 0))
    with pytest.raises(MediaError, match="empty sound file"):
        read_noise(tmp_path / "empty.wav", 5)
