"""Claims about language models in searches."""

import itertools
import math

import pytest
import torch

from avtlm.decoding.align import add_times, ctc_align
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.ctc_prefix import PrefixScorer
from avtlm.decoding.joint import JointOptions, joint_beam
from avtlm.decoding.language_model import MappedLanguageModel, NGramTokens
from avtlm.decoding.ngram import NGram
from avtlm.decoding.rescoring import rescore_with_words
from avtlm.decoding.result import Hypothesis
from avtlm.decoding.summed_words import SummedOptions, ctc_word_beam
from tests.decoding.step_models import TableDecoder, TableLanguageModel

SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", "a", "b"]
BIGRAM = NGram(
    2,
    {("<unk>",): -2.0, ("</s>",): -0.7, ("a",): -0.4, ("b",): -0.6, ("<s>", "a"): -0.1, ("a", "b"): -0.2, ("b", "</s>"): -0.3},
    {("<s>",): -0.5, ("a",): -0.25, ("b",): 0.0},
)


def test_an_ngram_over_tokens_scores_a_sentence_as_its_file_says():
    model = NGramTokens(BIGRAM, SYMBOLS, silent={0: 0.0})
    state, total = model.initial_state(2), torch.zeros(2)
    for before, after in itertools.pairwise([2, 4, 5, 2]):
        scores, state = model.step(torch.tensor([before, before]), state)
        total += scores[:, after]
        assert scores[:, 0].tolist() == [0.0, 0.0]
    assert total.tolist() == pytest.approx([math.log(10) * (-0.1 - 0.2 - 0.3)] * 2)
    state = model.initial_state(2)
    _, state = model.step(torch.tensor([2, 2]), state)
    _, state = model.step(torch.tensor([4, 5]), state)
    swapped, _ = model.step(torch.tensor([5, 4]), state.reorder(torch.tensor([1, 0])))
    assert swapped[0, 2] == pytest.approx(math.log(10) * -0.3)  # b after b: the end of the sentence
    assert swapped[1, 5] == pytest.approx(math.log(10) * -0.2)  # a after a: b


def test_an_ngram_steers_attention_search():
    tables = torch.zeros(1, 1, 6, 6)
    options = BeamOptions(beam=4, max_len_a=0, max_len_b=2, min_len=2, normalize=False)
    found = attention_beam(TableDecoder(), tables, torch.tensor([1]), options, NGramTokens(BIGRAM, SYMBOLS))
    strong = BeamOptions(beam=4, max_len_a=0, max_len_b=2, min_len=2, normalize=False, lm_weight=1.0)
    [[steered]] = attention_beam(TableDecoder(), tables, torch.tensor([1]), strong, NGramTokens(BIGRAM, SYMBOLS))
    assert found[0][0].tokens == (0, 0)
    assert steered.tokens == (4, 5)
    assert steered.components["lm"] == pytest.approx(math.log(10) * (-0.1 - 0.2 - 0.3), abs=1e-5)


def test_a_mapped_model_gives_every_token_the_score_of_its_own_number():
    table = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    mapped = MappedLanguageModel(TableLanguageModel(table), [3, -1, 0, 1], stand_in=2)
    scores, _ = mapped.step(torch.tensor([0, 1]), mapped.initial_state(2))
    own = table.log_softmax(-1)
    assert scores[0].tolist() == pytest.approx([own[3, 3].item(), -1e7, own[3, 0].item(), own[3, 1].item()])
    assert scores[1, 0] == own[2, 3]


def test_models_without_a_common_token_are_refused():
    with pytest.raises(ValueError, match="knows none of the 2 tokens"):
        NGramTokens(BIGRAM, ["x", "y"])
    with pytest.raises(ValueError, match="none of the recogniser's tokens"):
        MappedLanguageModel(TableLanguageModel(torch.zeros(2, 2)), [-1, -1], 0)


def test_words_of_finished_hypotheses_are_rescored_in_natural_logs():
    nbest = [Hypothesis((1,), -1.0, text="b a"), Hypothesis((2,), -1.2, text="a b"), Hypothesis((), -9.0, text="")]
    again = rescore_with_words(nbest, BIGRAM, 0.5, 0.1)
    assert [h.text for h in again] == ["a b", "b a", ""]
    assert again[0].components["lm_words"] == pytest.approx(math.log(10) * -0.6)
    assert again[0].score == pytest.approx(-1.2 + 0.5 * math.log(10) * -0.6 + 0.2)


