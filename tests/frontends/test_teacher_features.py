import torch

from avtlm.frontends.teacher_features import beats_filterbank, speaker_filterbank, speaker_filters, whisper_filters, whisper_log_mel


def noise(samples: int) -> torch.Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(0))


def test_whispers_spectrogram_has_a_frame_for_every_ten_milliseconds_and_eight_decades() -> None:
    found = whisper_log_mel(torch.cat([noise(8000), torch.zeros(8000)])[None])
    assert found.shape == (1, 80, 100)
    assert whisper_log_mel(noise(1600)[None], 128).shape == (1, 128, 10)
    torch.testing.assert_close(found.max() - found.min(), torch.tensor(2.0))


def test_filters_of_whisper_have_equal_areas_and_those_of_the_speaker_model_equal_heights() -> None:
    areas = whisper_filters(80)[40:].sum(1) * 40.0  # Hz of a bin
    torch.testing.assert_close(areas, torch.ones(40), atol=0.1, rtol=0)
    assert speaker_filters().shape == (201, 80)
    assert float(speaker_filters().max()) <= 1.0


def test_features_of_the_speaker_model_have_mean_zero_whatever_the_loudness() -> None:
    found = speaker_filterbank(noise(4800))
    assert found.shape == (31, 80)
    torch.testing.assert_close(found.mean(0), torch.zeros(80), atol=1e-4, rtol=0)
    torch.testing.assert_close(speaker_filterbank(0.5 * noise(4800)), found, atol=1e-3, rtol=0)


def test_features_of_beats_are_about_as_large_as_their_norms() -> None:
    found = beats_filterbank(noise(4800))
    assert found.shape == (28, 128)
    assert float(found.abs().mean()) < 2.0
