"""Adapters behind layers and behind the encoder (equality with transformers: python -m benchmarks.parity over cases of such models)."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from avtlm.nn.adapters import LayerAdapter, LengthAdapter, LengthAdapterConfig
from avtlm.nn.transformer import Encoder, EncoderConfig
from tests.systems.speech_models import ENCODER, alone, batch, tiny

SMALL = EncoderConfig(dim=16, layers=2, heads=4, feed_forward_dim=24, position_kernel=6, position_groups=4, adapter_dim=3)


def test_a_layers_adapter_is_added_to_what_the_layer_puts_out() -> None:
    torch.manual_seed(0)
    model, x = Encoder(SMALL).eval(), torch.randn(1, 7, 16)
    plain = Encoder(replace(SMALL, adapter_dim=0)).eval()
    plain.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if ".adapter." not in name})
    layer = model.layers[0]
    assert isinstance(layer.adapter, LayerAdapter)
    with torch.no_grad():
        first = plain.hidden_states(x, None)[1]
        norm, expand, contract = layer.adapter.norm, layer.adapter.expand, layer.adapter.contract
        expected = first + contract(F.relu(expand(F.layer_norm(first, (16,), norm.weight, norm.bias))))
        torch.testing.assert_close(model.hidden_states(x, None)[1], expected)


@pytest.mark.parametrize("changes", [{}, {"dim": 6}, {"layers": 1, "kernel": 5, "stride": 3}, {"stride": 1, "kernel": 3}])
def test_a_length_adapter_leaves_every_stride_th_frame_whatever_the_batch(changes: dict[str, int]) -> None:
    torch.manual_seed(0)
    config = LengthAdapterConfig(**changes)
    model, x, lengths = LengthAdapter(config, 8), torch.randn(3, 29, 8), torch.tensor([29, 16, 1])
    together, counted = model(x, lengths)
    expected = lengths
    for _ in range(config.layers):
        expected = (expected - 1) // config.stride + 1
    assert counted.tolist() == expected.clamp(max=together.shape[1]).tolist()
    assert together.shape[2] == model.dim == (config.dim or 8)
    for row in (0, 1):
        found, _ = model(x[row : row + 1, : lengths[row]], lengths[row : row + 1])
        frames = min(found.shape[1], int(counted[row]))
        torch.testing.assert_close(found[0, :frames], together[row, :frames], atol=1e-5, rtol=1e-5)
    official, _ = LengthAdapter(config, 8, compute_padding=True)(x, lengths)
    assert official.shape == together.shape


def test_a_speech_encoder_with_an_adapter_gives_fewer_frames_of_another_width() -> None:
    model = tiny("hubert", adapter=LengthAdapterConfig(12, 2))
    together, lengths = model.encode(batch())
    assert (together.shape[1:], lengths.tolist(), model.dim) == ((6, 12), [6, 4, 5], 12)
    found, counted = model.encode(alone(batch(), 1))
    assert counted.tolist() == [4]
    torch.testing.assert_close(found[0], together[1, :4], atol=1e-4, rtol=1e-4)
    layer, frames = model.encode(batch(), 1)
    assert (layer.shape[2], frames.tolist()) == (ENCODER.dim, [24, 14, 18])


def test_impossible_adapters_are_refused() -> None:
    with pytest.raises(ValueError, match="give at least 1 of each"):
        LengthAdapterConfig(stride=0)