@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_search_over_words_equals_exhaustive_enumeration(summed, seed):
    log_probs = (1.5 * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.double)).log_softmax(-1)
    words = {"a": (2,), "ba": (3, 2), "aa": (2, 2), "b": (3,)}
    options = SummedOptions(0.7, -0.4, beam=5000, nbest=5000, summed=summed)
    found = ctc_word_beam(log_probs, words.items(), BIGRAM, options, blank=0, delimiter=1)
    exact = {}
    for count in range(4):
        for text in itertools.product(words, repeat=count):
            symbols = tuple(symbol for word in text for symbol in (*words[word], 1))[:-1]
            if summed:
                scorer = PrefixScorer(log_probs[None], torch.tensor([6]))
                state = scorer.start(torch.tensor([0]))
                for symbol in symbols:
                    state = scorer.advance(state, torch.tensor([0]), torch.tensor([symbol]))
                heard = float(state.complete())
            else:
                heard = ctc_align(log_probs, symbols)[2]
            if heard > -math.inf:
                steps = [("<s>", *text, "</s>")[place : place + 2] for place in range(count + 1)]
                said = sum(math.log(10) * BIGRAM.score((BIGRAM.extend((), a) if a != "<s>" else ("<s>",)), b) for a, b in steps)
                exact[text] = heard + 0.7 * said - 0.4 * count
    assert {tuple(h.text.split()) for h in found} == set(exact)
    assert all(h.score == pytest.approx(exact[tuple(h.text.split())], abs=1e-9) for h in found)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_a_search_over_words_needs_a_beam_as_wide_as_its_list():
    with pytest.raises(ValueError, match="cannot give 3"):
        SummedOptions(beam=2, nbest=3)
    assert ctc_word_beam(torch.zeros(0, 3), [("a", (2,))], None)[0].text == ""


def test_times_are_those_of_the_best_ctc_path_and_stay_out_where_there_is_none():
    log_probs = torch.full((4, 3), -9.0)
    log_probs[torch.arange(4), torch.tensor([1, 1, 0, 2])] = -0.1
    timed, untimed = add_times([Hypothesis((1, 2), -1.0), Hypothesis((1, 1, 1), -2.0)], log_probs)
    assert timed.timesteps == ((0, 2), (3, 4))
    assert timed.token_scores == pytest.approx((-0.1, -0.1))
    assert untimed.timesteps == ()


@pytest.mark.parametrize("convention", ["fairseq", "espnet"])
def test_a_language_model_may_lack_the_last_ids_where_they_are_never_written_and_no_others(convention):
    generator = torch.Generator().manual_seed(0)
    tables, lengths = torch.randn(1, 4, 8, 8, generator=generator), torch.tensor([4])
    small = torch.randn(6, 6, generator=generator)
    # The same, and all but nothing for the others.
    whole = torch.nn.functional.pad(small.log_softmax(-1).exp(), (0, 2, 0, 2), value=1e-30).log()

    def search(language_model, never):
        if convention == "fairseq":
            options = BeamOptions(beam=4, nbest=4, max_len_a=0, max_len_b=4, lm_weight=0.7, never=never)
            return attention_beam(TableDecoder(), tables, lengths, options, language_model)[0]
        options = JointOptions(beam=4, nbest=4, ctc_weight=0.0, lm_weight=0.7, never=(1, *never))
        return joint_beam(TableDecoder(), tables, lengths, None, options, language_model)[0]

    found, expected = (search(TableLanguageModel(table), (6, 7)) for table in (small, whole))
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    assert [h.score for h in found] == pytest.approx([h.score for h in expected], abs=1e-4)
    for never in ((), (7,), (5, 6)):
        with pytest.raises(ValueError, match="The language model knows 6 tokens and the recogniser 8"):
            search(TableLanguageModel(small), never)
    with pytest.raises(ValueError, match="The language model knows 9 tokens and the recogniser 8"):
        search(TableLanguageModel(torch.zeros(9, 9)), (6, 7))
