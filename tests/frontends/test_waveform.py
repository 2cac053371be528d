"""The convolution front-end: its lengths, its norms, and that a clip sounds the same in any batch (values: tests/test_golden.py)."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from avtlm.frontends.waveform import WaveformConfig, WaveformFrontEnd, normalise_waveform

CONFIG = WaveformConfig(widths=(6,) * 7, dropout=0.0)


def front_end(**changes: object) -> WaveformFrontEnd:
    torch.manual_seed(0)
    model = WaveformFrontEnd(replace(CONFIG, **changes), 4)  # type: ignore[arg-type]
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.3)
    return model.eval()


def waves(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_a_frame_every_20_ms_sees_25_ms() -> None:
    config = WaveformConfig()
    assert (config.hop, config.receptive_field, config.frame_rate) == (320, 400, 50.0)
    samples = torch.tensor([0, 399, 400, 719, 720, 16000])
    assert config.frames(samples).tolist() == [0, 0, 1, 1, 2, 49]


@pytest.mark.parametrize("samples", [400, 719, 720, 4321])
def test_the_lengths_that_are_computed_are_those_of_the_convolutions(samples: int) -> None:
    model = front_end()
    counted = CONFIG.frames(torch.tensor(samples))
    assert model.convolve(waves(1, samples), torch.tensor([samples])).shape == (1, int(counted), 6)


def test_the_two_rules_for_padding_differ_by_a_frame() -> None:
    lengths = torch.tensor([18500, 13700])
    assert CONFIG.valid_frames(lengths, 18500, 57).tolist() == [57, 42]
    assert replace(CONFIG, frame_padding="samples").valid_frames(lengths, 18500, 57).tolist() == [57, 43]
    # By the second rule 41 of these frames are left when only 55 of 57 have units.
    assert replace(CONFIG, frame_padding="samples").valid_frames(lengths, 18500, 55).tolist() == [55, 41]


@pytest.mark.parametrize("samples", [300, 1000, 13700])
def test_a_frame_is_padding_by_the_second_rule_when_all_its_samples_are(samples: int) -> None:
    total, frames = 18500, 57
    padding = (torch.arange(total - total % frames) >= samples).view(frames, -1).all(1)
    found = replace(CONFIG, frame_padding="samples").valid_frames(torch.tensor([samples]), total, frames)
    assert found.item() == (~padding).sum().item()


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("bias", [False, True])
def test_frames_of_a_clip_do_not_depend_on_its_batch(norm: str, bias: bool) -> None:
    model = front_end(norm=norm, bias=bias)
    wave, lengths = waves(2, 3000), torch.tensor([3000, 1700])
    wave[1, 1700:] = 0.0
    together = model(model.convolve(wave, lengths))[1]
    for row, length in enumerate(lengths.tolist()):
        alone = model(model.convolve(wave[row : row + 1, :length], lengths[row : row + 1]))[1][0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-5, rtol=1e-4)


def test_the_official_statistics_over_padding_can_be_had() -> None:
    model, official = front_end(), front_end(compute_padding=True)
    wave, lengths = waves(2, 3000), torch.tensor([3000, 1700])
    wave[1, 1700:] = 0.0
    ours, theirs = (each.convolve(wave, lengths)[1, :4] for each in (model, official))
    assert not torch.allclose(ours, theirs, atol=1e-2)
    expected = model.layers[0].norm(model.layers[0].conv(wave[..., None]).transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(official.layers[0](wave[..., None], None), torch.nn.functional.gelu(expected))


def test_gradients_into_the_convolutions_are_scaled_or_absent() -> None:
    wave, lengths, found = waves(1, 1200), torch.tensor([1200]), {}
    for scale in (1.0, 0.1, 0.0):
        model = front_end()
        model(model.convolve(wave, lengths, scale))[1].square().sum().backward()
        found[scale] = model.layers[2].conv.weight.grad
        assert model.project.weight.grad is not None
    assert found[0.0] is None
    torch.testing.assert_close(found[0.1], 0.1 * found[1.0])


def test_a_clip_shorter_than_one_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"399 samples are fewer than the 400 of one frame \(25 ms\)"):
        front_end().convolve(waves(1, 399), torch.tensor([399]))


def test_equal_widths_need_no_projection() -> None:
    assert isinstance(WaveformFrontEnd(replace(CONFIG, project_always=False), 6).project, torch.nn.Identity)
    assert isinstance(WaveformFrontEnd(CONFIG, 6).project, torch.nn.Linear)


def test_a_normalised_waveform_has_mean_0_and_variance_1() -> None:
    wave = normalise_waveform(3.0 + 5.0 * waves(4000))
    assert wave.mean().item() == pytest.approx(0.0, abs=1e-4)
    assert wave.var(correction=0).item() == pytest.approx(1.0, abs=1e-4)
    assert normalise_waveform(torch.zeros(500)).abs().max() == 0


def test_sizes_have_to_agree() -> None:
    with pytest.raises(ValueError, match="widths, kernels, strides: 7, 7, 1 of them"):
        replace(CONFIG, strides=(2,))
