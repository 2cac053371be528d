"""Claims name rows, measures and runs that there are, and read figures where the benchmarks put them."""

import pytest

from benchmarks import lips_and_text, mandarin, multistage, one_encoder, spoken_ablation, unpaired_text
from benchmarks.evidence.claims import CLAIMS, Trial
from benchmarks.evidence.runs import RUNS

TRIALS = [(name, trial) for name, claim in CLAIMS.items() for trial in claim.trials]


@pytest.mark.parametrize(("name", "trial"), TRIALS, ids=[f"{name}-{trial.run}" for name, trial in TRIALS])
def test_what_is_compared_is_in_the_table(name: str, trial: Trial) -> None:
    assert trial.run in RUNS
    measures = {measure.path for measure in trial.measures}
    for each in trial.comparisons:
        assert {each.better, each.other} <= set(trial.rows)
        assert set(each.measures) <= measures
    compared = [(each.better, each.other, measure) for each in trial.comparisons for measure in each.measures or measures]
    assert len(compared) == len(set(compared))


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_is_decided_by_something(name: str) -> None:
    assert any(each.decides for trial in CLAIMS[name].trials for each in trial.comparisons)


def test_every_run_serves_a_claim() -> None:
    assert {run for claim in CLAIMS.values() for run in claim.runs} == set(RUNS)


def test_figures_are_read_where_the_benchmarks_put_them() -> None:
    """Reports of the form that their own tests have."""
    cell = {"mean": 12.5, "seeds": [10.0, 15.0]}
    grid = {start: {middle: {"wer": cell, "baselines": []} for middle in multistage.MIDDLES} for start in multistage.STARTS}
    inputs = {"v": {"clean": cell}, "av": {"clean": cell, "0": cell}, "a": {"clean": cell}}
    forms = {
        "lips_and_text": {"results": dict.fromkeys(lips_and_text.TITLES, inputs)},
        "spoken_ablation": {"results": {start: dict.fromkeys(spoken_ablation.TASKS, cell) for start in spoken_ablation.TITLES}},
        "mandarin": {"results": {start: dict.fromkeys(mandarin.TESTS, cell) for start in mandarin.TITLES}},
        "multistage": {"results": grid},
        "one_encoder": {"results": {start: dict.fromkeys(one_encoder.MEASURES, cell) for start in one_encoder.TITLES}},
        "unpaired_text": {
            "results": {
                system: {start: dict.fromkeys(unpaired_text.TASKS, cell) for start in unpaired_text.STARTS}
                for system in unpaired_text.SYSTEMS
            }
        },
    }
    read = 0
    for _, trial in TRIALS:
        if trial.run in forms:
            for row in trial.rows:
                for measure in trial.measures:
                    assert trial.seeds(forms[trial.run], row, measure) == [10.0, 15.0]
                    read += 1
    assert read > 50


def test_what_is_missing_is_told_from_what_is_wrong() -> None:
    trial = CLAIMS["mmspeech"].trials[0]
    measure = trial.measures[0]
    assert trial.seeds({"results": {}}, "whole", measure) is None
    for wrong in ({"results": {"whole": {measure.path: 3.0}}}, {"results": {"whole": 3.0}}, {"results": {"whole": {measure.path: {}}}}):
        with pytest.raises(ValueError, match="another form"):
            trial.seeds(wrong, "whole", measure)
