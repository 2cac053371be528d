"""VoiceBank-DEMAND."""

from pathlib import Path

import pytest

from tests.preprocess.corpora.made_sound import sound
from tests.preprocess.superb.read_folder import clips, prepare


@pytest.mark.parametrize(("ending", "rate"), [("_16k", 16000), ("", 48000)])
def test_two_speakers_are_dev_and_each_clip_has_its_clean_one(tmp_path: Path, ending: str, rate: int) -> None:
    for kind in ("noisy", "clean"):
        for name in ("p226_001", "p228_001", "p287_004"):
            sound(tmp_path / "vb" / f"{kind}_trainset_28spk_wav{ending}" / f"{name}.wav", rate=rate)
        sound(tmp_path / "vb" / f"{kind}_testset_wav{ending}" / "p232_001.wav", rate=rate)
    corpus = prepare("SE", tmp_path / "vb", tmp_path / "out")
    assert [list(clips(corpus, split)) for split in ("train", "dev", "test")] == [["p228_001"], ["p226_001", "p287_004"], ["p232_001"]]
    clip = clips(corpus, "test")["p232_001"]
    assert len(clip.wave(clip.text("clean"))) == len(clip.wave()) == 800
