"""What all comparisons of pre-trainings have in common: a wrong setting is one sentence, before anything is trained."""

from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import lips_and_text, mandarin, spoken_ablation, unpaired_text


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("module", "comparison", "preparation"),
    [
        (lips_and_text, lips_and_text.Comparison, ("make_corpus", "label")),
        (mandarin, mandarin.Ablation, ("make_corpus", "label")),
        (spoken_ablation, spoken_ablation.Ablation, ("make_corpus", "label")),
        (unpaired_text, unpaired_text.Comparison, ("make_corpus", "label", "generator", "label_text")),
    ],
    ids=["lips_and_text", "mandarin", "spoken_ablation", "unpaired_text"],
)
def test_a_wrong_change_is_said_in_one_sentence(
    module: ModuleType,
    comparison: type,
    preparation: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stage in preparation:
        monkeypatch.setattr(comparison, stage, lambda self, *seed: None)
    assert module.main(["--out", str(tmp_path), "--size", "smoke", "stepz=3"]) == 1
    assert "key 'stepz' is not known" in capsys.readouterr().err
