"""Audio features: frames, silence, scale and normalisation (equality with python_speech_features and AV-HuBERT: tests/test_golden.py)."""

import numpy as np
import pytest
import torch

from avtlm.frontends.filterbank import (
    audio_features,
    frame_count,
    log_filterbank,
    match_length,
    mel_filters,
    normalise_frames,
    normalise_utterance,
)


def test_frame_counts_at_the_edges() -> None:
    assert [frame_count(n) for n in (1, 399, 400, 401, 560, 561, 640, 641, 16000)] == [1, 1, 1, 2, 2, 3, 3, 3, 99]
    for n in (1, 400, 401, 561):
        assert len(log_filterbank(torch.ones(n))) == frame_count(n)


def test_digital_silence_gives_the_logarithm_of_the_smallest_step_and_normalises_to_zero() -> None:
    features = log_filterbank(torch.zeros(1600, dtype=torch.int16))
    assert features.unique().tolist() == pytest.approx([-36.0437], abs=1e-3)
    assert normalise_frames(features).abs().max() == 0
    assert audio_features(torch.zeros(1600), 5).isfinite().all()


def test_complete_frames_do_not_depend_on_the_scale_of_the_waveform() -> None:
    wave = torch.randint(-20000, 20000, (16000,), generator=torch.Generator().manual_seed(0))
    whole, scaled = audio_features(wave), audio_features(wave / 32768)
    torch.testing.assert_close(whole[:-1], scaled[:-1], atol=1e-5, rtol=0)


def test_appended_vectors_stay_zero() -> None:
    padded = audio_features(torch.ones(640), 3)
    assert padded.shape == (3, 104)
    assert padded[1:].abs().max() == 0
    assert match_length(torch.ones(5, 2), 3).shape == (3, 2)


def test_normalisation_over_the_utterance_keeps_differences_of_loudness() -> None:
    features = torch.randn(50, 104) * 3 + torch.linspace(0, 5, 50)[:, None]
    out = normalise_utterance(features)
    torch.testing.assert_close(out.mean(0), torch.zeros(104), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(0, unbiased=False), torch.ones(104), atol=1e-2, rtol=0)
    assert out[40:].mean() > out[:10].mean() + 1
    assert normalise_utterance(torch.ones(1, 104)).abs().max() == 0


def test_filters_are_triangles_and_a_warp_moves_them_up() -> None:
    filters, warped = mel_filters(), mel_filters(1.08)
    assert filters.shape == (257, 26)
    assert filters.max() == 1.0
    assert filters.min() == 0.0
    bins = torch.arange(257, dtype=torch.float64)[:, None]
    centres = [(f * bins).sum(0) / f.sum(0) for f in (filters, warped)]
    assert bool((centres[1] > centres[0])[3:-1].all())


@pytest.mark.parametrize("wave", [torch.zeros(0), torch.zeros(2, 400)])
def test_what_is_no_waveform_is_refused(wave: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="give one non-empty channel"):
        log_filterbank(wave)


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match="audio_normalise: 'batch' is unknown"):
        audio_features(torch.from_numpy(np.ones(800, np.int16)), None, "batch")
