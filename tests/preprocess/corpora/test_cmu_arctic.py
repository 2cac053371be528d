"""The reader of CMU Arctic, on a generated tree in the layout of the release."""

from pathlib import Path

import pytest

from avtlm.data.manifest import read_manifest
from preprocess.corpora.cmu_arctic import main, read
from tests.preprocess.corpora.made_sound import sound, text

PROMPTS = ("arctic_a0001", "arctic_b0339", "arctic_b0340", "arctic_b0439", "arctic_b0440", "arctic_b0539")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for speaker in ("bdl", "slt"):
        folder = tmp_path / "arctic" / f"cmu_us_{speaker}_arctic"
        prompts = PROMPTS if speaker == "bdl" else PROMPTS[:-1]
        for name in prompts:
            sound(folder / "wav" / f"{name}.wav")
        text(folder / "etc" / "txt.done.data", *(f'( {name} "Author of the danger trail, Philip Steels, etc." )' for name in prompts))
    return tmp_path / "arctic"


def test_splits_go_by_the_prompts(tree: Path) -> None:
    rows = {row.id: row for row in read(tree).rows}
    assert [rows[f"bdl/{name}"].split for name in PROMPTS] == ["train", "train", "valid", "valid", "test", "test"]
    row = rows["slt/arctic_a0001"]
    assert (row.transcript, row.speaker) == ("Author of the danger trail, Philip Steels, etc.", "slt")
    assert row.audio == "cmu_us_slt_arctic/wav/arctic_a0001.wav"
    assert {row.speaker for row in read(tree / "cmu_us_slt_arctic").rows} == {"slt"}


def test_a_target_is_the_same_sentence_of_another_speaker(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--root", str(tree), "--out", str(tmp_path / "out"), "--workers", "0", "--speakers", "bdl", "--target", "slt"]
    assert main(arguments) == 0
    rows = {row.id: row for row in read_manifest(tmp_path / "out")}
    assert rows["bdl/arctic_a0001"].extra["target"] == "slt/arctic_a0001"
    assert "target" not in rows["slt/arctic_a0001"].extra
    assert "target" not in rows["bdl/arctic_b0539"].extra
    assert "1 sentences were not read by slt; they have no target" in capsys.readouterr().err


def test_what_has_no_prompt_is_listed_and_unknown_speakers_are_named(tree: Path) -> None:
    sound(tree / "cmu_us_bdl_arctic" / "wav" / "arctic_a0500.wav")
    with open(tree / "cmu_us_bdl_arctic" / "etc" / "txt.done.data", "a") as handle:
        handle.write("( arctic_a0501 no quotes )\n")
    assert sorted(read(tree).left_out.values()) == ["has no line in txt.done.data", "is '( arctic_a0501 no quotes )', not a prompt"]
    with pytest.raises(ValueError, match="has no folder cmu_us_<speaker>_arctic of rms"):
        read(tree, speakers=["rms"])
