"""A model's readings: found once, with times and places, by CTC or by where a decoder looks."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avtlm.nn.transformer import DecoderConfig
from avtlm.recognizer import Recognizer
from demos import demo_reading
from demos.demo_reading import Reader, distinct_names, open_readers
from tests.made_model import save_tiny_recognizer, tiny_recognizer

CROPS = np.random.default_rng(1).integers(0, 256, (25, 96, 96), dtype=np.uint8)
WAVE = np.random.default_rng(2).integers(-9000, 9000, 16000).astype(np.int16)


def test_ctc_says_where_each_symbol_was_found() -> None:
    reading = Reader("tiny", tiny_recognizer()).read("clip", "av", WAVE, CROPS)
    assert reading.trace is not None
    assert reading.trace.kind == "CTC posteriors"
    assert reading.trace.weights.shape == (len(reading.trace.symbols), 25)
    spelled = {"␣" if letter == " " else letter for letter in reading.transcript.text}
    assert spelled <= set(reading.trace.symbols)
    assert (reading.trace.weights.max(1) > 0.02).all()
    assert reading.confidence is not None
    assert 0 < reading.confidence <= 1
    assert reading.transcript.duration == 1.0


def test_a_decoder_shows_where_it_looked() -> None:
    ctc = tiny_recognizer()
    torch.manual_seed(1)
    heads = replace(
        ctc.config,
        ctc_weight=0.0,
        decoder=DecoderConfig(dim=16, layers=2, heads=2, feed_forward_dim=16),
        decoding=replace(ctc.config.decoding, method="attention", beam=2, min_length=4),
    )
    reading = Reader("tiny", Recognizer(heads, ctc.encoder, ctc.vocabulary).eval()).read("clip", "a", WAVE, CROPS)
    assert reading.trace is not None
    assert reading.trace.kind == "cross-attention"
    assert len(reading.trace.symbols) >= 4
    assert np.allclose(reading.trace.weights.max(1), 1, atol=0.01)


def test_lips_are_read_once_for_every_noise_and_forgotten_with_their_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader("tiny", tiny_recognizer())
    lips = reader.read("clip", "v", WAVE, CROPS)
    assert reader.read("clip", "v", WAVE // 2, CROPS) is lips
    both = reader.read("clip", "av", WAVE, CROPS)
    assert reader.read("clip", "av", WAVE // 2, CROPS) is not both
    assert reader.read("clip", "av", WAVE, CROPS) is both
    reader.forget("clip")
    assert reader.read("clip", "v", WAVE, CROPS) is not lips
    monkeypatch.setattr(demo_reading, "KEPT_READINGS", 2)
    reader.read("other", "v", WAVE, CROPS)
    assert len(reader._kept) == 2


def test_models_get_the_shortest_names_that_tell_them_apart(tmp_path: Path) -> None:
    assert distinct_names([Path("/runs/quickstart/model")]) == ["quickstart"]
    assert distinct_names([Path("/runs/a/model"), Path("/runs/b/model")]) == ["a", "b"]
    assert distinct_names([Path("/x/a/one"), Path("/x/a/two")]) == ["one", "two"]
    assert distinct_names([Path("/x/a/one"), Path("/x/b/one"), Path("/x/a/two")]) == ["a/one", "b/one", "a/two"]
    folder = save_tiny_recognizer(tmp_path / "tiny")
    assert [reader.name for reader in open_readers([folder])] == ["tiny"]
    with pytest.raises(ValueError, match="names one folder twice"):
        open_readers([folder, folder / ".." / "tiny"])
