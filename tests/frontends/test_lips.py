"""The lip encoder, which computes no padded frames, equals a plain padded computation (and the official one: tests/test_golden.py)."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.frontends.lips import LipEncoder, LipEncoderConfig, normalise_grey

SMALL = LipEncoderConfig(size=24, stem_channels=4, widths=(4, 6), blocks=(1, 2), strides=(1, 2))
FLAT = LipEncoderConfig(size=22, stem_channels=4, stem_stride=4, stem_pool=False, widths=(6,), blocks=(1,), strides=(2,), reduce="flatten")


def small(config: LipEncoderConfig = SMALL) -> LipEncoder:
    torch.manual_seed(0)
    model = LipEncoder(config)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.eval()


def clips(*lengths: int, size: int = 24) -> tuple[Tensor, Tensor]:
    """Float crops, zero where padded."""
    video = torch.randn(len(lengths), max(lengths), size, size, generator=torch.Generator().manual_seed(1))
    for row, n in enumerate(lengths):
        video[row, n:] = 0.0
    return video, torch.tensor(lengths)


def padded_computation(model: LipEncoder, video: Tensor) -> Tensor:
    """What the paper's picture says: convolve the padded batch, then run the ResNet over every frame of it."""
    x = model.stem_activation(model.stem_norm(F.conv3d(video[:, None], model.stem.weight, None, model.stem.stride, model.stem.padding)))
    batch, _, frames = x.shape[:3]
    x = x.transpose(1, 2).flatten(0, 1)
    if model.config.stem_pool:
        x = F.max_pool2d(x, 3, 2, 1)
    for stage in model.stages:
        x = stage(x)
    x = x.flatten(1) if model.config.reduce == "flatten" else x.mean((2, 3))
    return x.unflatten(0, (batch, frames))


@pytest.mark.parametrize("config", [SMALL, FLAT], ids=["average", "flatten"])
@pytest.mark.parametrize("lengths", [(7, 3, 5), (4, 4), (1, 6), (2,)])
def test_encoding_end_to_end_equals_the_padded_computation(config: LipEncoderConfig, lengths: tuple[int, ...]) -> None:
    model = small(config)
    video, counts = clips(*lengths, size=config.size)
    with torch.no_grad():
        ours, plain = model(video, counts), padded_computation(model, video)
    assert ours.shape == (len(lengths), max(lengths), config.output_dim)
    for row, n in enumerate(lengths):
        torch.testing.assert_close(ours[row, :n], plain[row, :n], atol=1e-5, rtol=1e-5)
        assert ours[row, n:].abs().sum() == 0


def test_a_clip_gives_the_same_alone_and_in_a_padded_batch() -> None:
    model = small()
    video, lengths = clips(9, 4, 6)
    with torch.no_grad():
        together = model(video, lengths)
        for row, n in enumerate(lengths.tolist()):
            alone = model(video[row : row + 1, :n], lengths[row : row + 1])
            torch.testing.assert_close(together[row, :n], alone[0], atol=1e-6, rtol=1e-6)


def test_what_lies_in_the_padding_does_not_matter() -> None:
    model = small()
    video, lengths = clips(6, 3)
    spoilt = video.clone()
    spoilt[1, 3:] = 100.0
    assert torch.equal(model(video, lengths), model(spoilt, lengths))


def test_clips_without_frames_are_zero_and_harm_nobody() -> None:
    model = small()
    video, lengths = clips(5, 2)
    expected = model(video, lengths)
    wide = torch.cat([video[:1], torch.zeros(1, 5, 24, 24), video[1:]])
    out = model(wide, torch.tensor([5, 0, 2]))
    torch.testing.assert_close(out[[0, 2]], expected, atol=1e-6, rtol=1e-6)
    assert out[1].abs().sum() == 0


def test_batch_norms_learn_from_true_frames_only() -> None:
    model, twin = small().train(), small().train()
    video, lengths = clips(6, 2)
    model(video, lengths)
    longer = torch.cat([video, torch.zeros(2, 5, 24, 24)], 1)
    twin(longer, lengths)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, dict(twin.named_buffers())[name], msg=name)


def test_grey_values_are_normalised_as_official_and_floats_are_left_alone() -> None:
    grey = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(normalise_grey(grey), (grey.float() / 255 - 0.421) / 0.165, atol=1e-5, rtol=0)
    floats = torch.randn(3, 8, 8)
    assert normalise_grey(floats) is floats


def test_uint8_crops_give_what_normalised_floats_give() -> None:
    model = small()
    grey = torch.randint(0, 256, (2, 5, 24, 24), dtype=torch.uint8)
    lengths = torch.tensor([5, 3])
    with torch.no_grad():
        assert torch.equal(model(grey, lengths), model(normalise_grey(grey), lengths))


def test_the_default_is_the_official_size() -> None:
    model = LipEncoder(LipEncoderConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_186_688
    assert model.output_dim == 512
    assert model.config.map_size == 3


def test_widths_blocks_and_strides_must_agree() -> None:
    with pytest.raises(ValueError, match="widths, blocks, strides: 2, 4 and 4 entries"):
        LipEncoderConfig(widths=(8, 16))
