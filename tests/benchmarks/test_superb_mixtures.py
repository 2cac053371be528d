"""The miniature's mixtures: sources add up, segments are where somebody speaks, noise of the test is another."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("espeakng_loader", reason="synthetic speech needs the extra 'synthetic'")

from avtlm.data.noise import measured_snr
from avtlm.evaluation.superb.data import Corpus
from benchmarks.superb_mixtures import SNRS, Mixtures, add_digits
from benchmarks.superb_speech import SIZES, Speech
from tests.preprocess.corpora.made_sound import sound


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> Mixtures:
    folder = tmp_path_factory.mktemp("miniature")
    for number in range(10):
        sound(folder / "noise" / f"{number}.wav", 0.4 + 0.1 * number)
    speech = Speech(folder / "data", SIZES["smoke"], seed=1)
    speech.say(workers=0)
    made = Mixtures(speech, folder / "noise")
    made.write()
    return made


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_two_sources_make_their_mixture(mixtures: Mixtures, split: str) -> None:
    for clip in Corpus.read(mixtures.folder / "SS").split(split):
        first, second = (clip.wave(name) for name in clip.names("sources"))
        np.testing.assert_allclose(first + second, clip.wave(), atol=1e-4)
        assert abs(20 * np.log10(np.std(first) / np.std(second))) < 6


def test_noise_is_mixed_at_the_ratios_of_its_split(mixtures: Mixtures) -> None:
    for split, own in (("train", "train"), ("test", "test")):
        for clip in Corpus.read(mixtures.folder / "SE").split(own):
            low, high = SNRS[split]
            assert low - 0.5 < measured_snr(clip.wave(clip.text("clean")), clip.wave()) < high + 0.5


def test_recordings_of_noise_are_divided_and_too_few_refused(mixtures: Mixtures, tmp_path: Path) -> None:
    assert mixtures.recordings is not None
    train, test = mixtures.recordings["train"], mixtures.recordings["test"]
    assert (len(train), len(test)) == (8, 2)
    assert not set(train) & set(test)
    with pytest.raises(ValueError, match="holds 0 recordings of noise; give a folder with at least five"):
        Mixtures(mixtures.speech, tmp_path)


def test_somebody_speaks_in_segments_and_nobody_outside(mixtures: Mixtures) -> None:
    for clip in Corpus.read(mixtures.folder / "SD").split("train"):
        wave, spoken = clip.wave(), np.zeros(len(clip.wave()), bool)
        assert len({speaker for speaker, _, _ in clip.fields["segments"]}) == 2
        for _, start, end in clip.fields["segments"]:
            spoken[round(16000 * start) : round(16000 * end)] = True
        assert np.std(wave[spoken]) > 0.03
        assert not wave[~spoken].any() or np.abs(wave[~spoken]).max() < 0.02


def test_digits_have_a_speaker_that_is_only_tested(tmp_path: Path) -> None:
    for speaker in ("ann", "bob", "cem", "dora"):
        for digit in (0, 1, 2):
            for take in (0, 9):
                sound(tmp_path / "fsdd" / f"{digit}_{speaker}_{take}.wav", 0.3, 8000)
    add_digits(tmp_path, tmp_path / "fsdd", seed=1)
    words = Corpus.read(tmp_path / "KS-digits")
    assert {split: {clip.fields["speaker"] for clip in words.split(split)} for split in ("train", "dev", "test")} == {
        "train": {"ann", "bob"},
        "dev": {"cem"},
        "test": {"dora"},
    }
    assert {clip.text("label") for clip in words.split("test")} == {"zero", "one", "two"}
    assert {clip.text("label") for clip in Corpus.read(tmp_path / "SID-digits").split("train")} == {"ann", "bob", "cem", "dora"}
    for path in (tmp_path / "fsdd").glob("*_[bcd]*.wav"):
        path.unlink()
    with pytest.raises(ValueError, match="holds digits of 1 speakers"):
        add_digits(tmp_path, tmp_path / "fsdd", seed=1)
