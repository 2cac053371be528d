"""Claims about beam search with an attention decoder (equality with fairseq: tests/test_golden.py)."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.nn.transformer import Decoder, DecoderConfig
from tests.decoding.step_models import AttendingDecoder, TableDecoder, TableLanguageModel

INF = float("inf")


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.6, 1.0, 1.5]), st.integers(0, 2))
def test_a_wide_beam_equals_exhaustive_enumeration(seed, lenpen, min_len):
    symbols, longest = 5, 3
    tables = torch.randn(1, 4, symbols, symbols, generator=torch.Generator().manual_seed(seed), dtype=torch.double) * 2
    options = BeamOptions(beam=200, nbest=200, length_penalty=lenpen, min_len=min_len, max_len_a=0, max_len_b=longest)
    [found] = attention_beam(TableDecoder(), tables, torch.tensor([1]), options)
    log_probs = tables[0].log_softmax(-1)
    exact = {}
    for length in range(min_len, longest + 1):
        for words in itertools.product([0, 3, 4], repeat=length):
            steps = zip([2, *words], [*words, 2])
            score = sum(float(log_probs[position, before, after]) for position, (before, after) in enumerate(steps))
            exact[words] = score / (length + 1) ** lenpen
    assert {hypothesis.tokens for hypothesis in found} == set(exact)
    assert all(hypothesis.score == pytest.approx(exact[hypothesis.tokens], abs=1e-4) for hypothesis in found)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_a_score_is_made_of_what_the_decoder_and_the_language_model_say():
    tables, language = (torch.randn(1, *shape, generator=torch.Generator().manual_seed(1)) for shape in ((4, 6, 6), (6, 6)))
    options = BeamOptions(beam=4, nbest=4, normalize=False, max_len_b=4, lm_weight=0.3)
    [found] = attention_beam(TableDecoder(), tables, torch.tensor([1]), options, TableLanguageModel(language[0]))
    for hypothesis in found:
        parts = hypothesis.components
        assert parts["attention"] + 0.3 * parts["lm"] == pytest.approx(hypothesis.score, abs=1e-4)
        assert sum(hypothesis.token_scores) + parts["end"] == pytest.approx(hypothesis.score, abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 6), st.integers(0, 2))
def test_a_batch_gives_what_its_rows_give_one_by_one(seed, lengths, beam, ngram):
    generator = torch.Generator().manual_seed(seed)
    decoder, encoded, sizes = AttendingDecoder(7, seed=seed), torch.randn(len(lengths), 9, 8, generator=generator), torch.tensor(lengths)
    options = BeamOptions(beam=beam, nbest=beam, max_len_b=2, no_repeat_ngram=ngram)
    together = attention_beam(decoder, encoded, sizes, options)
    for row, length in enumerate(lengths):
        [alone] = attention_beam(decoder, encoded[row : row + 1, :length], sizes[row : row + 1], options)
        assert [h.tokens for h in together[row]] == [h.tokens for h in alone]
        assert [h.score for h in together[row]] == pytest.approx([h.score for h in alone], abs=1e-5)
        assert all(len(h.tokens) <= length + 2 for h in alone)


def test_the_cached_transformer_decoder_scores_its_hypotheses_as_a_whole_sentence_does():
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(layers=2, dim=16, heads=2, feed_forward_dim=32), vocabulary=9).eval()
    for parameter in decoder.parameters():
        parameter.data.mul_(2.0)
    encoded, lengths = torch.randn(3, 7, 16), torch.tensor([7, 3, 5])
    found = attention_beam(decoder, encoded, lengths, BeamOptions(beam=4, nbest=4, normalize=False))
    for row, hypotheses in enumerate(found):
        for hypothesis in hypotheses:
            sentence = torch.tensor([[2, *hypothesis.tokens, 2]])
            with torch.no_grad():
                log_probs = decoder(sentence[:, :-1], encoded[row : row + 1], lengths[row : row + 1]).log_softmax(-1)
            expected = log_probs[0].gather(1, sentence[0, 1:, None]).sum()
            assert hypothesis.score == pytest.approx(float(expected), abs=1e-4)


def test_no_ngram_comes_twice_when_forbidden():
    tables = torch.zeros(1, 1, 6, 6)
    tables[..., 4] = 5.0
    tables[..., 2] = -5.0
    memory, lengths = tables, torch.tensor([8])
    [[free]] = attention_beam(TableDecoder(), memory, lengths, BeamOptions(beam=2))
    assert free.tokens == (4,) * 8
    [[bound]] = attention_beam(TableDecoder(), memory, lengths, BeamOptions(beam=2, no_repeat_ngram=2))
    pairs = list(itertools.pairwise(bound.tokens))
    assert len(pairs) == len(set(pairs))
    [[once]] = attention_beam(TableDecoder(), memory, lengths, BeamOptions(beam=2, no_repeat_ngram=1, max_len_b=9))
    assert sorted(once.tokens) == [0, 3, 4, 5]


def test_equal_scores_give_the_smaller_ids_first():
    memory = torch.zeros(2, 1, 7, 7)
    found = attention_beam(TableDecoder(), memory, torch.tensor([2, 2]), BeamOptions(beam=3, nbest=3, min_len=2))
    assert [[h.tokens for h in hypotheses] for hypotheses in found] == [[(0, 0), (0, 3), (0, 4)]] * 2


def test_an_utterance_without_memory_gets_the_empty_hypothesis_and_impossible_demands_give_log_zero():
    memory = torch.zeros(2, 1, 5, 5)
    found = attention_beam(TableDecoder(), memory, torch.tensor([0, 2]))
    assert found[0][0].tokens == ()
    assert len(found[1][0].tokens) <= 2
    tables = torch.full((1, 1, 5, 5), 0.0)
    [[nothing]] = attention_beam(TableDecoder(), tables, torch.tensor([9]), BeamOptions(beam=1, min_len=9, no_repeat_ngram=1))
    assert nothing.score == -INF


def test_a_decoder_that_gives_nan_and_options_without_meaning_are_refused():
    with pytest.raises(ValueError, match="gave nan at token 1"):
        attention_beam(TableDecoder(), torch.full((1, 1, 5, 5), float("nan")), torch.tensor([3]))
    for options, message in [({"nbest": 6}, "nbest from 1"), ({"temperature": 0.0}, "positive"), ({"min_len": -1}, "negative")]:
        with pytest.raises(ValueError, match=message):
            BeamOptions(**options)
