"""Cases of MMSpeech are replayed, and notice what differs; searches without the rule against repeats are told by their hypotheses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.replay import replay
from benchmarks.replay.mmspeech import repeats

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
