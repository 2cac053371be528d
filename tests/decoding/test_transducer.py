"""Claims about transducer searches (equality with all alignments written out: tests/test_golden.py)."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from avtlm.decoding.transducer import transducer_beam, transducer_greedy, transducer_score

INF = float("inf")


class SmallTransducer(nn.Module):
    """A recurrent prediction network, so that a wrong state changes its answers."""

    def __init__(self, symbols, dim=6, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embedding, self.cell, self.output = nn.Embedding(symbols, dim), nn.GRUCell(dim, dim), nn.Linear(dim, symbols)
            for parameter in self.parameters():
                parameter.data.mul_(2.5)
        self.double()

    def initial_state(self, rows):
        return torch.zeros(rows, self.cell.hidden_size, dtype=torch.double)

    def predict(self, tokens, state):
        hidden = self.cell(self.embedding(tokens), state)
        return hidden, hidden.clone()

    def join(self, encoded, predicted):
        return self.output(torch.tanh(encoded + predicted))


def made(seed, rows, frames, symbols=3):
    encoded = torch.randn(rows, frames, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return SmallTransducer(symbols, seed=seed), encoded


def score(model, encoded, text):
    tokens = torch.tensor([list(text) or [0]])
    return float(transducer_score(model, encoded[None], torch.tensor([len(encoded)]), tokens, torch.tensor([len(text)])))


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_a_wide_beam_finds_the_probability_of_every_text(seed, frames):
    model, encoded = made(seed, 1, frames)
    [found] = transducer_beam(model, encoded, torch.tensor([frames]), beam=64, nbest=64, max_tokens=3)
    texts = {text for length in range(4) for text in itertools.product([1, 2], repeat=length)}
    assert {hypothesis.tokens for hypothesis in found} == texts
    assert all(h.score == pytest.approx(score(model, encoded[0], h.tokens), abs=1e-9) for h in found)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_the_forward_algorithm_sums_all_paths_and_equals_the_loss_of_torchaudio():
    functional = pytest.importorskip("torchaudio").functional
    model, encoded = made(4, 2, 5, symbols=4)
    tokens, sizes, lengths = torch.tensor([[1, 3, 3], [2, 1, 0]]), torch.tensor([3, 2]), torch.tensor([5, 3])
    ours = transducer_score(model, encoded, lengths, tokens, sizes)
    fed, state = torch.cat([torch.zeros(2, 1, dtype=torch.long), tokens], 1), model.initial_state(2)
    said = []
    for place in range(4):
        out, state = model.predict(fed[:, place], state)
        said.append(out)
    logits = model.join(encoded[:, :, None], torch.stack(said, 1)[:, None])
    loss = functional.rnnt_loss(logits.detach().float(), tokens.int(), lengths.int(), sizes.int(), blank=0, reduction="none")
    torch.testing.assert_close(ours.float(), -loss, atol=1e-4, rtol=1e-5)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(1, 5))
def test_a_batch_gives_what_its_rows_give_one_by_one_whatever_the_padding_holds(seed, lengths, beam):
    model, encoded = made(seed, len(lengths), 7, symbols=5)
    for row, length in enumerate(lengths):
        encoded[row, length:] = float("nan")
    sizes = torch.tensor(lengths)
    together = transducer_beam(model, encoded, sizes, beam=beam, nbest=beam)
    greedy = transducer_greedy(model, encoded, sizes)
    for row, length in enumerate(lengths):
        own = encoded[row : row + 1, :length]
        [alone] = transducer_beam(model, own, sizes[row : row + 1], beam=beam, nbest=beam)
        [alone_greedy] = transducer_greedy(model, own, sizes[row : row + 1])
        for many, one in [*zip(together[row], alone, strict=True), (greedy[row], alone_greedy)]:
            assert (many.tokens, many.timesteps) == (one.tokens, one.timesteps)
            assert many.score == pytest.approx(one.score, abs=1e-9)


def test_greedy_follows_one_path_and_takes_a_blank_after_so_many_labels_in_a_frame():
    class Talker:
        def initial_state(self, rows):
            return torch.zeros(rows, 0)

        def predict(self, tokens, state):
            return tokens[:, None], state

        def join(self, encoded, predicted):
            return torch.tensor([0.0, 1.0]).expand(len(encoded), -1)

    [found] = transducer_greedy(Talker(), torch.zeros(1, 2, 1), torch.tensor([2]), max_symbols=3)
    assert found.tokens == (1,) * 6
    assert found.timesteps == ((0, 1),) * 3 + ((1, 2),) * 3
    blank, label = torch.tensor([0.0, 1.0]).log_softmax(0).tolist()
    assert found.score == pytest.approx(6 * label + 2 * blank)


def test_the_beam_beats_the_best_path_where_many_paths_agree():
    model, encoded = made(11, 1, 6, symbols=3)
    size = torch.tensor([6])
    [greedy] = transducer_greedy(model, encoded, size)
    [[best]] = transducer_beam(model, encoded, size, beam=8)
    assert score(model, encoded[0], greedy.tokens) >= greedy.score
    assert best.score >= greedy.score


def test_pruning_keeps_scores_at_or_below_the_whole_sum_and_equal_symbols_come_in_order():
    model, encoded = made(2, 1, 5, symbols=5)
    [[pruned]] = transducer_beam(model, encoded, torch.tensor([5]), beam=10, threshold=2.0)
    assert pruned.score <= score(model, encoded[0], pruned.tokens) + 1e-9

    class Even(SmallTransducer):
        def join(self, encoded, predicted):
            return torch.zeros(len(encoded), 4, dtype=torch.double)

    found = transducer_beam(Even(4), encoded.repeat(2, 1, 1)[:, :1], torch.tensor([1, 1]), beam=4, nbest=4, max_tokens=1)
    assert [[h.tokens for h in row] for row in found] == [[(), (1,), (2,), (3,)]] * 2


def test_what_cannot_be_decoded_is_refused_and_no_frames_give_the_empty_text():
    model, encoded = made(0, 1, 3)
    with pytest.raises(ValueError, match="cannot give 3 hypotheses"):
        transducer_beam(model, encoded, torch.tensor([3]), beam=2, nbest=3)
    for search in (transducer_beam, transducer_greedy):
        with pytest.raises(ValueError, match="gave nan"):
            search(model, encoded * math.nan, torch.tensor([3]))
    [[empty]] = transducer_beam(model, encoded, torch.tensor([0]))
    assert (empty.tokens, empty.score) == ((), 0.0)
    assert transducer_greedy(model, encoded[:, :0], torch.tensor([0]))[0].tokens == ()
