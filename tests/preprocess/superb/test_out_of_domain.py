"""Common Voice and the Santa Barbara Corpus."""

from pathlib import Path

import pytest

from preprocess.superb.out_of_domain import certain_words, normalised, units
from tests.preprocess.corpora.made_sound import sound, text
from tests.preprocess.superb.read_folder import clips, prepare


@pytest.mark.parametrize(
    ("sentence", "language", "expected"),
    [
        ("¿Qué pasó, señor? «Nada».", "es", "QUÉ PASÓ SEÑOR NADA"),
        ("D’accord – sí", "es", "D'ACCORD SÍ"),
        ("消息 very", "es", None),
        ("他来自 北京，对吗？", "zh-CN", "他来自北京对吗"),
        ("我爱KTV", "zh-CN", None),
        ("أَهْلًا، كيف؟", "ar", "أَهْلًا كيف"),
        ("don't", "ar", None),
        ("... !", "es", None),
    ],
)
def test_sentences_are_in_one_script_without_punctuation(sentence: str, language: str, expected: str | None) -> None:
    assert normalised(sentence, language) == expected


def test_of_spanish_only_one_accent_is_used(tmp_path: Path) -> None:
    root = tmp_path / "cv" / "es"
    for part in ("train", "dev", "test"):
        header = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent\tlocale\tsegment"
        lines = [
            f'a\t{part}_{number}.wav\tHola "{number}" amigo.\t2\t0\t\t\t{accent}\tes\t'
            for number, accent in enumerate(("mexicano", "andino"))
        ]
        text(root / f"{part}.tsv", header, *lines)
        sound(root / "clips" / f"{part}_0.wav")
    corpus = prepare("OOD-ASR", tmp_path / "cv", tmp_path / "out", corpus="es", copy=True)
    assert (corpus.name, corpus.about["metric"]) == ("Common Voice 7 es", "wer")
    (clip,) = clips(corpus, "dev").values()
    assert (clip.text("text"), clip.fields["audio"]) == ("HOLA 0 AMIGO", "audio/dev_0.flac")


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("Well, ... I gue=ss (H) that's it.", "WELL I GUESS THAT'S IT"),
        ("[Yeah]", ""),
        ("<X maybe X>", ""),
        ("he said X to me", ""),
        ("(TSK) ", ""),
        ("in 1987", ""),
        ("un-closed (H", ""),
    ],
)
def test_only_certain_words_of_one_speaker_are_kept(unit: str, words: str) -> None:
    assert certain_words(unit) == words


def test_units_of_all_ways_of_writing_are_read_and_overlapping_ones_are_not(tmp_path: Path) -> None:
    path = text(
        tmp_path / "SBC001.trn",
        "0.00 1.50\tANN:\tHello there,",
        "1.50\t2.50\tBOB:\tgood morning.",
        "3.00 4.00 ANN:\tfine thanks.",
        "5.00 6.00\t\tall over",
        "5.50 6.50\tBOB:\tall over too",
        "7.00 30.00\tBOB:\tfar too long",
        "$ a comment",
    )
    path.write_bytes(path.read_bytes() + b"8.00 9.00\t\tcaf\xe9 is odd\n")
    assert units(path) == [
        (0.0, 1.5, "HELLO THERE"),
        (1.5, 2.5, "GOOD MORNING"),
        (3.0, 4.0, "FINE THANKS"),
        (8.0, 9.0, "CAF IS ODD"),
    ]


def test_recordings_are_cut_into_units(tmp_path: Path) -> None:
    root = tmp_path / "sbcsae"
    for number in (1, 47, 54):
        sound(root / "mp3" / f"{number:02d}.mp3", 2.0, 22050)
        text(root / "trn" / f"SBC{number:03d}.trn", "0.20 0.70\tANN:\tyes indeed", "0.90 1.60\tBOB:\tno way")
    corpus = prepare("OOD-ASR", root, tmp_path / "out", corpus="sbcsae")
    found = clips(corpus, "test")
    assert {clip.id: clip.text("text") for clip in found.values()} == {
        "SBC054_000020-000070": "YES INDEED",
        "SBC054_000090-000160": "NO WAY",
    }
    assert [len(clip.wave()) for clip in found.values()] == [8000, 11200]
    assert corpus.name == "SBCSAE"
