"""Claims about CTC decoding: greedy, prefix beam search, prefix scores and alignment."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from avtlm.decoding.align import ctc_align
from avtlm.decoding.ctc_prefix import PrefixScorer, ctc_beam
from avtlm.decoding.greedy import ctc_greedy
from avtlm.decoding.ranking import best

GOLDEN = Path(__file__).parents[1] / "golden" / "decoding"
ENUMERATED = ["ctc_prefix_a", "ctc_prefix_lastblank", "ctc_prefix_zero"]
INF = float("inf")


def case(name):
    inputs, outputs = load_file(GOLDEN / name / "inputs.safetensors"), load_file(GOLDEN / name / "outputs.safetensors")
    return json.loads((GOLDEN / name / "case.json").read_text())["config"], inputs, outputs


def random_log_probs(seed, rows, frames, symbols, sharpness=2.0):
    logits = torch.randn(rows, frames, symbols, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (sharpness * logits).log_softmax(-1)


def enumerate_sequences(log_probs, blank):
    """{label sequence: log p} of one utterance by going through every alignment."""
    found = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        merged = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank)
        score = sum(float(log_probs[frame, symbol]) for frame, symbol in enumerate(path))
        found.setdefault(merged, []).append(score)
    return {sequence: float(torch.tensor(scores, dtype=torch.float64).logsumexp(0)) for sequence, scores in found.items()}


@pytest.mark.parametrize("name", ENUMERATED)
def test_the_aligned_path_has_the_score_of_the_best_single_alignment(name):
    config, inputs, wanted = case(name)
    for row, prefix in enumerate(wanted["prefixes"].tolist()):
        tokens = tuple(label for label in prefix if label >= 0)
        spans, means, score = ctc_align(inputs["log_probs"], tokens, config["blank"])
        assert score == pytest.approx(float(wanted["log_viterbi"][row]), abs=1e-9)
        if score > -INF:
            assert len(spans) == len(means) == len(tokens)
            assert all(a < b <= c for (a, b), (c, _) in itertools.pairwise(spans))


@pytest.mark.parametrize("name", ENUMERATED)
def test_a_wide_prefix_beam_finds_the_enumerated_scores(name):
    config, inputs, _ = case(name)
    exact = enumerate_sequences(inputs["log_probs"], config["blank"])
    [found] = ctc_beam(inputs["log_probs"][None], torch.tensor([config["T"]]), beam=400, blank=config["blank"], nbest=400)
    possible = {sequence: score for sequence, score in exact.items() if score > -INF}
    assert len(found) == len({hypothesis.tokens for hypothesis in found}) == len(possible)
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(possible[hypothesis.tokens], abs=1e-9)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(2, 4), st.booleans())
def test_a_wide_prefix_beam_equals_exhaustive_enumeration(seed, frames, symbols, zeros):
    log_probs = random_log_probs(seed, 1, frames, symbols)
    if zeros:
        log_probs = log_probs.masked_fill(random_log_probs(seed + 1, 1, frames, symbols) < -2.5, -INF)
    exact = {k: v for k, v in enumerate_sequences(log_probs[0], 0).items() if v > -INF}
    [found] = ctc_beam(log_probs, torch.tensor([frames]), beam=400, nbest=400)
    if not exact:
        assert [(h.tokens, h.score) for h in found] == [((), -INF)]
        return
    assert {h.tokens for h in found} == set(exact)
    assert all(h.score == pytest.approx(exact[h.tokens], abs=1e-9) for h in found)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 12), min_size=1, max_size=5), st.integers(1, 6))
def test_a_batch_gives_what_its_rows_give_one_by_one_whatever_the_padding_holds(seed, lengths, beam):
    log_probs = random_log_probs(seed, len(lengths), 14, 5)
    for row, length in enumerate(lengths):
        log_probs[row, length:] = float("nan")
    sizes = torch.tensor(lengths)
    together, greedy = ctc_beam(log_probs, sizes, beam=beam, nbest=beam), ctc_greedy(log_probs, sizes)
    for row, length in enumerate(lengths):
        own = log_probs[row : row + 1, :length]
        [alone] = ctc_beam(own, sizes[row : row + 1], beam=beam, nbest=beam)
        [alone_greedy] = ctc_greedy(own, sizes[row : row + 1])
        for many, one in [*zip(together[row], alone, strict=True), (greedy[row], alone_greedy)]:
            assert (many.tokens, many.timesteps) == (one.tokens, one.timesteps)
            assert many.score == pytest.approx(one.score, abs=1e-9)
            assert many.token_scores == pytest.approx(one.token_scores, abs=1e-9)


def test_greedy_merges_repeats_and_keeps_a_label_said_twice():
    symbols = [0, 1, 1, 0, 1, 2, 2, 2, 0, 0]
    log_probs = torch.full((1, 10, 3), -9.0)
    log_probs[0, torch.arange(10), torch.tensor(symbols)] = -0.5
    [hypothesis] = ctc_greedy(log_probs, torch.tensor([10]))
    assert hypothesis.tokens == (1, 1, 2)
    assert hypothesis.timesteps == ((1, 3), (4, 5), (5, 8))
    assert hypothesis.token_scores == pytest.approx((-0.5, -0.5, -0.5))
    assert hypothesis.score == pytest.approx(-5.0)
    [cut] = ctc_greedy(log_probs, torch.tensor([7]))
    assert cut.timesteps[-1] == (5, 7)


def test_rows_without_frames_give_empty_hypotheses():
    assert [h.tokens for h in ctc_greedy(torch.zeros(2, 0, 4), torch.tensor([0, 0]))] == [(), ()]
    assert [h[0].tokens for h in ctc_beam(torch.zeros(2, 0, 4), torch.tensor([0, 0]))] == [(), ()]
    assert ctc_beam(torch.zeros(1, 3, 4), torch.tensor([0]))[0][0].score == 0.0
    scorer = PrefixScorer(torch.zeros(1, 0, 4), torch.tensor([0]))
    state = scorer.start(torch.tensor([0]))
    assert state.psi.tolist() == state.complete().tolist() == [0.0]
    assert scorer.psi(state).tolist() == [[-INF] * 4]


def test_the_beam_beats_the_best_path_where_many_paths_agree():
    log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()  # best path: two blanks, 0.36; label 1 in all: 0.64
    assert ctc_greedy(log_probs, torch.tensor([2]))[0].tokens == ()
    [[hypothesis]] = ctc_beam(log_probs, torch.tensor([2]), beam=2)
    assert hypothesis.tokens == (1,)
    assert math.exp(hypothesis.score) == pytest.approx(0.64)


def test_long_inputs_with_impossible_symbols_give_finite_scores():
    log_probs = random_log_probs(5, 1, 600, 8, sharpness=6.0)
    log_probs = log_probs.masked_fill(log_probs < -8, -INF)
    [[hypothesis]] = ctc_beam(log_probs.float(), torch.tensor([600]), beam=8)
    assert math.isfinite(hypothesis.score)
    loss = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1), torch.tensor([hypothesis.tokens]), [600], [len(hypothesis.tokens)], reduction="sum"
    )
    assert hypothesis.score <= -float(loss) + 1e-3  # what fell out of the beam is missing, nothing is counted twice
    assert hypothesis.score > ctc_greedy(log_probs, torch.tensor([600]))[0].score


def test_equal_scores_are_ranked_the_same_way_everywhere():
    scores = torch.tensor([1.0, 3.0, 1.0, 3.0, 1.0, -INF])
    values, order = best(scores, 4)
    assert values.tolist() == [3, 3, 1, 1]
    assert order.tolist() == [1, 3, 0, 2]
    even = torch.full((2, 6, 4), 0.25).log()
    both = ctc_beam(even, torch.tensor([6, 6]), beam=3, nbest=3)
    assert [h.tokens for h in both[0]] == [h.tokens for h in both[1]]


@pytest.mark.parametrize(
    ("log_probs", "lengths", "message"),
    [
        (torch.zeros(2, 3), torch.tensor([1, 1]), "needs log_probs"),
        (torch.zeros(2, 3, 4), torch.tensor([1]), "needs log_probs"),
        (torch.zeros(1, 3, 4), torch.tensor([4]), "do not fit"),
        (torch.full((1, 3, 4), float("nan")), torch.tensor([2]), "row 0 hold nan"),
    ],
)
def test_what_cannot_be_decoded_is_refused_in_one_sentence(log_probs, lengths, message):
    for function in (ctc_greedy, ctc_beam, PrefixScorer):
        with pytest.raises(ValueError, match=message):
            function(log_probs, lengths)
    with pytest.raises(ValueError, match="cannot give 3 hypotheses"):
        ctc_beam(torch.zeros(1, 3, 4), torch.tensor([3]), beam=2, nbest=3)
