"""Log mel spectrograms for synthesis."""

import pytest
import torch

from avtlm.frontends.mel import BANDS, log_mel, mel_bands, mel_frames


def test_silence_is_minus_ten_in_every_band() -> None:
    assert torch.equal(log_mel(torch.zeros(4000)), torch.full((mel_frames(4000), BANDS), -10.0))


def test_a_tone_is_loudest_in_the_band_around_it() -> None:
    wave = torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)
    loudest = log_mel(wave)[20].argmax()
    assert mel_bands()[loudest, round(1000 * 1024 / 16000)] == mel_bands()[:, round(1000 * 1024 / 16000)].max()


def test_ten_times_louder_is_one_more() -> None:
    wave = 0.01 * torch.randn(5000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_mel(10 * wave), log_mel(wave) + 1.0, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("wave", [torch.zeros(512), torch.zeros(2, 4000)])
def test_clips_that_cannot_be_reflected_are_refused(wave: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"give one channel of more than 512 samples \(32 ms\)"):
        log_mel(wave)
