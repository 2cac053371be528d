"""Libri2Mix for diarization and separation."""

from pathlib import Path

import pytest

from tests.preprocess.corpora.made_sound import sound, text
from tests.preprocess.superb.read_folder import clips, prepare

PARTS = ("train", "dev", "test")


def kaldi(root: Path, rttm: bool) -> Path:
    for part in PARTS:
        audio = sound(root / "wav" / f"{part}.wav", 0.5)
        text(root / part / "wav.scp", f"mix_{part} {audio}")
        if rttm:
            turns = ((0.1, 0.25, "3536"), (0.1, 0.25, "1673"))
            text(root / part / "rttm", *(f"SPEAKER\tmix_{part}\t1\t{start}\t{long}\t<NA>\t<NA>\t{who}\t<NA>" for start, long, who in turns))
        else:
            text(root / part / "segments", f"a mix_{part} 0.1 0.35", f"b mix_{part} 0.2 0.5")
            text(root / part / "utt2spk", "a 3536", "b 1673")
    return root


def test_who_speaks_when_comes_from_the_rttm(tmp_path: Path) -> None:
    corpus = prepare("SD", kaldi(tmp_path / "data", rttm=True), tmp_path / "out")
    for split in PARTS:
        (clip,) = clips(corpus, split).values()
        assert clip.fields["segments"] == [["3536", 0.1, pytest.approx(0.35)], ["1673", 0.1, pytest.approx(0.35)]]


def test_without_rttm_it_comes_from_segments(tmp_path: Path) -> None:
    corpus = prepare("SD", kaldi(tmp_path / "data", rttm=False), tmp_path / "out")
    assert clips(corpus, "dev")["mix_dev"].fields["segments"] == [["3536", 0.1, 0.35], ["1673", 0.2, 0.5]]


def test_a_line_without_times_is_named(tmp_path: Path) -> None:
    root = kaldi(tmp_path / "data", rttm=True)
    text(root / "dev" / "rttm", "SPEAKER mix_dev 1 soon 0.2 <NA> <NA> 3536 <NA>")
    with pytest.raises(ValueError, match=r"rttm, line 1: .* has no times"):
        prepare("SD", root, tmp_path / "out")


def test_separation_pairs_mixtures_with_their_sources(tmp_path: Path) -> None:
    root = tmp_path / "Libri2Mix" / "wav16k" / "min"
    for part in ("train-100", "dev", "test"):
        for kind in ("mix_clean", "s1", "s2"):
            sound(root / part / kind / f"{part}_b.wav")
    sound(root / "dev" / "mix_clean" / "c_d.wav")
    corpus = prepare("SS", tmp_path, tmp_path / "out")
    (clip,) = clips(corpus, "dev").values()
    assert [Path(name).parts[-2:] for name in clip.names("sources")] == [("s1", "dev_b.wav"), ("s2", "dev_b.wav")]
    assert all(len(clip.wave(name)) == len(clip.wave()) for name in clip.names("sources"))
    assert "c_d.wav\tis not there, and its mixture is" in (tmp_path / "out" / "left_out.tsv").read_text()
