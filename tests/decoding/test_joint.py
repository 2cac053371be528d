"""Claims about joint CTC/attention search (equality with ESPnet: tests/test_golden.py)."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.ctc_prefix import PrefixScorer
from avtlm.decoding.joint import JointOptions, joint_beam
from avtlm.nn.transformer import Decoder, DecoderConfig
from tests.decoding.step_models import AttendingDecoder, TableDecoder, TableLanguageModel

INF = float("inf")
END = 2


def made(seed, rows=1, frames=5, symbols=6, sharpness=1.5):
    generator = torch.Generator().manual_seed(seed)
    tables = torch.randn(rows, 4, symbols, symbols, generator=generator)
    ctc = (sharpness * torch.randn(rows, frames, symbols, generator=generator)).log_softmax(-1)
    return tables, ctc, TableLanguageModel(torch.randn(symbols, symbols, generator=generator))


def ctc_log_prob(log_probs, text):
    scorer = PrefixScorer(log_probs[None], torch.tensor([len(log_probs)]))
    state = scorer.start(torch.tensor([0]))
    for token in text:
        state = scorer.advance(state, torch.tensor([0]), torch.tensor([token]))
    return float(state.complete())


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 0.9]), st.sampled_from([0.0, 0.5]), st.integers(0, 2))
def test_a_wide_beam_equals_exhaustive_enumeration(seed, weight, lm_weight, min_len):
    labels, longest, bonus = [3, 4], 3, 0.2
    tables, ctc, language = made(seed, frames=6)
    dead = torch.full((1, 4, 40, 40), -1e4)  # symbols that never come make room for a beam that keeps all
    dead[:, :, :6, :6] = tables
    table = torch.full((40, 40), -1e4)
    table[:6, :6] = language.table
    wide = torch.full((1, 6, 40), -1e4)
    wide[..., :6] = ctc
    options = JointOptions(
        beam=40, nbest=99, ctc_weight=weight, lm_weight=lm_weight, length_bonus=bonus, pre_beam=None,
        max_len_ratio=-(longest + 1), min_len=min_len, never=(0, 1, *range(5, 40)),
    )  # fmt: skip
    [found] = joint_beam(TableDecoder(), dead, torch.tensor([6]), wide.log_softmax(-1), options, TableLanguageModel(table))
    log_probs, lm = dead[0].log_softmax(-1), table.log_softmax(-1)
    exact = {}
    for length in range(min_len, longest + 1):
        for text in itertools.product(labels, repeat=length):
            steps = list(enumerate(zip([END, *text], [*text, END], strict=True)))
            said = sum(float((1 - weight) * log_probs[place, a, b] + lm_weight * lm[a, b]) + bonus for place, (a, b) in steps)
            heard = weight * ctc_log_prob(ctc[0], text) if weight else 0.0
            if said + heard > -1e3:
                exact[text] = said + heard
    ended = {hypothesis.tokens: hypothesis.score for hypothesis in found if len(hypothesis.tokens) <= longest and hypothesis.score > -1e3}
    assert exact.keys() <= ended.keys()
    assert all(ended[text] == pytest.approx(score, abs=1e-3) for text, score in exact.items())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.sampled_from(["decoder", "full", None]), st.integers(1, 6))
def test_a_score_is_the_weighted_sum_of_its_components(seed, weight, pre_beam, beam):
    tables, ctc, language = made(seed, frames=9)
    options = JointOptions(beam=beam, nbest=9, ctc_weight=weight, lm_weight=0.4, length_bonus=-0.3, pre_beam=pre_beam)
    [found] = joint_beam(TableDecoder(), tables, torch.tensor([9]), ctc, options, language)
    weights = {"attention": 1 - weight, "ctc": weight, "lm": 0.4, "length": -0.3}
    for hypothesis in found:
        assert set(hypothesis.components) == {name for name, share in weights.items() if share}
        assert hypothesis.score == pytest.approx(sum(weights[name] * part for name, part in hypothesis.components.items()), abs=1e-9)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_the_ctc_component_of_an_ended_hypothesis_is_its_log_probability():
    tables, ctc, _ = made(3, frames=9)
    [found] = joint_beam(TableDecoder(), tables, torch.tensor([9]), ctc, JointOptions(beam=6, nbest=9, ctc_weight=0.5))
    ended = [hypothesis for hypothesis in found if len(hypothesis.tokens) < 9]
    assert ended
    assert all(h.components["ctc"] == pytest.approx(ctc_log_prob(ctc[0], h.tokens), abs=1e-6) for h in ended)


@settings(max_examples=6, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from([0.0, 0.6]),
)
def test_a_batch_gives_what_its_rows_give_one_by_one_whatever_the_padding_holds(seed, lengths, beam, weight, ratio):
    generator = torch.Generator().manual_seed(seed)
    decoder, sizes = AttendingDecoder(7, seed=seed), torch.tensor(lengths)
    encoded = torch.randn(len(lengths), 9, 8, generator=generator)
    ctc = torch.randn(len(lengths), 9, 7, generator=generator).log_softmax(-1)
    for row, length in enumerate(lengths):
        ctc[row, length:] = float("nan")
    options = JointOptions(beam=beam, nbest=beam, ctc_weight=weight, max_len_ratio=ratio, no_repeat_ngram=2)
    together = joint_beam(decoder, encoded, sizes, ctc, options)
    for row, length in enumerate(lengths):
        [alone] = joint_beam(decoder, encoded[row : row + 1, :length], sizes[row : row + 1], ctc[row : row + 1, :length], options)
        assert [h.tokens for h in together[row]] == [h.tokens for h in alone]
        assert [h.score for h in together[row]] == pytest.approx([h.score for h in alone], abs=1e-5)
        for hypothesis in alone:
            pairs = list(itertools.pairwise(hypothesis.tokens))
            assert len(pairs) == len(set(pairs))


@settings(max_examples=1, deadline=None)
@given(st.integers(0, 10**6))
def test_the_cached_transformer_decoder_scores_its_hypotheses_as_a_whole_sentence_does(seed):
    torch.manual_seed(seed)
    decoder = Decoder(DecoderConfig(layers=2, dim=16, heads=2, feed_forward_dim=32), vocabulary=9).eval()
    for parameter in decoder.parameters():
        parameter.data.mul_(2.0)
    encoded, lengths, ctc = torch.randn(3, 45, 16), torch.tensor([45, 3, 30]), torch.randn(3, 45, 9).log_softmax(-1)
    for found, row in zip(joint_beam(decoder, encoded, lengths, ctc, JointOptions(beam=5, nbest=5)), range(3), strict=True):
        for hypothesis in found:
            forced = len(hypothesis.tokens) == int(lengths[row])  # the limit ends a text without a score
            sentence = torch.tensor([[END, *hypothesis.tokens, *([] if forced else [END])]])
            with torch.no_grad():
                log_probs = decoder(sentence[:, :-1], encoded[row : row + 1], lengths[row : row + 1]).log_softmax(-1)
            expected = float(log_probs[0].gather(1, sentence[0, 1:, None]).sum())
            assert hypothesis.components["attention"] == pytest.approx(expected, abs=2e-4)


def test_equal_scores_give_the_smaller_ids_first_in_every_row():
    tables, ctc = torch.zeros(2, 1, 7, 7), torch.zeros(2, 4, 7).log_softmax(-1)
    options = JointOptions(beam=3, nbest=3, ctc_weight=0.0, max_len_ratio=-2, min_len=2)
    found = joint_beam(TableDecoder(), tables, torch.tensor([4, 4]), ctc, options)
    assert [[h.tokens for h in row] for row in found] == [[(0, 0), (0, 3), (0, 4)]] * 2


@pytest.mark.parametrize("convention", ["speecht5", "speechut"])
@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_ctc_in_fairseq_search_gives_a_batch_what_its_rows_give(convention, seed, lengths):
    generator = torch.Generator().manual_seed(seed)
    decoder, sizes = AttendingDecoder(9, seed=seed), torch.tensor(lengths)
    encoded = torch.randn(len(lengths), 9, 8, generator=generator)
    ctc = torch.randn(len(lengths), 9, 9, generator=generator).log_softmax(-1)
    options = BeamOptions(beam=3, nbest=3, max_len_b=3, convention=convention, ctc_weight=0.3)
    together = attention_beam(decoder, encoded, sizes, options, ctc_log_probs=ctc)
    for row, length in enumerate(lengths):
        own = slice(row, row + 1)
        [alone] = attention_beam(decoder, encoded[own, :length], sizes[own], options, ctc_log_probs=ctc[own, :length])
        assert [h.tokens for h in together[row]] == [h.tokens for h in alone]
        assert [h.score for h in together[row]] == pytest.approx([h.score for h in alone], abs=1e-5)
        assert all(0 not in h.tokens for h in alone)


def test_speechut_mixes_the_scores_of_its_candidates_until_the_frames_are_used_up():
    tables, ctc, language = made(5, frames=3, symbols=7)
    options = BeamOptions(
        beam=2, nbest=2, normalize=False, max_len_a=0, max_len_b=5, min_len=0, convention="speechut", ctc_weight=0.3, lm_weight=0.2
    )
    [found] = attention_beam(TableDecoder(), tables, torch.tensor([3]), options, language, ctc)
    log_probs, lm = tables[0].log_softmax(-1), language.table.log_softmax(-1)
    scorer = PrefixScorer(ctc, torch.tensor([3]))
    for hypothesis in found:
        state, total = scorer.start(torch.tensor([0])), 0.0
        for step, (before, after) in enumerate(itertools.pairwise([END, *hypothesis.tokens, END])):
            own = float(log_probs[min(step, 3), before, after])
            heard = float(scorer.following(state, END)[0, after])
            total += (0.7 * own + 0.3 * heard if step < 3 else own) + 0.2 * float(lm[before, after])
            if after != END:
                state = scorer.advance(state, torch.tensor([0]), torch.tensor([after]))
        assert hypothesis.score == pytest.approx(total, abs=1e-4)


def test_an_utterance_without_frames_gets_the_empty_hypothesis():
    tables, ctc, _ = made(0, rows=2)
    found = joint_beam(TableDecoder(), tables, torch.tensor([0, 5]), ctc, JointOptions(beam=3, min_len=1))
    assert found[0][0].tokens == ()
    assert len(found[1][0].tokens) > 0
    assert [h[0].tokens for h in joint_beam(TableDecoder(), tables, torch.tensor([0, 0]), ctc, JointOptions(beam=3))] == [(), ()]


def test_a_text_that_does_not_fit_into_the_frames_is_never_written():
    tables, _, _ = made(1)
    tables[..., 3], tables[..., END] = 9.0, -9.0
    ctc = torch.full((1, 4, 6), -INF)
    ctc[..., [0, 3]] = torch.tensor(0.5).log()
    [[first, *_]] = joint_beam(TableDecoder(), tables, torch.tensor([4]), ctc, JointOptions(beam=4, nbest=4, ctc_weight=0.2))
    assert first.tokens in {(3,), (3, 3)}  # four frames hold two of the same label, with a blank between


def test_what_cannot_be_decoded_is_refused_in_one_sentence():
    tables, ctc, language = made(0)
    one = torch.tensor([5])
    with pytest.raises(ValueError, match="beam of 7 is larger than the vocabulary of 6 tokens; give at most 6"):
        joint_beam(TableDecoder(), tables, one, ctc, JointOptions(beam=7))
    other = TableLanguageModel(torch.zeros(9, 9))
    with pytest.raises(ValueError, match="language model knows 9 tokens and the recogniser 6"):
        joint_beam(TableDecoder(), tables, one, ctc, JointOptions(beam=3, lm_weight=0.1), other)
    with pytest.raises(ValueError, match="language model knows 9 tokens and the recogniser 6"):
        attention_beam(TableDecoder(), tables, one, BeamOptions(beam=3, lm_weight=0.1), other)
    with pytest.raises(ValueError, match="decoder writes 6 tokens and CTC 4"):
        joint_beam(TableDecoder(), tables, one, ctc[..., :4], JointOptions(beam=3))
    with pytest.raises(ValueError, match="needs CTC's log-probabilities"):
        joint_beam(TableDecoder(), tables, one, None, JointOptions(beam=3))
    with pytest.raises(ValueError, match="needs a decoder"):
        joint_beam(None, tables, one, ctc, JointOptions(beam=3))
    with pytest.raises(ValueError, match="gave nan at token 1"):
        joint_beam(TableDecoder(), tables * float("nan"), one, ctc, JointOptions(beam=3))
    with pytest.raises(ValueError, match="above 0 for speecht5 and speechut only"):
        BeamOptions(ctc_weight=0.2)
    with pytest.raises(ValueError, match="choose fairseq, speecht5, speechut"):
        BeamOptions(convention="espnet")
    for options in ({"beam": 0}, {"ctc_weight": 1.1}, {"pre_beam_ratio": 0.5}, {"min_len": -1}):
        with pytest.raises(ValueError):
            JointOptions(**options)
    assert joint_beam(TableDecoder(), tables, one, ctc, JointOptions(beam=3, lm_weight=0.1, min_len=1), language)[0][0].tokens
