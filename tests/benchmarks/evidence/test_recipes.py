"""Reports of recipes with one seed each become one report over seeds."""

from typing import Any

import pytest

from benchmarks.evidence.claims import CLAIMS
from benchmarks.evidence.recipes import quickstart, speaking, superb, together

CONDITIONS = ("clean", "10", "5", "0", "-5", "-10")
SHARED: dict[str, Any] = {"seconds": {"corpus": 5.0, "total": 100.0}, "machine": {"cores": 2}}


def quick(seed: int, error: float) -> dict[str, Any]:
    """As demos.quickstart writes it."""
    noise = {modality: {name: error + place for place, name in enumerate(CONDITIONS)} for modality in ("a", "v", "av")}
    mean = {modality: {"clean": error, "0": error + 1} for modality in ("a", "v", "av")}
    runs = [{"seed": each, "wer": {modality: {"clean": error + each, "0": error} for modality in ("a", "v", "av")}} for each in (1, 2, 3)]
    starts = {"labels": 100, "steps": 200, "pretrained": runs, "scratch": runs, "pretrained_mean": mean, "scratch_mean": mean}
    known = {modality: {key: [9.0, 11.0] for key in CONDITIONS} for modality in noise}
    return {
        "wer": noise,
        "interval_95": known,
        "pretrained_vs_scratch": starts,
        "plan": {"corpus": "default", "seeds": 3, "seed": seed},
        **SHARED,
    }


def spoken(seed: int, whisper: bool) -> dict[str, Any]:
    """As demos.speaking writes it."""
    judges = ["avtlm", "whisper"] if whisper else ["avtlm"]
    wer = {name: {"recorded": 10.0 * seed, "synthesised": 20.0} for name in judges}
    known = {name: {key: [9.0, 11.0] for key in wer[name]} for name in judges}
    return {"wer": wer, "interval_95": known, "utterances": 120, "plan": {"corpus": "default", "seed": seed, "changes": []}, **SHARED}


def test_equal_trees_become_one_with_means_and_seeds() -> None:
    assert together([{"a": {"b": 1}}, {"a": {"b": 2.5}}]) == {"a": {"b": {"mean": 1.75, "seeds": [1, 2.5]}}}
    for wrong in ([{"a": 1.0}, {"b": 1.0}], [{"a": 1.0}, 2.0], [True, False], []):
        with pytest.raises(ValueError, match="different forms"):
            together(wrong)


def test_quickstarts_give_every_figure_of_their_claims() -> None:
    found = quickstart([quick(1, 10.0), quick(2, 20.0), quick(3, 60.0)])
    for name in ("vatlm", "avhubert"):
        [trial] = [trial for trial in CLAIMS[name].trials if trial.run == "quickstart"]
        for row in trial.rows:
            for measure in trial.measures:
                seeds = trial.seeds(found, row, measure)
                assert seeds is not None
                assert [seed - seeds[0] for seed in seeds] == [0.0, 10.0, 50.0]
    assert found["plan"] == {"corpus": "default", "seeds": 3, "seeds_of_fine_tuning": 3}
    assert found["seconds"] == {"total": 300.0}


def test_the_fine_tunings_of_one_quickstart_alone_are_its_seeds() -> None:
    starts = quickstart([quick(1, 10.0)])["results"]["start"]
    assert starts["scratch"]["av"] == {"clean": {"mean": 12.0, "seeds": [11.0, 12.0, 13.0]}, "0": {"mean": 10.0, "seeds": [10.0] * 3}}


def test_a_judge_that_was_not_there_every_time_is_left_out() -> None:
    assert set(speaking([spoken(1, True), spoken(2, True)])["results"]["wer"]) == {"avtlm", "whisper"}
    found = speaking([spoken(1, True), spoken(2, False)])
    assert found["results"]["wer"] == {
        "avtlm": {"recorded": {"mean": 15.0, "seeds": [10.0, 20.0]}, "synthesised": {"mean": 20.0, "seeds": [20.0, 20.0]}}
    }
    assert found["plan"] == {"corpus": "default", "changes": [], "seeds": 2}


def heard(value: float) -> dict[str, Any]:
    """As benchmarks.superb writes it."""
    metrics = {"PR": ["PER"], "ASR": ["WER", "WER with language model"], "KS": ["accuracy"], "SID": ["accuracy"]}
    encoders = ("FBANK", "speechlm_with", "speechlm_without")
    return {
        "rows": [
            {"task": task, "metric": name, "figures": {label: value + place for place, label in enumerate(encoders)}}
            for task, names in metrics.items()
            for name in names
        ],
        "seconds": {task: dict.fromkeys(encoders, 2.0) for task in metrics},
        "size": {"voices": [4, 2, 2]},
        "machine": {"cores": 2},
    }


def test_figures_of_superb_are_found_by_encoder_task_and_metric() -> None:
    found = superb([heard(10.0), heard(30.0)])
    [trial] = [trial for trial in CLAIMS["speechlm"].trials if trial.run == "superb_speechlm"]
    for place, row in enumerate(("FBANK", "speechlm_with", "speechlm_without")):
        for measure in trial.measures:
            assert trial.seeds(found, row, measure) == [10.0 + place, 30.0 + place]
    assert found["seconds"] == {"total": 48.0}
    assert found["plan"] == {"voices": [4, 2, 2], "seeds": 2}
