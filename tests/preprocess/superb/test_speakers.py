"""VoxCeleb1 for identification and verification."""

from pathlib import Path

import pytest

from tests.preprocess.corpora.made_sound import sound, text
from tests.preprocess.superb.read_folder import clips, prepare

TRAINED, TESTED = "id10001/aaa", "id10270/bbb"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "vox1"
    for number in (1, 2, 3):
        sound(root / "dev" / "wav" / TRAINED / f"0000{number}.wav")
        sound(root / "test" / "wav" / TESTED / f"0000{number}.wav")
    text(root / "iden_split.txt", *(f"{number} {name}/0000{number}.wav" for number in (1, 2, 3) for name in (TRAINED, TESTED)))
    return root


def test_identification_has_the_published_splits_and_speakers_as_labels(tree: Path, tmp_path: Path) -> None:
    corpus = prepare("SID", tree, tmp_path / "out")
    for split, number in (("train", 1), ("dev", 2), ("test", 3)):
        found = clips(corpus, split)
        assert {clip.id: clip.text("label") for clip in found.values()} == {
            f"{name}/0000{number}": name.split("/")[0] for name in (TRAINED, TESTED)
        }


def test_trials_name_clips_of_the_test_and_those_that_lack_one_are_counted(tree: Path, tmp_path: Path) -> None:
    text(tree / "veri_test2.txt", f"1 {TESTED}/00001.wav {TESTED}/00002.wav", f"0 {TESTED}/00001.wav id10299/ccc/00001.wav")
    corpus = prepare("ASV", tree, tmp_path / "out")
    (trial,) = corpus.trials()
    assert (trial.same, trial.first.id, trial.second.id) == (True, f"{TESTED}/00001", f"{TESTED}/00002")
    assert {clip.fields["speaker"] for clip in clips(corpus, "train").values()} == {"id10001"}
    assert not corpus.has("dev")


def test_verification_without_trials_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the list of trials veri_test2\.txt is neither there nor in the folder above"):
        prepare("ASV", tree, tmp_path / "out")
    wrong = text(tmp_path / "trials.txt", "same a.wav b.wav")
    with pytest.raises(ValueError, match=r"trials.txt, line 1: .* is no trial"):
        prepare("ASV", tree, tmp_path / "out", trials=wrong)
