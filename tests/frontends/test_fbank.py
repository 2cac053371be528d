import math

import pytest
import torch

from avtlm.frontends.fbank import PADDING, batch_fbank, fbank, fbank_frames


def noise(samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))


@pytest.mark.parametrize("samples", [400, 479, 480, 1600, 16001])
def test_a_clip_has_a_frame_for_every_ten_milliseconds_rounded(samples: int) -> None:
    assert fbank(noise(samples)).shape == (fbank_frames(samples), 80)
    assert fbank_frames(samples) == round(samples / 160 + 1e-9)


def test_silence_is_the_logarithm_of_the_smallest_energy() -> None:
    torch.testing.assert_close(fbank(torch.zeros(1600)), torch.full((10, 80), math.log(torch.finfo(torch.float32).eps)))


def test_batches_hold_every_clip_by_itself_and_quieter_than_silence_behind_it() -> None:
    waves = torch.stack([noise(3200), torch.cat([noise(1600), torch.ones(1600)])])
    features, lengths = batch_fbank(waves, torch.tensor([3200, 1600]), least=25)
    assert features.shape == (2, 25, 80)
    assert lengths.tolist() == [20, 10]
    torch.testing.assert_close(features[1, :10], fbank(noise(1600)))
    assert bool((features[1, 10:] == PADDING).all())
    assert round(PADDING, 2) == -23.03


def test_what_is_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 400 samples"):
        fbank(noise(399))


def test_trainings_in_bfloat16_hear_the_same() -> None:
    waves, lengths = noise(3200)[None], torch.tensor([3200])
    plain = batch_fbank(waves, lengths)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(batch_fbank(waves, lengths)[0], plain)
