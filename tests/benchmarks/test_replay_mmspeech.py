"""Cases of MMSpeech are replayed, of its model with every option against the official code written out, and notice what differs; searches
without the rule against repeats are told by their hypotheses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.replay import replay
from benchmarks.replay.mmspeech import repeats
from tests.benchmarks.mmspeech_written_out import made_case

LEXICON = [["我", "w o3"], ["我们", "w o3 m e5 n"], ["行", "h a2 ng"], ["行", "x i2 ng"], ["零", "l i2 ng"]]
TEXTS = [
    {"text": "我们行", "normalized": "我们行", "tokens": ["我们", "行"], "phones": "w o3 m e5 n h a2 ng"},
    {"text": "我x3", "normalized": "我x零", "tokens": ["我", "x", "零"], "phones": "w o3 l i2 ng"},
]


def case(folder: Path, official: str, **parts: Any) -> Path:
    folder.mkdir()
    tensors = {name: parts.pop(name) for name in ("inputs", "outputs") if name in parts}
    for name, values in tensors.items():
        save_file(values, folder / f"{name}.safetensors")
    (folder / "case.json").write_text(json.dumps({"official_class": official, "tolerance": "exact", **parts}), encoding="utf-8")
    return folder


def test_phonemes_of_texts_are_compared(tmp_path: Path) -> None:
    official = "Text2Phone (utils/text2phone.py)"
    assert replay(case(tmp_path / "right", official, lexicon=LEXICON, cases=TEXTS), "right").passed
    wrong = replay(case(tmp_path / "wrong", official, lexicon=LEXICON, cases=[TEXTS[0] | {"phones": "w o3"}]), "wrong")
    assert [each.name for each in wrong.comparisons if not each.passed] == ["0.phones: differs"]


def test_buckets_of_distances_are_compared(tmp_path: Path) -> None:
    official = "make_token_bucket_position (models/ofa/unify_transformer.py)"
    pairs = torch.tensor([[5, 5], [6, 5], [5, 9], [1000, 0]])
    found = torch.tensor([7, 8, 3, 14])
    assert replay(case(tmp_path / "right", official, inputs={"pairs.8": pairs}, outputs={"bucket.8": found}), "right").passed
    assert not replay(case(tmp_path / "wrong", official, inputs={"pairs.8": pairs}, outputs={"bucket.8": found + 1}), "wrong").passed


@pytest.mark.parametrize(("size", "expected"), [(0, False), (2, True), (3, False), (9, False)])
def test_hypotheses_that_repeat_themselves_are_told(size: int, expected: bool) -> None:
    assert repeats([4, 5, 6, 4, 5, 2], size) is expected


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layer_norm_first": False, "decoder_normalize_before": False},
        {"layer_norm_first": False, "pos_conv_depth": 1, "conv_pos": 8},
        {"pos_conv_depth": 1, "conv_pos": 9, "decoder_normalize_before": False},
        {"pos_conv_depth": 4, "conv_pos": 16},
        {"pos_conv_depth": 5, "conv_pos": 10},  # kernels of 3 all the same
        {"scale_attn": False, "scale_fc": False, "scale_heads": False, "layernorm_embedding": False, "no_scale_embedding": True},
        {"attn_scale_factor": 1, "share_decoder_input_output_embed": False, "token_bucket_size": 6},
        {"activation_fn": "relu", "disable_entangle": True, "phone_dict_size": 14},
        {"scale_resids": True, "adapter": True, "adapter_dim": 6},
        {"scale_resids": True, "decoder_normalize_before": False},
        {"stage": 1},
        {"stage": 3},
        {"constrained": False},
    ],
)
def test_every_option_of_the_model_is_matched(tmp_path: Path, options: dict[str, Any]) -> None:
    report = replay(made_case(tmp_path / "case", **options), "case")
    assert report.failure is None
    assert report.skipped == {}
    assert [(each.name, each.error) for each in report.comparisons if not each.passed] == []


def test_options_that_are_computed_with_are_not_passed_over(tmp_path: Path) -> None:
    folder = made_case(tmp_path / "case", stage=3)
    told = json.loads((folder / "case.json").read_text())
    for name, value in {"layer_norm_first": False, "attn_scale_factor": 1, "no_scale_embedding": True, "layer_type": "conformer"}.items():
        changed = {**told, "config": {**told["config"], "model": {**told["config"]["model"], name: value}}}
        (folder / "case.json").write_text(json.dumps(changed))
        assert not replay(folder, name).passed
