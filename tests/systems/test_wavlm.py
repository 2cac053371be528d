"""WavLM's overlapped speech."""

from dataclasses import replace

import pytest
import torch

from avtlm.systems.wavlm import WavLMConfig
from tests.systems.speech_models import LENGTHS, WAVEFORM, batch, tiny


def test_at_most_half_of_a_clip_is_overlapped_and_nothing_beyond_its_end() -> None:
    model, whole = tiny("wavlm", overlap=1.0), batch()
    for seed in range(10):
        mixed = model.overlapped(whole, torch.Generator().manual_seed(seed))
        for row, length in enumerate(LENGTHS):
            changed = torch.nonzero(mixed.audio[row] != whole.audio[row]).flatten()
            assert 0 < len(changed) <= length // 2
            assert changed[-1] - changed[0] + 1 <= length // 2
            assert changed[-1] < length
    assert torch.equal(mixed.targets["units"], whole.targets["units"])


def test_what_overlaps_a_clip_is_as_loud_as_asked_for() -> None:
    model = tiny("wavlm", overlap=1.0, overlap_snr=(10.0, 10.0))
    whole = batch((8000, 8000))
    loud = replace(whole, audio=torch.stack([whole.audio[0], 50 * whole.audio[1]]))
    mixed = model.overlapped(loud, torch.Generator().manual_seed(0))
    added = (mixed.audio - loud.audio)[0]
    there = added != 0
    ratio = loud.audio[0].square().mean() / added[there].square().mean()
    assert 10 * torch.log10(ratio).item() == pytest.approx(10.0, abs=1.0)


def test_overlapped_waveforms_stay_normalised_where_the_model_wants_them_so() -> None:
    model = tiny("wavlm", overlap=1.0, overlap_snr=(-20.0, -20.0), waveform=replace(WAVEFORM, normalise=True))
    mixed = model.overlapped(batch(), torch.Generator().manual_seed(0))
    for row, length in enumerate(LENGTHS):
        assert mixed.audio[row, :length].std().item() == pytest.approx(1.0, abs=0.01)


def test_clips_are_overlapped_in_training_alone_and_only_with_others() -> None:
    masked = []
    for training, overlap, rows in ((True, 1.0, 3), (True, 0.0, 3), (False, 1.0, 3)):
        model = tiny("wavlm", overlap=overlap).train(training)
        masked.append(model.losses(batch() if rows == 3 else batch((8000,)), torch.Generator().manual_seed(0))["masked_prediction"].value)
    assert masked[0] != masked[1]
    assert masked[1] == masked[2]
    single = [tiny("wavlm", overlap=overlap).train().losses(batch((8000,)), torch.Generator().manual_seed(0)) for overlap in (0.0, 1.0)]
    assert single[0]["masked_prediction"].value == single[1]["masked_prediction"].value


def test_silence_overlaps_without_harm() -> None:
    whole = batch((8000, 8000))
    silent = replace(whole, audio=torch.stack([whole.audio[0], torch.zeros(8000)]))
    assert tiny("wavlm", overlap=1.0).overlapped(silent, torch.Generator().manual_seed(0)).audio.isfinite().all()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="give a share from 0 to 1"):
        WavLMConfig(overlap=1.5)
    with pytest.raises(ValueError, match="the lower bound first"):
        WavLMConfig(overlap_snr=(5.0, -5.0))
