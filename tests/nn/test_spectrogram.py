"""Spectrograms into and out of a decoder."""

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


def test_settings_without_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="postnet_kernel 4 is even"):
        SpectrogramConfig(postnet_kernel=4)
    with pytest.raises(ValueError, match="reduction 0"):
        SpectrogramConfig(reduction=0)
