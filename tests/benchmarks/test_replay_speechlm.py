"""Replaying SpeechLM's and SpeechUT's cases: what a case may hold or lack, and what official tensors are here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm.objectives.masking import SpanMaskConfig
from benchmarks.replay.case import Case, Check
from benchmarks.replay.speech_encoders import gradients
from benchmarks.replay.speechlm import drawn_of, our_name, text_of
from benchmarks.replay.speechut import rows_of
from tests.systems.bridge_models import DECODER, SPEECHLM


def case_of(**inputs: Any) -> Case:
    return Case("made", Path(), {"tolerance": {"forward": 1e-4, "gradients": 1e-3}}, inputs, {}, {})


def test_draws_of_swaps_are_not_heeded_by_models_that_swap_nothing() -> None:
    swap = torch.ones(1, 4, dtype=torch.bool)
    case = case_of(**{"mask.speech": ~swap, "mask.mix_selected": swap})
    assert drawn_of(case, SPEECHLM).swap is swap
    assert drawn_of(case, replace(SPEECHLM, swap=SpanMaskConfig(prob=0.0))).swap is None


def test_a_case_may_hold_no_text() -> None:
    assert text_of(case_of()) is None
    found = text_of(case_of(**{"text.src_tokens": torch.tensor([[5, 2]]), "text.target": torch.tensor([[6, 7, 2]])}))
    assert found is not None
    assert found.text is not None
    assert found.text.tolist() == [[6, 7]]


def test_symbols_of_text_are_those_of_the_decoder_or_else_of_ctc() -> None:
    ctc = {"unit_encoder_ctc_head.5.weight": torch.zeros(7, 2)}
    assert rows_of(ctc | {"decoder.embed_tokens.weight": torch.zeros(9, 2)}) == 9
    assert rows_of(ctc) == 7
    assert rows_of({}) == 0


@pytest.mark.parametrize(
    ("changes", "system", "key", "name"),
    [
        ({}, "speechlm", "label_embs_list.0", "predictor.units"),
        ({"final_dim": 0}, "speechlm", "label_embs_list.0", "unit_embedding.weight"),
        ({"final_dim": 0}, "speechut", "label_embs_concat", None),
        ({"final_dim": 0}, "speechut", "final_proj.weight", "entrance.weight"),
        ({}, "speechlm", "encoder.layers.0.norm_k.weight", None),
        (
            {"encoder": replace(SPEECHLM.encoder, norm_first=True)},
            "speechlm",
            "encoder.layers.0.norm_k.bias",
            "encoder.layers.0.distance_norm.bias",
        ),
        ({"task": "recognition"}, "speechlm", "w2v_encoder.w2v_model.final_proj_list.1.bias", None),
        ({"task": "recognition"}, "speechlm", "w2v_encoder.proj.5.bias", "ctc.output.bias"),
        ({"task": "recognition", "ctc_head": "none", "decoder": DECODER}, "speechlm", "encoder.proj.5.bias", None),
    ],
)
def test_official_tensors_have_one_name_or_none_where_nothing_uses_them(
    changes: dict[str, Any], system: Any, key: str, name: str | None
) -> None:
    assert our_name(replace(SPEECHLM, **changes), system, key) == name


def test_gradients_of_tensors_that_nothing_uses_are_zero() -> None:
    model = torch.nn.Linear(2, 1)
    case = replace(case_of(), outputs={"grad.used": torch.ones(1, 2), "grad.spare": torch.zeros(3), "grad.odd": torch.ones(3)})
    check = Check(case)
    gradients(check, model, model(torch.ones(1, 2)).sum(), lambda key: "weight" if key == "used" else None)
    assert [each.passed for each in check.comparisons] == [True, True, False]
