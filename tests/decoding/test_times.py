"""Claims about word times from attention, and about frames of blanks that are passed over."""

import itertools

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from avtlm.decoding.attention_times import add_attention_times, monotonic_path
from avtlm.decoding.blanks import put_back, skip_blanks
from avtlm.decoding.ctc_prefix import ctc_beam
from avtlm.decoding.result import Hypothesis
from avtlm.nn.transformer import Decoder, DecoderConfig


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 4))
def test_the_monotonic_path_is_the_best_of_all(seed, tokens, more):
    frames = tokens + more
    gains = torch.randn(tokens, frames, generator=torch.Generator().manual_seed(seed), dtype=torch.double).numpy()
    spans = monotonic_path(gains)
    assert spans[0][0] == 0
    assert spans[-1][1] == frames
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
    found = sum(gains[token, first:end].sum() for token, (first, end) in enumerate(spans))
    best = max(
        sum(gains[token, first:end].sum() for token, (first, end) in enumerate(itertools.pairwise((0, *borders, frames))))
        for borders in itertools.combinations(range(1, frames), tokens - 1)
    )
    assert found == pytest.approx(best)


def decoder():
    torch.manual_seed(0)
    made = Decoder(DecoderConfig(dim=16, layers=3, heads=2, feed_forward_dim=16), 9).eval()
    for parameter in made.parameters():
        parameter.data.mul_(2.0)
    return made


def test_the_weights_are_those_that_the_decoder_works_with():
    model, encoded, lengths = decoder(), torch.randn(2, 7, 16), torch.tensor([7, 4])
    tokens = torch.tensor([[2, 5, 6], [2, 7, 1]])
    weights, logits = model.look(tokens, encoded, lengths)
    assert weights.shape == (3, 2, 2, 3, 7)
    assert torch.allclose(weights.sum(-1), torch.ones(3, 2, 2, 3))
    assert float(weights.detach()[:, 1, :, :, 4:].abs().max()) == 0.0
    assert torch.allclose(logits, model(tokens, encoded, lengths))
    # The first layer's output of cross-attention is the values weighed by these.
    attention = model.layers[0].cross_attention
    seen = {}
    hook = attention.output.register_forward_hook(lambda module, inputs, output: seen.update(given=inputs[0]))
    model(tokens, encoded, lengths)
    hook.remove()
    values = attention.split(attention.value(encoded))
    expected = torch.einsum("bhqk,bkhd->bqhd", weights[0], values).flatten(-2)
    assert torch.allclose(seen["given"].reshape(expected.shape), expected, atol=1e-5)


def test_times_from_attention_do_not_depend_on_the_batch_and_cover_the_clip():
    model, encoded, lengths = decoder(), torch.randn(4, 12, 16), torch.tensor([12, 0, 9, 2])
    said = [
        Hypothesis((5, 6, 7), -1.0),
        Hypothesis((), 0.0),
        Hypothesis((4, 4), -2.0, token_scores=(-0.1, -0.2)),
        Hypothesis((4, 5, 6), -3.0),
    ]
    together = add_attention_times(model, encoded, lengths, said)
    assert together[1] == said[1]
    assert together[3] == said[3]  # more tokens than frames
    assert [len(each.timesteps) for each in together[::2]] == [3, 2]
    assert together[0].timesteps[-1][1] == 12
    assert together[2].timesteps[-1][1] == 9
    assert together[2].token_scores == (-0.1, -0.2)
    assert len(together[0].token_scores) == 3
    assert all(score < 0 for score in together[0].token_scores)
    for row in (0, 2):
        alone = add_attention_times(model, encoded[row : row + 1, : lengths[row]], lengths[row : row + 1], [said[row]])[0]
        assert alone.timesteps == together[row].timesteps
        assert alone.token_scores == pytest.approx(together[row].token_scores, abs=1e-4)


def spiky(seed, rows=2, frames=12):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, frames, 5, generator=generator)
    sure = torch.rand(rows, frames, generator=generator) < 0.6
    logits[..., 0] += 40.0 * sure
    return logits.double().log_softmax(-1), torch.tensor([frames, frames - 3])


@settings(max_examples=15)
@example(756)
@given(st.integers(0, 10**6))
def test_passing_over_sure_blanks_changes_no_text_and_no_time(seed):
    log_probs, lengths = spiky(seed)
    frames, kept, places = skip_blanks(log_probs, lengths, 0.999999)
    assert bool((kept <= lengths).all())
    whole, short = ctc_beam(log_probs, lengths, 300, nbest=3), ctc_beam(frames, kept, 300, nbest=3)
    for row in range(2):
        likely = [
            h for h in whole[row] if h.score > whole[row][0].score - 5
        ]  # of what only the frames that are gone could say, nothing is known
        for ours, theirs in zip(put_back(short[row], places[row]), likely, strict=False):
            assert ours.tokens == theirs.tokens
            assert ours.score == pytest.approx(theirs.score, abs=1e-4)
            assert ours.timesteps == theirs.timesteps


def test_equal_letters_between_blanks_stay_two():
    log_probs = torch.full((1, 5, 3), -20.0, dtype=torch.double)
    for frame, symbol in enumerate([1, 0, 0, 0, 1]):
        log_probs[0, frame, symbol] = 0.0
    frames, kept, places = skip_blanks(log_probs.log_softmax(-1), torch.tensor([5]), 0.99)
    assert places[0].tolist() == [0, 1, 4]
    [[found]] = ctc_beam(frames, kept, 5)
    assert found.tokens == (1, 1)
    assert put_back([found], places[0])[0].timesteps == ((0, 1), (4, 5))


def test_a_row_without_frames_stays_empty():
    frames, kept, places = skip_blanks(torch.zeros(2, 3, 4).log_softmax(-1), torch.tensor([0, 3]), 0.9)
    assert kept.tolist() == [0, 3]
    assert places[0].tolist() == []
    assert ctc_beam(frames, kept, 3)[0][0].tokens == ()
