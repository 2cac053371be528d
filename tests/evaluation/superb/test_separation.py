"""Masks: their loss against a plain account of it, spectrograms that fit the encoder's frames, and what is measured."""

import json
import math
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from avtlm.data.media import write_wav
from avtlm.evaluation.superb.data import Corpus, CorpusError
from avtlm.evaluation.superb.separation import (
    Enhancement,
    EnhancementConfig,
    MaskHead,
    Separation,
    SeparationConfig,
    mask_errors,
)
from avtlm.evaluation.superb.task import Heard

SAMPLES = 8000
SMALL = {"hidden": 8, "layers": 1, "dropout": 0.0}


def tones(*pitches: float, samples: int = SAMPLES) -> np.ndarray:
    """One row for each pitch, 0.2 loud."""
    times = np.arange(samples) / 16000
    return np.stack([0.2 * np.sin(2 * np.pi * pitch * times) for pitch in pitches]).astype(np.float32)


@pytest.fixture
def mixtures(tmp_path: Path) -> Corpus:
    low, high = tones(300, 2000)
    for name, wave in (("mix", low + high), ("low", low), ("high", high)):
        write_wav(tmp_path / f"{name}.wav", wave)
    row = {"id": "mix", "audio": "mix.wav", "sources": ["high.wav", "low.wav"], "clean": "low.wav"}
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "task.json").write_text('{"task": "SS", "name": "tones"}')
    return Corpus.read(tmp_path)


def heard(corpus: Corpus, frames: int, rate: float = 50.0, first: int = 0) -> Heard:
    features = torch.randn(1, frames, 4, generator=torch.Generator().manual_seed(1))
    return Heard(features, torch.tensor([frames]), corpus.split("train"), (first,), rate)


