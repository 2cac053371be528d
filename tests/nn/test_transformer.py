"""Encoder and decoder: what they compute, and that neither padding nor stepping changes it."""

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.nn.attention import padding_mask
from avtlm.nn.positions import LearnedPositions, PositionalConvolution, SinusoidalPositions
from avtlm.nn.transformer import Decoder, DecoderConfig, Encoder, EncoderConfig, EncoderLayer

ENCODER = EncoderConfig(dim=16, layers=3, heads=4, feed_forward_dim=24, position_kernel=6, position_groups=4)
DECODER = DecoderConfig(dim=16, layers=2, heads=4, feed_forward_dim=24)
VOCABULARY = 11


def frames(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def encoder(config: EncoderConfig = ENCODER) -> Encoder:
    torch.manual_seed(0)
    model = Encoder(config)
    for parameter in model.parameters():  # norms and biases off their start values, so that leaving one out shows
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    return model.eval()


def decoder(config: DecoderConfig = DECODER, memory_dim: int | None = None) -> Decoder:
    torch.manual_seed(0)
    model = Decoder(config, VOCABULARY, memory_dim)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    return model.eval()


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoding_of_a_row_does_not_depend_on_its_batch(norm_first: bool) -> None:
    model = encoder(replace(ENCODER, norm_first=norm_first))
    x = frames(3, 9, 16)
    lengths = torch.tensor([9, 4, 1])
    together = model(x, lengths)
    for row, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(together[row, :n], model(x[row : row + 1, :n], None)[0], atol=1e-5, rtol=1e-5)


def test_what_lies_in_the_padding_does_not_matter() -> None:
    model, lengths = encoder(), torch.tensor([9, 4])
    x, y = frames(2, 9, 16), frames(2, 9, 16, seed=1)
    valid = ~padding_mask(lengths, 9)
    y[valid] = x[valid]
    assert torch.equal(model(x, lengths)[valid], model(y, lengths)[valid])


def test_a_row_without_frames_gives_no_nan() -> None:
    model = encoder()
    x = frames(2, 5, 16).requires_grad_()
    out = model(x, torch.tensor([5, 0]))
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_intermediate_layers_pass_no_final_norm_and_the_whole_stack_does() -> None:
    model, x = encoder(), frames(2, 7, 16)
    states = model.hidden_states(x, None)
    assert len(states) == 4
    for layer in (1, 2):
        assert torch.equal(model(x, None, output_layer=layer), states[layer])
    last = model(x, None, output_layer=3)
    assert torch.equal(model.norm(last), model(x, None))
    assert torch.equal(model(x, None), states[-1])
    assert not torch.equal(last, model(x, None))


def test_a_post_norm_encoder_ends_in_its_last_layer() -> None:
    model, x = encoder(replace(ENCODER, norm_first=False)), frames(2, 7, 16)
    assert torch.equal(model(x, None, output_layer=3), model(x, None))
    assert torch.equal(model.hidden_states(x, None)[0], model.norm(x + model.positions(x)))


@pytest.mark.parametrize("layer", [0, 4, -1])
def test_a_layer_that_is_not_there_is_refused(layer: int) -> None:
    with pytest.raises(ValueError, match=f"output_layer: {layer} is not between 1 and 3"):
        encoder()(frames(1, 3, 16), None, output_layer=layer)


@pytest.mark.parametrize("norm_first", [True, False])
def test_an_encoder_layer_equals_pytorchs(norm_first: bool) -> None:
    torch.manual_seed(1)
    official = torch.nn.TransformerEncoderLayer(16, 4, 24, activation="gelu", batch_first=True, norm_first=norm_first).eval()
    ours = EncoderLayer(replace(ENCODER, norm_first=norm_first)).eval()
    attention = official.self_attn
    for part, weight, bias in zip(
        ("query", "key", "value"), attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True
    ):
        getattr(ours.self_attention, part).load_state_dict({"weight": weight, "bias": bias})
    ours.self_attention.output.load_state_dict(attention.out_proj.state_dict())
    ours.feed_forward.expand.load_state_dict(official.linear1.state_dict())
    ours.feed_forward.contract.load_state_dict(official.linear2.state_dict())
    ours.self_attention_norm.load_state_dict(official.norm1.state_dict())
    ours.feed_forward_norm.load_state_dict(official.norm2.state_dict())
    x, lengths = frames(2, 6, 16), torch.tensor([6, 3])
    valid = ~padding_mask(lengths, 6)
    with torch.no_grad():
        expected = official(x, src_key_padding_mask=~valid)
        torch.testing.assert_close(ours(x, lengths)[valid], expected[valid], atol=1e-5, rtol=1e-5)


def test_encoder_gradients_are_those_of_finite_differences() -> None:
    config = EncoderConfig(dim=4, layers=1, heads=2, feed_forward_dim=6, position_kernel=3, position_groups=2)
    model = encoder(config).double()
    x = frames(2, 4, 4).double().requires_grad_()
    lengths = torch.tensor([4, 2])
    valid = ~padding_mask(lengths, 4)
    assert torch.autograd.gradcheck(lambda x: model(x, lengths)[valid], x)


def test_layer_drop_of_nearly_one_leaves_the_input_alone_in_training_only() -> None:
    config = replace(ENCODER, dropout=0.0, attention_dropout=0.0, layer_drop=0.999999)
    model, x = encoder(config), frames(1, 5, 16)
    whole = model(x, None)
    model.train()
    assert torch.equal(model(x, None), model.norm(x + model.positions(x)))
    assert not torch.equal(model(x, None), whole)


def test_the_encoder_starts_like_bert() -> None:
    torch.manual_seed(0)
    model = Encoder(replace(ENCODER, dim=128, feed_forward_dim=512, position_kernel=16))
    for layer in model.layers:
        assert isinstance(layer, EncoderLayer)
        assert layer.feed_forward.expand.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert layer.feed_forward.expand.bias.abs().max() == 0
    assert model.positions.conv.weight.std().item() == pytest.approx(math.sqrt(4 / (16 * 128)), rel=0.05)


@pytest.mark.parametrize("kernel", [5, 6])
def test_positional_convolution_keeps_the_length_and_drops_the_last_output_of_an_even_kernel(kernel: int) -> None:
    module = PositionalConvolution(8, kernel, groups=2)
    x = frames(2, 11, 8)
    conv = module.conv
    padded = F.pad(x.transpose(1, 2), (kernel // 2, kernel // 2))
    expected = F.gelu(F.conv1d(padded, conv.weight, conv.bias, groups=2))[..., :11].transpose(1, 2)
    torch.testing.assert_close(module(x), expected)


def test_positional_convolution_weight_is_normed_over_its_kernel_places() -> None:
    module = PositionalConvolution(8, 4, groups=2)
    original = module.conv.parametrizations.weight  # type: ignore[union-attr]
    assert original.original0.shape == (1, 1, 4)  # type: ignore[union-attr]
    norm = module.conv.weight.pow(2).sum((0, 1)).sqrt()
    torch.testing.assert_close(norm, original.original0.flatten())  # type: ignore[union-attr]


def test_groups_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="position_groups: 3"):
        PositionalConvolution(8, 4, groups=3)
    with pytest.raises(ValueError, match="is odd"):
        SinusoidalPositions(7)


def test_sinusoids_are_sine_half_then_cosine_half_from_position_two() -> None:
    table = SinusoidalPositions(6)(torch.tensor([0, 3]))
    rate = [1.0, 10000 ** (-1 / 2), 10000 ** (-1)]
    for row, position in enumerate((2, 5)):
        expected = [math.sin(position * r) for r in rate] + [math.cos(position * r) for r in rate]
        assert table[row].tolist() == pytest.approx(expected, abs=1e-6)


OTHERS = [
    DECODER,
    replace(DECODER, norm_first=False),
    replace(DECODER, tie_embeddings=False, scale_embedding=True, activation="gelu"),
    replace(DECODER, positions="learned", max_positions=6, activation="gelu_tanh"),
    replace(DECODER, positions="none", activation="tanh"),
]


@pytest.mark.parametrize("config", OTHERS)
def test_step_by_step_equals_teacher_forcing(config: DecoderConfig) -> None:
    model = decoder(config)
    encoded, lengths = frames(3, 7, 16), torch.tensor([7, 2, 5])
    tokens = torch.randint(4, VOCABULARY, (3, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        forced = model(tokens, encoded, lengths)
        memory, state = model.project_memory(encoded, lengths), model.initial_state(3)
        for place in range(6):
            logits, state = model.step(tokens[:, place], memory, state)
            torch.testing.assert_close(logits, forced[:, place], atol=1e-5, rtol=1e-5)
    assert state.length == 6


def test_reordered_and_repeated_hypotheses_go_on_as_their_parents() -> None:
    model = decoder()
    encoded, lengths = frames(2, 5, 16), torch.tensor([5, 3])
    rows = torch.tensor([1, 0, 1])
    with torch.no_grad():
        memory = model.project_memory(encoded, lengths)
        _, state = model.step(torch.tensor([4, 5]), memory, model.initial_state(2))
        logits, _ = model.step(torch.tensor([6, 7, 8]), memory.select(rows), state.reorder(rows))
        for index, (row, first, second) in enumerate([(1, 5, 6), (0, 4, 7), (1, 5, 8)]):
            alone = model(torch.tensor([[first, second]]), encoded[row : row + 1, : lengths[row]], lengths[row : row + 1])
            torch.testing.assert_close(logits[index], alone[0, -1], atol=1e-5, rtol=1e-5)


def test_learned_positions_begin_behind_the_padding_id_and_end_with_their_table() -> None:
    table = LearnedPositions(4, 3)
    assert table.table.weight.shape == (5, 4)
    assert table.table.weight[1].abs().max() == 0
    assert torch.equal(table(torch.tensor([0, 2])), table.table.weight[[2, 4]])
    with pytest.raises(ValueError, match="3 learned positions are too few for token 4"):
        table(torch.tensor([3]))


@pytest.mark.parametrize("kind", ["sinusoidal", "learned"])
def test_padding_has_no_position(kind: Literal["sinusoidal", "learned"]) -> None:
    places = decoder(replace(DECODER, positions=kind)).place(torch.tensor([[2, 5, 1], [2, 5, 6]]))
    assert places[0, 2].abs().max() == 0
    assert torch.equal(places[0, :2], places[1, :2])
    assert places[1, 2].abs().max() > 0


def test_without_positions_the_order_of_what_was_said_does_not_matter() -> None:
    model, encoded, lengths = decoder(replace(DECODER, positions="none", layers=1)), frames(1, 4, 16), torch.tensor([4])
    one, two = (model(torch.tensor([[*said, 7]]), encoded, lengths)[0, -1] for said in ((5, 6), (6, 5)))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_layer_drop_of_nearly_one_leaves_the_decoders_input_alone_in_training_only() -> None:
    model, encoded, lengths = decoder(replace(DECODER, layer_drop=0.999, dropout=0.0)), frames(1, 4, 16), torch.tensor([4])
    tokens = torch.tensor([[2, 5]])
    alone = F.linear(model.norm(model.embedding(tokens) + model.place(tokens)), model.embedding.weight)
    torch.testing.assert_close(model.train()(tokens, encoded, lengths), alone)
    assert not torch.allclose(model.eval()(tokens, encoded, lengths), alone)


def test_a_token_never_sees_later_ones() -> None:
    model, encoded, lengths = decoder(), frames(1, 4, 16), torch.tensor([4])
    with torch.no_grad():
        one = model(torch.tensor([[2, 5, 6, 7]]), encoded, lengths)
        two = model(torch.tensor([[2, 5, 9, 10]]), encoded, lengths)
    torch.testing.assert_close(one[:, :2], two[:, :2])
    assert not torch.allclose(one[:, 2:], two[:, 2:])


def test_decoding_does_not_depend_on_padding_of_the_memory() -> None:
    model, tokens = decoder(), torch.tensor([[2, 5, 6]])
    encoded = frames(1, 4, 16)
    longer = torch.cat([encoded, frames(1, 3, 16, seed=5)], 1)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens, encoded, torch.tensor([4])), model(tokens, longer, torch.tensor([4])))


def test_the_memory_may_have_another_width() -> None:
    model = decoder(memory_dim=20)
    assert model(torch.tensor([[2, 5]]), frames(1, 4, 20), torch.tensor([4])).shape == (1, 2, VOCABULARY)


def test_tied_embeddings_are_the_output_matrix_and_padding_starts_at_zero() -> None:
    torch.manual_seed(0)
    tied, loose = Decoder(DECODER, VOCABULARY), Decoder(replace(DECODER, tie_embeddings=False), VOCABULARY)
    assert tied.output is None
    assert loose.output is not None
    assert tied.embedding.weight[1].abs().max() == 0
    tied(torch.tensor([[2, 5]]), frames(1, 4, 16), torch.tensor([4])).sum().backward()
    assert tied.embedding.weight.grad is not None
    assert tied.embedding.weight.grad[7].abs().max() > 0  # a symbol that is only predicted


@pytest.mark.parametrize(
    ("change", "message"),
    [({"heads": 3}, "heads: 3 does not divide dim 16"), ({"dropout": 1.5}, "dropout: 1.5"), ({"heads": 0}, "heads: 0")],
)
def test_impossible_sizes_are_refused(change: dict[str, float], message: str) -> None:
    for config in (ENCODER, DECODER):
        with pytest.raises(ValueError, match=message):
            replace(config, **change)  # type: ignore[type-var, arg-type]


@pytest.mark.parametrize("norm_first", [True, False])
def test_what_enters_behind_the_first_layers_passes_the_others_without_dropout_before_them(norm_first: bool) -> None:
    torch.manual_seed(0)
    settings = EncoderConfig(dim=8, layers=3, heads=2, feed_forward_dim=16, norm_first=norm_first, position_kernel=0, layer_drop=0.0)
    model = Encoder(settings).eval()
    x, lengths = torch.randn(2, 5, 8), torch.tensor([5, 3])
    states = model.hidden_states(x, lengths, 3, first_layer=1)
    assert len(states) == 3
    expected = x if norm_first else model.norm(x)
    assert torch.equal(states[0], expected)
    for layer in list(model.layers)[1:]:
        expected = layer(expected, lengths)
    expected = model.norm(expected) if norm_first else expected
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    torch.testing.assert_close(model(x, lengths, first_layer=1)[valid], expected[valid])
    model.train()
    assert torch.equal(model.hidden_states(x, lengths, 3, first_layer=1)[0], states[0])
