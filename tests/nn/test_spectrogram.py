"""Spectrograms into and out of a decoder."""

from dataclasses import replace

import pytest
import torch

from avtlm.nn.spectrogram import SpectrogramConfig, SpectrogramHead, SpectrogramPrenet, shift_frames

CONFIG = SpectrogramConfig(bands=4, prenet_width=6, voice_dim=3, postnet_layers=3, postnet_width=5, postnet_dropout=0.0)


def test_a_step_reads_the_last_frame_that_the_step_before_wrote() -> None:
    mel = torch.arange(1.0, 8.0).view(1, 7, 1)
    assert shift_frames(mel, 2).flatten().tolist() == [0.0, 2.0, 4.0]
    assert shift_frames(mel, 1).flatten().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_dropout_before_the_decoder_never_ends_and_can_be_given() -> None:
    torch.manual_seed(0)
    prenet = SpectrogramPrenet(CONFIG, 8).eval()
    frames = torch.randn(2, 5, 4)
    assert not torch.equal(prenet.read(frames), prenet.read(frames))
    keep = prenet.draw(2, 5, torch.Generator().manual_seed(0))
    assert torch.equal(prenet.read(frames, keep), prenet.read(frames, keep))
    assert 0.2 < keep.float().mean() < 0.8


def test_only_the_direction_of_a_voice_counts_and_its_width_is_checked() -> None:
    prenet = SpectrogramPrenet(CONFIG, 8).eval()
    x, voice = torch.randn(2, 5, 8), torch.randn(2, 3)
    torch.testing.assert_close(prenet.speak(x, voice), prenet.speak(x, 7 * voice))
    with pytest.raises(ValueError, match="voice: one of 4 values, but the model takes a speaker embedding of 3 values"):
        prenet.speak(x, torch.randn(2, 4))


@pytest.mark.parametrize("training", [False, True])
def test_frames_behind_the_end_of_a_row_change_nothing_in_it(training: bool) -> None:
    torch.manual_seed(0)
    head = SpectrogramHead(CONFIG, 8).train(training)
    x = torch.randn(2, 6, 8)
    steps = torch.tensor([6, 4])
    first = head(x, steps)
    x[1, 4:] = 9.0
    second = head(x, steps)
    assert torch.equal(first.after[0], second.after[0])
    assert torch.equal(first.after[1, :8], second.after[1, :8])


def test_convolutions_may_have_no_norms_or_not_be_there() -> None:
    plain = SpectrogramHead(replace(CONFIG, postnet_norm=False), 8)
    assert not any(name.startswith("norms.") for name in plain.state_dict())
    x = torch.randn(2, 3, 8)
    expected = plain.write(x)[0].transpose(1, 2)
    before = expected
    for index, conv in enumerate(plain.convolutions):
        expected = conv(expected) if index == 2 else conv(expected).tanh()
    torch.testing.assert_close(plain(x).after, (before + expected).transpose(1, 2))
    bare = SpectrogramHead(replace(CONFIG, postnet_layers=0), 8)
    assert torch.equal(bare(x).after, bare(x).before)


def test_what_is_written_may_relate_to_what_is_heard() -> None:
    settings = {writes: replace(CONFIG, reduction=1, writes=writes) for writes in ("frames", "mask", "difference")}
    torch.manual_seed(0)
    head, source, x = SpectrogramHead(settings["frames"], 8).eval(), torch.randn(2, 3, 4), torch.randn(2, 3, 8)
    plain = head(x, source=source)
    for writes, before, after in (
        ("mask", plain.before.sigmoid() * source, plain.after.sigmoid() * source),
        ("difference", plain.before - source, plain.after - source),
    ):
        other = SpectrogramHead(settings[writes], 8).eval()
        other.load_state_dict(head.state_dict())
        found = other(x, source=source)
        torch.testing.assert_close(found.before, before)
        torch.testing.assert_close(found.after, after)
        torch.testing.assert_close(found.stop, plain.stop)


def test_sinusoids_may_have_no_factor() -> None:
    prenet = SpectrogramPrenet(replace(CONFIG, scaled_positions=False, voice_dim=0, position_dropout=0.0), 8)
    assert "positions.scale" not in prenet.state_dict()
    frames, keep = torch.randn(2, 5, 4), torch.ones(2, 1, 1, 6, dtype=torch.bool)
    places = SpectrogramPrenet(CONFIG, 8).positions(torch.arange(5))
    torch.testing.assert_close(prenet(frames, None, keep=keep), 8**0.5 * prenet.read(frames, keep) + places)


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="reads written, writes mask, reduction 2; it has to be 1 then"):
        SpectrogramConfig(writes="mask")
    with pytest.raises(ValueError, match="postnet_kernel 4 is even"):
        SpectrogramConfig(postnet_kernel=4)
    with pytest.raises(ValueError, match="reduction 0"):
        SpectrogramConfig(reduction=0)
