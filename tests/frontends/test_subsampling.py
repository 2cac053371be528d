"""The filter bank and the convolutions of MMSpeech: what it is computed like, lengths, and independence of the batch."""

import math

import pytest
import torch

from avtlm.frontends.subsampling import (
    LEAST_SAMPLES,
    SubsamplingConfig,
    SubsamplingFrontEnd,
    clip_features,
    fbank_frames,
    kaldi_filterbank,
    normalise_bands,
    shortened,
)


def wave(samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.rand(samples, generator=generator) - 0.15


def front_end(**changes: object) -> SubsamplingFrontEnd:
    torch.manual_seed(0)
    return SubsamplingFrontEnd(SubsamplingConfig(**changes), 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("samples", [399, 400, 559, 560, 16000])
def test_the_filter_bank_has_a_frame_for_every_whole_window(samples: int) -> None:
    assert kaldi_filterbank(wave(samples)).shape == (fbank_frames(samples), 80)


def test_a_tone_is_loudest_in_its_band() -> None:
    time = torch.arange(16000) / 16000
    low, high = (kaldi_filterbank(10000 * torch.sin(2 * torch.pi * hertz * time)).mean(0).argmax() for hertz in (300.0, 3000.0))
    assert 5 < int(low) < 20 < int(high) < 65


def test_bands_have_mean_0_and_variance_1_over_the_clip() -> None:
    features = normalise_bands(kaldi_filterbank(32768 * wave(16000)))
    assert float(features.mean(0).abs().max()) < 1e-3
    assert features.std(0, unbiased=False).tolist() == pytest.approx([1.0] * 80, abs=1e-2)
    assert bool(clip_features(torch.zeros(16000), SubsamplingConfig()).isfinite().all())


def test_how_loud_a_clip_is_does_not_matter() -> None:
    clip, settings = wave(8000), SubsamplingConfig()
    torch.testing.assert_close(clip_features(clip, settings), clip_features(0.01 * clip, settings), atol=2e-3, rtol=1e-3)
    other = SubsamplingConfig(full_scale=False, normalise=False)
    assert not torch.allclose(clip_features(clip, other), clip_features(0.01 * clip, other), atol=1.0)


def test_frames_of_a_clip_do_not_depend_on_its_batch() -> None:
    model = front_end()
    short, long = wave(9000, 1), wave(16000, 2)
    alone, [count] = model(*model.features(short[None], torch.tensor([9000])))
    batch = torch.stack([torch.nn.functional.pad(short, (0, 7000)), long])
    together, counts = model(*model.features(batch, torch.tensor([9000, 16000])))
    assert counts.tolist() == [int(count), together.shape[1]]
    torch.testing.assert_close(together[0, :count], alone[0])


@pytest.mark.parametrize("frames", [0, 1, 6, 7, 8, 57, 58, 59, 60, 61])
def test_valid_frames_are_those_that_see_no_padding_unless_counted_as_officially(frames: int) -> None:
    lengths = torch.tensor([frames])
    assert SubsamplingConfig().valid_frames(lengths, 100).tolist() == [shortened(frames)]
    official = SubsamplingConfig(official_lengths=True).valid_frames(lengths, 100).item()
    assert official == math.ceil(math.ceil(frames / 2) / 2)
    assert SubsamplingConfig(official_lengths=True).valid_frames(lengths, shortened(frames)).item() == shortened(frames)


def test_the_shortest_clip_gives_one_frame_and_a_shorter_one_none() -> None:
    model = front_end()
    for samples, expected in ((LEAST_SAMPLES, 1), (LEAST_SAMPLES - 1, 0), (10, 0)):
        frames, counts = model(*model.features(wave(samples)[None], torch.tensor([samples])))
        assert counts.tolist() == [expected]
        assert frames.shape == (1, 1, 8)


def test_wrong_shapes_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="give one channel"):
        kaldi_filterbank(torch.zeros(2, 800))
    with pytest.raises(ValueError, match="bands: 6 are too few"):
        SubsamplingConfig(bands=6)
