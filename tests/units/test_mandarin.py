"""Phonemes of Mandarin lines as units: numbered as officially; lines that cannot be said are refused in one sentence by their ids."""

from pathlib import Path

import pytest

from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.text.mandarin import PHONEMES, MandarinConfig
from avtlm.units.labels import read_labels
from avtlm.units.mandarin import MandarinUnits
from avtlm.units.text_stream import text2units

pytest.importorskip("zhconv", reason="needs the extra 'mandarin'")
pytest.importorskip("pypinyin", reason="needs the extra 'mandarin'")

WHOLE = MandarinConfig(traditional="convert", digits="read", unknown="drop")


def manifest(folder: Path, *texts: str) -> Path:
    rows = [Utterance(f"row{number}", transcript=text, split="train") for number, text in enumerate(texts)]
    write_manifest(folder / "manifest.jsonl", Manifest(folder, tuple(rows)))
    return folder / "manifest.jsonl"


def test_units_are_phonemes_in_the_order_of_the_dictionary_and_depend_on_the_line_alone(tmp_path: Path) -> None:
    generator = MandarinUnits(MandarinConfig())
    assert generator.symbols == list(PHONEMES)
    path = manifest(tmp_path, "老师在家里喝茶", "中国")
    labels = read_labels(text2units(path, tmp_path / "made.units", generator).out)
    assert " ".join(PHONEMES[unit] for unit in labels["row1"]) == "zh o1 ng g uo2"
    [alone] = generator(["中国"], ["row1"])
    assert alone is not None
    assert alone.tolist() == labels["row1"].tolist()
    assert MandarinUnits(MandarinConfig()).identity == generator.identity != MandarinUnits(WHOLE).identity


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("他有3本書", "line 'row1': has the digits 3; write them in characters, as they are said."),
        ("他有三本書", "line 'row1': has the traditional character 書; write simplified ones, or set traditional to convert."),
        ("他喝XO酒", "line 'row1': has the Latin letter 'X', which has no phonemes; write it in characters, or leave the text out."),
        ("他说д", "line 'row1': has the character 'д', whose phonemes are unknown; add it to the lexicon, or leave the text out."),
    ],
)
def test_a_line_of_a_manifest_that_cannot_be_said_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = manifest(tmp_path, "好", text)
    with pytest.raises(ValueError) as caught:
        text2units(path, tmp_path / "made.units", MandarinUnits(MandarinConfig()))
    assert str(caught.value) == message
    labels = read_labels(text2units(path, tmp_path / "made.units", MandarinUnits(WHOLE)).out)
    assert len(labels["row1"]) > 0


def test_a_line_without_phonemes_has_no_labels_and_other_phonemes_are_refused(tmp_path: Path) -> None:
    assert MandarinUnits(WHOLE)(["OK"], ["row0"]) == [None]
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("好\thh aa1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 'row0': the lexicon writes 'hh', which is none of the 120 phonemes of Mandarin"):
        MandarinUnits(MandarinConfig(str(lexicon)))(["好"], ["row0"])
