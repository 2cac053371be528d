"""What all comparisons of pre-trainings have in common: a wrong setting is one sentence, before anything is trained."""

from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import lips_and_text, mandarin, multistage, one_encoder, self_supervised, spoken_ablation, unpaired_text
from benchmarks.over_seeds import OverSeeds


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    ("module", "comparison", "preparation"),
    [
        (lips_and_text, lips_and_text.Comparison, ("make_corpus", "label")),
        (mandarin, mandarin.Ablation, ("make_corpus", "label")),
        (multistage, multistage.Grid, ("make_corpus", "translate_corpus")),
        (one_encoder, one_encoder.Comparison, ("gather",)),
        (self_supervised, self_supervised.Comparison, ("gather", "divide")),
        (spoken_ablation, spoken_ablation.Ablation, ("make_corpus", "label")),
        (unpaired_text, unpaired_text.Comparison, ("make_corpus", "label", "generator", "label_text")),
    ],
    ids=["lips_and_text", "mandarin", "multistage", "one_encoder", "self_supervised", "spoken_ablation", "unpaired_text"],
)
def test_a_wrong_change_is_said_in_one_sentence(
    module: ModuleType,
    comparison: type[OverSeeds],
    preparation: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for stage in preparation:
        monkeypatch.setattr(comparison, stage, lambda self, *seed: None)
    folders = [word for name, (_, required) in comparison.FOLDERS.items() if required for word in (f"--{name}", "none")]
    assert module.main([*folders, "--out", str(tmp_path), "--size", "smoke", "stepz=3"]) == 1
    assert "key 'stepz' is not known" in capsys.readouterr().err
