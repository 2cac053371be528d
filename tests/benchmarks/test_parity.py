"""The parity harness: what it reports, what it refuses, and that it notices a difference."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.parity import CASES, main
from benchmarks.replay import find_cases, replay
from benchmarks.replay.case import Case, Check
from benchmarks.replay.fine_tuned import ctc_losses
from benchmarks.replay.speech_encoders import with_copies
from benchmarks.replay.transformers_models import transcripts

CTC = CASES / "avhubert" / "ctc"


def altered(folder: Path, source: Path = CTC, **changes: Any) -> Path:
    """A copy of a case with changed options."""
    shutil.copytree(source, folder)
    path = folder / "case.json"
    description = json.loads(path.read_text())
    description["config"] |= changes
    path.write_text(json.dumps(description))
    return folder


def results(folder: Path, tmp_path: Path) -> tuple[int, list[dict[str, Any]]]:
    code = main(["--cases", str(folder), "--json", str(tmp_path / "out.json")])
    return code, json.loads((tmp_path / "out.json").read_text())


def test_a_folder_of_cases_is_reported_with_what_was_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    altered(tmp_path / "cases" / "some" / "case")
    code, [result] = results(tmp_path / "cases", tmp_path)
    assert code == 0
    assert set(result) == {"case", "passed", "max_abs_error", "tolerance", "compared", "skipped"}
    assert result["case"] == "some/case"
    assert result["passed"] is True
    assert 0 < result["max_abs_error"] < 1e-3
    assert result["tolerance"]["forward_max_abs_over_max1"] == 1e-5
    assert set(result["compared"]) == set(load_file(CTC / "outputs.safetensors"))
    assert result["skipped"] == {}
    assert "1 of 1 cases pass" in capsys.readouterr().out


def test_a_case_alone_may_be_given(tmp_path: Path) -> None:
    assert [name for name, _ in find_cases(CTC)] == ["ctc"]
    assert main(["--cases", str(CTC)]) == 0


def test_a_wrong_weight_fails_and_names_the_tensor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = altered(tmp_path / "cases" / "case")
    state = load_file(folder / "state.safetensors")
    state["w2v_encoder.proj.bias"] = state["w2v_encoder.proj.bias"].clone()
    state["w2v_encoder.proj.bias"][3] += 1e-2
    save_file(state, folder / "state.safetensors")
    code, [result] = results(tmp_path / "cases", tmp_path)
    assert code == 1
    assert result["passed"] is False
    assert result["max_abs_error"] > 9e-3
    assert "tensors differ; " in capsys.readouterr().out


def test_a_wrong_option_fails(tmp_path: Path) -> None:
    altered(tmp_path / "cases" / "case", layer_norm_first=False)
    assert results(tmp_path / "cases", tmp_path)[0] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"moe_experts": 4}, "case.json: config: options that avtlm does not know: moe_experts"),
        ({"num_clusters": [4, 5]}, "state.safetensors: encoder.predictor.units do not fit the model of case.json."),
        ({"encoder_layers": 2}, "do not fit the model of case.json."),
        ({"sim_type": "l2"}, "sim_type is 'l2'; avtlm knows cosine, dot"),
    ],
)
def test_options_that_are_not_understood_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    altered(tmp_path / "cases" / "case", **changes)
    code, [result] = results(tmp_path / "cases", tmp_path)
    assert code == 1
    assert result["passed"] is False
    assert reason in result["skipped"]["*"]
    assert result["max_abs_error"] is None
    assert result["skipped"]["av.lprobs_TBV"] == "the case was not run to its end."


def test_cases_of_unknown_kinds_and_damaged_ones_fail_without_stopping_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    altered(folder / "good")
    unknown, damaged = altered(folder / "unknown"), altered(folder / "damaged")
    (unknown / "case.json").write_text(json.dumps({"official_class": "Whisper", "config": {}, "tolerance": 1e-5}))
    (damaged / "state.safetensors").write_bytes(b"\x00" * 20)
    code, found = results(folder, tmp_path)
    assert code == 1
    assert {result["case"]: result["passed"] for result in found} == {"damaged": False, "good": True, "unknown": False}
    reasons = {result["case"]: result["skipped"].get("*", "") for result in found}
    assert reasons["unknown"] == "no adapter for Whisper."
    assert reasons["damaged"].startswith("cannot be read")


def test_a_folder_without_cases_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--cases", str(tmp_path)])
    assert error.value.code == 2


def test_a_tensor_that_nobody_computes_is_told(tmp_path: Path) -> None:
    folder = altered(tmp_path / "case")
    outputs = load_file(folder / "outputs.safetensors")
    save_file({**outputs, "av.something_else": torch.zeros(2)}, folder / "outputs.safetensors")
    report = replay(folder, "case")
    assert report.passed
    assert report.skipped == {"av.something_else": "no adapter computes a tensor of this name."}


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("w2v2_pretrain", {"model": {"layer_type": "conformer"}}, "layer_type is 'conformer'"),
        ("mt4ssl_pretrain", {"model": {"new_switch": True}}, "options that avtlm does not know: new_switch"),
        ("mt4ssl_pretrain", {"loss_weights": {"regression": 1.0}}, "config.loss_weights has no weight for classification"),
        ("w2v2_ctc", {"ctc": {"new_switch": 1}}, "options that avtlm does not know: new_switch"),
        ("w2v2_ctc", {"w2v_model": {"_name": "data2vec_multi"}}, "data2vec_multi is no model that is replayed"),
        ("hubert_pretrain", {"model": {"encoder_layers": 2}}, "do not fit the model of case.json"),
        ("hubert_pretrain", {"model": None}, "lack 'model', which this kind of case needs"),
        ("w2v2_pretrain", {"model": {"encoder_attention_heads": 5}}, "heads: 5 does not divide dim 48"),
    ],
)
def test_what_a_case_of_a_speech_encoder_cannot_be_replayed_for_is_said_in_one_sentence(
    tmp_path: Path, name: str, change: dict[str, Any], reason: str
) -> None:
    source = CASES / "mt4ssl" / name
    config = json.loads((source / "case.json").read_text())["config"]
    for key, values in change.items():
        if isinstance(values, dict) and isinstance(config.get(key), dict) and key != "loss_weights":
            config[key] |= values
        elif values is None:
            del config[key]
        else:
            config[key] = values
    folder = altered(tmp_path / "case", source)
    description = json.loads((folder / "case.json").read_text()) | {"config": config}
    (folder / "case.json").write_text(json.dumps(description))
    report = replay(folder, "case")
    assert not report.passed
    assert report.failure is not None
    assert reason in report.failure
    assert "\n" not in report.failure


def test_copies_of_the_truth_that_rounding_set_apart_are_compared_again() -> None:
    inf = float("inf")
    ours, stored = torch.tensor([[2.0, -inf, 1.0], [3.0, -inf, 1.0]]), torch.tensor([[2.0, 2.5, 1.0], [3.0, -inf, 1.0]])
    logits, ranked = with_copies(ours, stored)
    assert logits.tolist() == [[2.0, 2.0, 1.0], [3.0, -inf, 1.0]]
    assert ranked.tolist() == [[2.0, 2.5, 1.0], [3.0, -inf, 1.0]]
    assert with_copies(ours, None)[0] is ours


def test_targets_that_do_not_fit_cost_nothing_or_everything_as_a_case_says() -> None:
    torch.manual_seed(0)
    logits, lengths, targets = torch.randn(2, 4, 6), torch.tensor([4, 2]), [torch.tensor([3, 3]), torch.tensor([3, 3])]
    kept, endless = (ctc_losses(logits, lengths, targets, 0, zero) for zero in (True, False))
    assert kept[1] == 0
    assert endless[1] == float("inf")
    assert kept[0] == endless[0] > 0


def test_transcripts_may_be_padded_with_blanks() -> None:
    found = transcripts(torch.tensor([[5, 0, 2, 0], [3, -100, -100, -100]]), 0)
    assert [row.tolist() for row in found] == [[5, 2], [3]]


def check(**outputs: torch.Tensor) -> Check:
    tolerance = {"forward_max_abs_over_max1": 1e-5, "loss_rel": 1e-5, "grad_rel": 1e-3}
    return Check(Case("case", Path(), {"tolerance": tolerance}, {}, outputs, {}))


def test_errors_are_measured_as_the_tolerances_say() -> None:
    found = check(a=torch.tensor([100.0, 1.0]), b=torch.tensor(50.0), c=torch.tensor([1e-2, 0.0]), d=torch.tensor([1, 2]))
    found.forward("a", torch.tensor([100.0005, 1.0]))
    found.loss("b", 50.001)
    found.gradient("c", torch.tensor([1.0005e-2, 0.0]))
    found.gradient("c", None)
    found.equal("d", torch.tensor([1, 3]))
    assert [each.error for each in found.comparisons] == pytest.approx([5e-6, 2e-5, 5e-4, 1.0, 1.0], rel=1e-2)
    assert [each.passed for each in found.comparisons] == [True, False, True, False, False]


def test_shapes_nan_and_infinities_must_agree() -> None:
    inf = float("inf")
    found = check(a=torch.zeros(2), b=torch.tensor([-inf, 0.0]))
    for ours in (torch.zeros(2, 1), torch.tensor([0.0, float("nan")])):
        found.forward("a", ours)
    for ours in (torch.tensor([-inf, 0.0]), torch.tensor([inf, 0.0]), torch.tensor([-50.0, 0.0])):
        found.forward("b", ours)
    assert [each.passed for each in found.comparisons] == [False, False, True, False, False]
