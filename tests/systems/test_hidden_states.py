"""Every system that hears gives all of its hidden states in one pass, and the last of them is what `encode` gives."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from avtlm.data.batching import Batch
from avtlm.protocols import ShowsLayers
from tests.made_model import tiny_recognizer
from tests.systems import bridge_models, heard_models, mandarin_models, sequence_models, speech_models, test_multistage

LENGTHS = (8000, 6000)


def waveforms() -> Batch:
    generator = torch.Generator().manual_seed(3)
    audio = 0.1 * torch.randn(2, LENGTHS[0], generator=generator)
    audio[1, LENGTHS[1] :] = 0.0
    return Batch(("a", "b"), "audio", audio, torch.tensor(LENGTHS))


MODELS: dict[str, Callable[[], Any]] = {
    **{name: (lambda name=name: speech_models.tiny(name)) for name in speech_models.CONFIGS},  # type: ignore[misc]
    "speecht5": sequence_models.speecht5,
    "speech2c": sequence_models.speech2c,
    "mmspeech": mandarin_models.mmspeech,
    "multistage": lambda: test_multistage.model().eval(),
    "mt2kd": heard_models.tiny_model,
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_last_hidden_state_is_what_the_encoder_gives(name: str) -> None:
    model = MODELS[name]()
    assert isinstance(model, ShowsLayers)
    states, lengths = model.hidden_states(waveforms())
    encoded, valid = model.encode(waveforms())  # type: ignore[attr-defined]
    assert torch.equal(lengths, valid)
    assert {state.shape for state in states} == {encoded.shape}
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(states[-1][row, :length], encoded[row, :length])


@torch.no_grad()
def test_layers_come_in_order_and_start_with_what_enters_the_first() -> None:
    model = speech_models.tiny("hubert")
    states, lengths = model.hidden_states(waveforms())
    assert len(states) == 1 + model.config.encoder.layers
    for layer in range(1, len(states)):
        encoded, _ = model.encode(waveforms(), output_layer=layer)
        torch.testing.assert_close(states[layer][0, : lengths[0]], encoded[0, : lengths[0]])


@torch.no_grad()
def test_an_audio_visual_encoder_hears_alone() -> None:
    encoder: Any = tiny_recognizer().encoder
    generator = torch.Generator().manual_seed(0)
    batch = Batch(("a",), "audio", torch.randn(1, 20, 104, generator=generator), torch.tensor([20]))
    states, lengths = encoder.hidden_states(batch)
    assert len(states) == 2
    assert lengths.tolist() == [20]
    torch.testing.assert_close(states[-1], encoder.encode(batch)[0])


@torch.no_grad()
def test_stacks_of_a_zipformer_come_at_the_rate_and_width_of_its_output() -> None:
    model = heard_models.tiny_model()
    states, _ = model.hidden_states(waveforms())
    assert len(states) == len(model.config.encoder.layers) + 1
    first, narrow = states[0], model.config.encoder.dims[0]
    assert first.shape[2] > narrow
    assert not first[..., narrow:].any()


@torch.no_grad()
def test_both_encoders_of_speechlm_are_there() -> None:
    model = bridge_models.speechlm()
    states, _ = model.hidden_states(waveforms())
    assert len(states) == model.config.encoder.layers + model.config.unit_encoder.layers