def spectra(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.complex(torch.randn(shape, generator=generator), torch.randn(shape, generator=generator))


@pytest.mark.parametrize("target", ["amplitude", "phase_sensitive", "truncated_phase_sensitive"])
def test_the_error_is_that_of_the_best_order_by_plain_loops(target: str) -> None:
    mixture, sources = spectra(3, 5, 4), spectra(3, 2, 5, 4)
    masks = torch.rand(3, 2, 5, 4, generator=torch.Generator().manual_seed(2))
    found = mask_errors(masks, mixture, sources, target)
    for clip in range(3):
        wanted = []
        for source in sources[clip]:
            part = source.abs()
            if target != "amplitude":
                part = part * torch.cos(mixture[clip].angle() - source.angle())
            wanted.append(part.clamp(min=0) if target == "truncated_phase_sensitive" else part)
        errors = []
        for order in permutations(range(2)):
            errors.append(sum(float(((masks[clip, i] * mixture[clip].abs() - wanted[j]) ** 2).sum()) for i, j in enumerate(order)))
        assert float(found[clip]) == pytest.approx(min(errors), rel=1e-5)


def test_the_order_of_sources_does_not_matter_and_a_true_mask_has_no_error() -> None:
    mixture = spectra(1, 5, 4)
    shares = torch.rand(1, 2, 5, 4, generator=torch.Generator().manual_seed(3))
    sources = shares * mixture[:, None]
    assert float(mask_errors(shares.flip(1), mixture, sources, "truncated_phase_sensitive")) == pytest.approx(0.0, abs=1e-8)
    assert float(mask_errors(shares.flip(1), mixture, sources.flip(1), "phase_sensitive")) == pytest.approx(0.0, abs=1e-8)


def test_masks_of_a_clip_are_those_of_the_clip_alone_and_zero_behind_its_end() -> None:
    torch.manual_seed(0)
    head = MaskHead(4, 2, SeparationConfig(**SMALL)).eval()
    features = torch.randn(2, 9, 4)
    both = head(features, torch.tensor([9, 5]))
    assert both.shape == (2, 2, 9, 257)
    assert float(both.detach().min()) == 0.0
    assert not both[1, :, 5:].any()
    torch.testing.assert_close(both[1, :, :5], head(features[1:, :5], torch.tensor([5]))[0])


def test_a_frame_has_as_many_windows_as_it_is_split_into_and_a_mask_for_each() -> None:
    torch.manual_seed(0)
    head = MaskHead(4, 2, SeparationConfig(**SMALL), split=4).eval()
    features = torch.randn(2, 3, 4)
    both = head(features, torch.tensor([11, 5]))
    assert both.shape == (2, 2, 11, 257)
    assert not both[1, :, 5:].any()
    torch.testing.assert_close(both[1, :, :5], head(features[1:, :2], torch.tensor([5]))[0])
    assert all(not torch.equal(both[0, 0, place], both[0, 0, place + 1]) for place in range(10))


@pytest.mark.parametrize(("rate", "windows", "hop"), [(100, 50, 160), (50, 50, 320), (25, 50, 320), (25, 100, 160), (50, 60, 160)])
def test_windows_lie_on_the_frames_of_the_encoder(mixtures: Corpus, rate: float, windows: int, hop: int) -> None:
    task = Separation(mixtures, SeparationConfig(**SMALL, windows=windows))
    split = round(16000 / hop / rate)
    frames = round(SAMPLES / 16000 * rate)
    found = task.spectra(heard(mixtures, frames, rate), whole=True)
    assert found.mixture.shape == (1, 1 + SAMPLES // hop, 257)
    assert found.lengths.tolist() == [1 + SAMPLES // hop]
    assert found.features.shape[1] == math.ceil((1 + SAMPLES // hop) / split)
    assert task.head(4, rate)(found.features, found.lengths).shape == found.sources.shape
    torch.testing.assert_close(found.sources.sum(1), found.mixture, atol=0.02, rtol=0)  # files have 16 bits


@pytest.mark.parametrize("split", [1, 2])
def test_a_crop_takes_the_windows_of_its_frames(mixtures: Corpus, split: int) -> None:
    task = Separation(mixtures, SeparationConfig(**SMALL, crop_seconds=0.2, windows=50 * split))
    whole = task.spectra(heard(mixtures, 25), whole=True)
    part = task.spectra(heard(mixtures, 10, first=6), whole=False)
    torch.testing.assert_close(part.mixture, whole.mixture[:, 6 * split : 16 * split])
    assert part.lengths.tolist() == [10 * split]
    assert part.features.shape[1] == 10


def test_masks_that_divide_the_spectrum_separate_two_tones(mixtures: Corpus) -> None:
    task = Separation(mixtures, SeparationConfig(**SMALL))

    class Divide(torch.nn.Module):
        def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
            masks = torch.zeros(1, 2, features.shape[1], 257)
            masks[:, 0, :, :32], masks[:, 1, :, 32:] = 1.0, 1.0  # below and above 1 kHz
            return masks

    assert task.evaluate(Divide(), [heard(mixtures, 25)], "test")["SI-SDRi"] > 20
    assert task.evaluate(lambda x, n: torch.ones(1, 2, x.shape[1], 257), [heard(mixtures, 25)], "test")["SI-SDRi"] == pytest.approx(
        0, abs=0.1
    )


def test_a_clip_that_ends_behind_its_last_window_comes_back_whole(mixtures: Corpus, recwarn: pytest.WarningsRecorder) -> None:
    low, high = tones(300, 2000, samples=8300)
    for name, wave in (("mix", low + high), ("low", low), ("high", high)):
        write_wav(mixtures.folder / f"{name}.wav", wave)
    task = Separation(mixtures, SeparationConfig(**SMALL))
    unchanged = task.evaluate(lambda x, n: torch.ones(1, 2, x.shape[1], 257), [heard(mixtures, 26)], "test")
    assert unchanged["SI-SDRi"] == pytest.approx(0, abs=0.1)
    assert [str(warning.message) for warning in recwarn] == []


def test_the_loss_falls_when_two_tones_are_learned(mixtures: Corpus) -> None:
    torch.manual_seed(0)
    task = Separation(mixtures, SeparationConfig(**SMALL))
    head, batch, generator = task.head(4, 50.0), heard(mixtures, 25), torch.Generator()
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        loss = task.loss(head, batch, generator)
        assert int(loss.count) == 1
        optimizer.zero_grad()
        loss.value.backward()
        optimizer.step()
        losses.append(float(loss.value.detach()))
    assert losses[-1] < 0.3 * losses[0]


def test_enhancement_measures_quality_intelligibility_and_gain(tmp_path: Path) -> None:
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    rng = np.random.default_rng(0)
    times = np.arange(32000) / 16000
    clean = 0.2 * np.sin(2 * np.pi * 150 * times) * (1 + np.sin(2 * np.pi * 4 * times)) * rng.normal(1, 0.1, 32000)
    write_wav(tmp_path / "clean.wav", clean)
    write_wav(tmp_path / "noisy.wav", clean + 0.05 * rng.standard_normal(32000))
    (tmp_path / "test.jsonl").write_text('{"id": "a", "audio": "noisy.wav", "clean": "clean.wav"}\n')
    (tmp_path / "task.json").write_text('{"task": "SE", "name": "one"}')
    corpus = Corpus.read(tmp_path)
    task = Enhancement(corpus, EnhancementConfig(**SMALL))
    batch = Heard(torch.zeros(1, 100, 4), torch.tensor([100]), corpus.split("test"), (0,), 50.0)
    found = task.evaluate(lambda x, n: torch.ones(1, 1, x.shape[1], 257), [batch], "test")
    assert list(found) == [metric.name for metric in task.metrics] == ["PESQ", "STOI", "SI-SDRi"]
    assert found["SI-SDRi"] == pytest.approx(0, abs=0.05)
    assert 1.0 < found["PESQ"] < 4.6
    assert 10 < found["STOI"] < 100
    silent = task.evaluate(lambda x, n: torch.zeros(1, 1, x.shape[1], 257), [batch], "test")
    assert silent["PESQ"] == 1.0
    assert silent["SI-SDRi"] < -10


def test_what_does_not_fit_is_named(mixtures: Corpus) -> None:
    task = Separation(mixtures, SeparationConfig(**SMALL))
    with pytest.raises(CorpusError, match="mix has 60 windows by its features and 26 by its sound"):
        task.spectra(heard(mixtures, 60), whole=True)
    with pytest.raises(ValueError, match="a whole number of samples for each frame"):
        task.head(4, 49.3)
    with pytest.raises(ValueError, match="fft: 320; give an even number above 320"):
        SeparationConfig(fft=320)
    with pytest.raises(ValueError, match="fft: 200; give an even number above 200 samples, from one of 80 windows"):
        SeparationConfig(fft=200, windows=80)
    with pytest.raises(ValueError, match="windows: 0; give at least 1"):
        SeparationConfig(windows=0)
    write_wav(mixtures.folder / "high.wav", np.zeros(100, np.float32))
    with pytest.raises(CorpusError, match=r"line 1: high\.wav has 100 samples and .*mix\.wav 8000"):
        task.spectra(heard(mixtures, 25), whole=True)
    row = {"id": "mix", "audio": "mix.wav", "sources": ["low.wav"]}
    (mixtures.folder / "train.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(CorpusError, match="give 2 sound files"):
        task.spectra(heard(Corpus.read(mixtures.folder), 25), whole=True)


def test_the_defaults_are_those_of_the_benchmark() -> None:
    for config in (EnhancementConfig(), SeparationConfig()):
        assert (config.steps, config.batch, config.lr, config.optimizer) == (150_000, 8, 1e-4, "adamw")
        assert (config.hidden, config.layers, config.dropout, config.fft) == (896, 3, 0.5, 512)
    assert math.isclose(EnhancementConfig().clip_norm, 1.0)
