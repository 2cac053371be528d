"""QUESST 2014."""

from pathlib import Path

import pytest

from tests.preprocess.corpora.made_sound import sound, text
from tests.preprocess.superb.read_folder import clips, prepare


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "quesst14Database"
    for number, language in ((1, "nnenglish"), (2, "nnenglish"), (3, "albanian")):
        sound(root / "Audio" / f"quesst14_0000{number}.wav", rate=8000)
        with open(root / "list", "a") as handle:
            handle.write(f"quesst14Database/Audio/quesst14_0000{number}.wav {language}\n")
    (root / "scoring").mkdir()
    (root / "list").rename(root / "scoring" / "language_key_utterances.lst")
    for name in ("dev", "eval"):
        sound(root / f"{name}_queries" / f"quesst14_{name}_0001.wav", rate=8000)
        text(root / "scoring" / f"language_key_{name}.lst", f"quesst14Database/{name}_queries/quesst14_{name}_0001.wav nnenglish")
        held = [
            f"LEXEME quesst14_0000{number} 1 0.000 1.000 quesst14_{name}_0001 lex speaker 0.5" for number in (1, 3, 1)
        ]  # a recording may hold a query twice
        text(root / "scoring" / f"groundtruth_quesst14_{name}" / f"quesst14_{name}.rttm", *held)
    return root


def test_queries_documents_and_what_is_in_what_are_of_one_language(tree: Path, tmp_path: Path) -> None:
    corpus = prepare("QbE", tree, tmp_path / "out")
    assert set(clips(corpus, "documents")) == {"quesst14_00001", "quesst14_00002"}
    assert {clip.id: clip.fields["split"] for clip in clips(corpus, "queries").values()} == {
        "quesst14_dev_0001": "dev",
        "quesst14_eval_0001": "test",
    }
    assert [row for _, row in corpus.rows("relevance")] == [
        {"query": f"quesst14_{name}_0001", "document": "quesst14_00001", "split": split}
        for name, split in (("dev", "dev"), ("eval", "test"))
    ]
    everything = prepare("QbE", tree, tmp_path / "all", language="all")
    assert len(everything.split("documents")) == 3
    assert len(everything.rows("relevance")) == 4


def test_a_language_that_is_not_there_and_a_missing_truth_are_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the lists have no recording in 'basque'"):
        prepare("QbE", tree, tmp_path / "out", language="basque")
    (tree / "scoring" / "groundtruth_quesst14_eval" / "quesst14_eval.rttm").unlink()
    with pytest.raises(ValueError, match=r"groundtruth_quesst14_eval: has no \.rttm"):
        prepare("QbE", tree, tmp_path / "out")
