"""HiFi-GAN's generator."""

import pytest
import torch

from avtlm.nn.vocoder import Vocoder, VocoderConfig


def test_the_default_is_the_vocoder_of_speecht5() -> None:
    with torch.device("meta"):
        model = Vocoder(VocoderConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 12_656_257
    assert VocoderConfig().bands == 80
    assert Vocoder(VocoderConfig(width=16)).hop == 256


def test_spectrograms_are_brought_to_zero_mean_and_unit_variance() -> None:
    torch.manual_seed(0)
    model = Vocoder(VocoderConfig(bands=3, width=8, rates=(2, 2), kernels=(4, 4))).eval()
    mel = torch.randn(1, 5, 3)
    before = model(mel)
    assert before.shape == (1, 20)
    model.mean += 2.0
    model.scale *= 3.0
    torch.testing.assert_close(model(3 * mel + 2), before)


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="width 12 cannot be halved 4 times"):
        VocoderConfig(width=12)
    with pytest.raises(ValueError, match="4 rates for 1 kernels"):
        VocoderConfig(kernels=(8,))
