"""IEMOCAP."""

from pathlib import Path

from tests.preprocess.corpora.made_sound import sound, text
from tests.preprocess.superb.read_folder import clips, prepare


def test_four_emotions_with_the_excited_among_the_happy_and_a_fold_for_each_session(tmp_path: Path) -> None:
    root = tmp_path / "IEMOCAP_full_release"
    for session in (1, 2):
        scene = f"Ses0{session}F_impro01"
        emotions = {"F000": "neu", "M001": "exc", "F002": "xxx", "M003": "hap"}
        lines = [f"[6.2901 - 8.2357]\t{scene}_{name}\t{emotion}\t[2.5, 2.5, 2.5]" for name, emotion in emotions.items()]
        text(
            root / f"Session{session}" / "dialog" / "EmoEvaluation" / f"{scene}.txt",
            "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]",
            "",
            *lines,
            "C-E2:\tNeutral;\t()",
        )
        for name in ("F000", "M001", "F002"):
            sound(root / f"Session{session}" / "sentences" / "wav" / scene / f"{scene}_{name}.wav")
    corpus = prepare("ER", tmp_path, tmp_path / "out")
    found = {clip.id: (clip.fields["label"], clip.fields["fold"], clip.fields["speaker"]) for clip in clips(corpus, "train").values()}
    assert found == {
        f"Ses0{session}F_impro01_{name}": (label, session, f"Ses0{session}{name[0]}")
        for session in (1, 2)
        for name, label in (("F000", "neu"), ("M001", "hap"))
    }
    assert corpus.folds == (1, 2)
    assert (tmp_path / "out" / "left_out.tsv").read_text().count("and not there") == 2
