"""The decoder with position biases: steps equal the whole, hypotheses share a memory, padding and positions that are not there."""

import pytest
import torch

from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.nn.biased_decoder import BiasedDecoder, BiasedDecoderConfig, distance_bucket

SYMBOLS, DIM = 11, 8


def made(**changes: object) -> BiasedDecoder:
    torch.manual_seed(0)
    settings = {"dim": DIM, "layers": 3, "heads": 2, "feed_forward_dim": 12, "max_positions": 90, "distance_buckets": 4, **changes}
    model = BiasedDecoder(BiasedDecoderConfig(**settings), SYMBOLS, DIM, written=9)  # type: ignore[arg-type]
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def memory() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(2, 5, 2 * DIM), torch.tensor([5, 3])


@pytest.mark.parametrize(
    "changes",
    [{}, {"norm_first": False, "attention_norms": False, "inner_norm": False, "head_scales": False}, {"tie_embeddings": False}],
)
def test_token_by_token_equals_the_whole_text(changes: dict[str, object]) -> None:
    model = made(**changes)
    encoded, lengths = memory()
    tokens = torch.randint(4, SYMBOLS, (2, 70))  # more than are projected at once
    whole = model(tokens, encoded, lengths)
    assert whole.shape == (2, 70, SYMBOLS)
    memory_, state = model.project_memory(encoded, lengths), model.initial_state(2)
    steps = []
    with torch.no_grad():
        for place in range(70):
            logits, state = model.step(tokens[:, place], memory_, state)
            steps.append(logits)
    torch.testing.assert_close(torch.stack(steps, 1), whole.detach()[..., :9], atol=1e-5, rtol=1e-4)


def test_hypotheses_of_an_utterance_share_its_memory() -> None:
    model = made()
    encoded, lengths = memory()
    tokens = torch.randint(4, 9, (4, 6))
    shared = model.project_memory(encoded, lengths)
    own = model.project_memory(encoded.repeat_interleave(2, 0), lengths.repeat_interleave(2))
    expected = model.decode(model.embed(tokens), own)
    torch.testing.assert_close(model.decode(model.embed(tokens), shared), expected)
    torch.testing.assert_close(model.decode(model.embed(tokens), shared.select(torch.tensor([0, 1])).heads_first()), expected)
    torch.testing.assert_close(model.decode(model.embed(tokens[2:]), shared.select(torch.tensor([1]))), expected[2:])


def test_padding_of_the_memory_and_what_comes_later_do_not_matter() -> None:
    model = made()
    encoded, lengths = memory()
    tokens = torch.randint(4, 9, (2, 6))
    whole = model(tokens, encoded, lengths)
    other = encoded.clone()
    other[1, 3:] = 7.0
    torch.testing.assert_close(model(tokens, other, lengths), whole)
    torch.testing.assert_close(model(tokens[:, :4], encoded, lengths), whole[:, :4])


def test_every_position_bias_matters() -> None:
    model = made()
    encoded, lengths = memory()
    tokens = torch.randint(4, 9, (2, 6))
    whole = model(tokens, encoded, lengths)
    for name in (
        "self_key.weight",
        "cross_key.weight",
        "layers.1.distances.weight",
        "layers.2.cross_attention.head_scale",
        "places.weight",
    ):
        changed = made()
        dict(changed.named_parameters())[name].data.add_(0.5 * torch.randn(dict(changed.named_parameters())[name].shape))
        assert not torch.allclose(changed(tokens, encoded, lengths), whole, atol=1e-4), name


def test_weights_of_attention_heed_the_bias() -> None:
    model = made()
    encoded, lengths = memory()
    tokens, weights, kept = torch.randint(4, 9, (2, 6)), list[torch.Tensor](), list[torch.Tensor]()
    model.decode(model.embed(tokens), model.project_memory(encoded, lengths), weights=weights, kept=kept)
    assert len(kept) == 3
    assert torch.stack(weights).shape == (3, 2, 2, 6, 5)
    assert float(torch.stack(weights).detach()[:, 1, ..., 3:].abs().max()) == 0.0
    silent = made()
    silent.cross_key.weight.data.zero_()
    without: list[torch.Tensor] = []
    silent.decode(silent.embed(tokens), silent.project_memory(encoded, lengths), weights=without)
    assert not torch.allclose(weights[0], without[0], atol=1e-3)


def test_search_writes_no_code_and_no_sequence_twice() -> None:
    model = made()
    encoded, lengths = memory()
    options = BeamOptions(beam=3, max_len_a=0.0, max_len_b=30, no_repeat_ngram=2, start=0)
    for [best] in attention_beam(model, encoded, lengths, options):
        pairs = list(zip(best.tokens, best.tokens[1:], strict=False))
        assert len(set(pairs)) == len(pairs)
        assert max(best.tokens) < 9


def test_branches_of_rows_are_left_out_in_training_alone() -> None:
    model = made(drop_path=0.9, dropout=0.0)
    encoded, lengths = memory()
    tokens = torch.randint(4, 9, (2, 6))
    assert [layer.drop_path for layer in model.layers] == [0.0, pytest.approx(0.45), pytest.approx(0.9)]
    whole = model(tokens, encoded, lengths)
    model.train()
    assert not torch.allclose(model(tokens, encoded, lengths), whole)
    assert torch.equal(model.eval()(tokens, encoded, lengths), whole)


@pytest.mark.parametrize("buckets", [4, 5, 8, 256])
def test_buckets_of_distances_are_symmetric_and_grow(buckets: int) -> None:
    away = torch.arange(-1500, 1501)
    found = distance_bucket(away, buckets)
    assert found[1500].item() == buckets - 1
    assert torch.equal(found - (buckets - 1), -(found.flip(0) - (buckets - 1)))
    assert bool((found.diff() >= 0).all())
    assert found.min().item() >= 0
    assert found.max().item() == found[-1].item() <= 2 * buckets - 2
    half = buckets // 2
    assert torch.equal(found[1500 - half : 1501 + half], away[1500 - half : 1501 + half] + buckets - 1)


def test_more_tokens_than_positions_are_refused() -> None:
    model = made(max_positions=4)
    with pytest.raises(ValueError, match="max_positions: 4 learned positions are too few for token 7"):
        model.embed(torch.full((1, 7), 5))


@pytest.mark.parametrize(
    "wrong", [{"positions": "learned"}, {"key_distance": 3}, {"drop_path": 1.0}, {"distance_buckets": 3}, {"scale_factor": 0}]
)
def test_settings_that_contradict_the_decoder_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        BiasedDecoderConfig(**wrong)  # type: ignore[arg-type]
