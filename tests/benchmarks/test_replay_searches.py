"""Cases of searches and metrics with other options than the stored ones: what the adapters make of them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from avtlm.decoding.result import Hypothesis
from benchmarks.parity import CASES
from benchmarks.replay import replay
from benchmarks.replay.beam_search import frames_of
from benchmarks.replay.decoding import of_float32, of_rank
from tests.benchmarks.test_replay import derived, failed
from tests.golden_case import read_case as golden


def test_repeats_that_fairseq_does_not_find_are_not_forbidden(tmp_path: Path) -> None:
    outputs = golden("decoding/attention_beam_a").outputs
    assert any(len(set(tokens.tolist())) < len(tokens) for name, tokens in outputs.items() if name.endswith(".tokens"))
    report = derived(tmp_path / "case", "decoding/attention_beam_a", {"no_repeat": 1})
    assert report.passed, failed(report)


def test_hypotheses_that_ctc_finds_impossible_are_not_counted(tmp_path: Path) -> None:
    """ESPnet lets them run on; which of them end depends on its rounding of large numbers."""
    case = golden("decoding/joint_beam_ctc_only_small")
    few = {"ctc_log_probs": case.inputs["ctc_log_probs"][:2].contiguous()}
    report = derived(tmp_path / "crowded", "decoding/joint_beam_ctc_only_small", {"T": 2}, few, {"n_ended": torch.tensor(99)})
    assert list(report.skipped) == ["n_ended"]
    more = {"n_ended": golden("decoding/joint_beam_maxlen").outputs["n_ended"] + 1}
    report = derived(tmp_path / "roomy", "decoding/joint_beam_maxlen", outputs=more)
    assert [each.passed for each in report.comparisons] == [False]
    assert [frames_of(tokens) for tokens in ((), (3,), (3, 4, 3), (3, 3, 3, 4))] == [0, 1, 3, 6]


def test_a_case_may_name_the_scores_that_choose_what_ctc_scores(tmp_path: Path) -> None:
    report = derived(tmp_path / "decoder", "decoding/joint_beam_a", {"pre_beam_key": "decoder"})
    assert report.passed, failed(report)
    other = derived(tmp_path / "other", "decoding/joint_beam_a", {"pre_beam_key": "ctc"})
    assert other.failure is not None
    assert "pre_beam ctc" in other.failure


def test_of_equal_scores_the_hypothesis_of_the_case_is_compared() -> None:
    found = [Hypothesis((4, 5), -1.0, {}), Hypothesis((5, 4), -1.0, {}), Hypothesis((6,), -2.0, {})]
    assert of_rank(found, 0, torch.tensor([5, 4, 2]), 2, 1e-6) is found[1]
    assert of_rank(found, 0, torch.tensor([6, 2]), 2, 1e-6) is found[0]
    assert of_rank(found, 2, None, 2, 1e-6) is found[2]


def test_long_sums_may_be_rounded_more_but_never_more_than_a_case_allows() -> None:
    assert [of_float32(1e-3, score) for score in (-1.0, -100.0, -1e6)] == pytest.approx([1e-5, 2e-4, 1e-3])
    assert of_float32(1e-6, -100.0) == 1e-6


def test_the_blank_of_a_transducer_may_be_any_symbol(tmp_path: Path) -> None:
    case = golden("decoding/transducer_a")
    turned = {"logits": case.inputs["logits"].roll((-1, -1), (1, 2))}  # symbol 1 is 0 now, and the blank is the last one
    sequences = torch.where(case.outputs["sequences"] > 0, case.outputs["sequences"] - 1, -1)
    folder = tmp_path / "case"
    report = derived(folder, "decoding/transducer_a", {"blank": case.config["V"] - 1}, turned, {**case.outputs, "sequences": sequences})
    assert {each.name for each in report.comparisons if not each.passed} == {
        *(f"nbest {rank}: tokens differ" for rank, found in enumerate(case.description["nbest"]) if found["tokens"]),
        "greedy: tokens differ",
    }  # the description still has the old symbols


def test_translations_may_be_smoothed_otherwise(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    shutil.copytree(CASES / "evaluation/bleu", folder)
    description = json.loads((folder / "case.json").read_text())
    item = next(item for item in description["cases"] if item["name"] == "two_refs")  # every sequence of words matches
    item["args"] = {"smooth_method": "none", "effective_order": True}
    item["signature"] = item["signature"].replace("eff:no", "eff:yes").replace("smooth:exp", "smooth:none")
    (folder / "case.json").write_text(json.dumps(description | {"cases": [item]}))
    report = replay(folder, "case")
    assert report.passed, failed(report)


def test_several_clips_of_floats_are_mixed_each_with_its_own_noise(tmp_path: Path) -> None:
    case = golden("evaluation/snr_mixing")
    twice = {name: torch.cat([case.inputs[name], case.inputs[name].flip(1)]) for name in ("speech_float", "noise_float")}
    mixed = {name: torch.cat([tensor, tensor.flip(1)]) for name, tensor in case.outputs.items() if name.startswith("float.")}
    folder = tmp_path / "case"
    shutil.copytree(CASES / "evaluation/snr_mixing", folder)
    save_file(twice, folder / "inputs.safetensors")
    save_file(mixed, folder / "outputs.safetensors")
    report = replay(folder, "case")
    assert report.passed, failed(report)
