"""Speech Commands for keyword spotting."""

from collections import Counter
from pathlib import Path

from tests.preprocess.corpora.made_sound import sound, text
from tests.preprocess.superb.read_folder import clips, prepare


def test_twelve_classes_with_seconds_of_noise_as_silence(tmp_path: Path) -> None:
    root, tests = tmp_path / "sc", tmp_path / "sc_test"
    for word in ("yes", "marvin"):
        for speaker in ("a1", "b2"):
            sound(root / word / f"{speaker}_nohash_0.wav")
    sound(root / "_background_noise_" / "pink.wav", 11.5)
    text(root / "validation_list.txt", "yes/b2_nohash_0.wav")
    text(root / "testing_list.txt", "no/gone_nohash_0.wav")
    for label in ("yes", "_unknown_", "_silence_"):
        sound(tests / label / "1.wav")
    corpus = prepare("KS", root, tmp_path / "out", test_set=tests)
    labels = {split: Counter(clip.text("label") for clip in clips(corpus, split).values()) for split in ("train", "dev", "test")}
    assert labels["train"] == {"yes": 1, "_unknown_": 2, "_silence_": 10}
    assert labels["dev"] == {"yes": 1, "_silence_": 1}
    assert labels["test"] == {"yes": 1, "_unknown_": 1, "_silence_": 1}
    silence = clips(corpus, "dev")["_silence_/pink_009"]
    assert (silence.start, silence.end, len(silence.wave())) == (9, 10, 16000)
