"""Claims about hot words: a text has exactly the sum of its bonuses, in every search, however it falls into tokens."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.ctc_prefix import ctc_beam
from avtlm.decoding.hot_words import HotWords, spellings
from avtlm.decoding.joint import JointOptions, joint_beam
from avtlm.decoding.lexicon import LexiconDecoder, LexiconOptions
from avtlm.decoding.summed_words import SummedOptions, ctc_word_beam
from avtlm.text.subwords import Subwords
from avtlm.text.vocabulary import Vocabulary
from tests.decoding.step_models import AttendingDecoder, TableDecoder, TableLanguageModel
from tests.decoding.test_joint import ctc_log_prob

CHARACTERS = Vocabulary.characters(["ab c"])  # <s> <pad> </s> <unk> | a b c
BONUSES = {"ab": 1.5, "a": 0.7, "ab a": 2.0, "b ab": -0.9, "c": 0.3, "bab": 4.0}
END = 2


def subwords():
    return Subwords.train(["abba baba cab", "a cab abba", "bab ab ba cab"] * 20, 14)


def walked(hot: HotWords, tokens) -> float:
    """The sum of what every token and the end bring."""
    state, total = hot.initial_state(1), 0.0
    for fed, follows in itertools.pairwise([END, *tokens, END]):
        gains, state = hot.step(torch.tensor([fed]), state)
        total += float(gains[0, follows])
    return total


@settings(max_examples=60)
@given(st.lists(st.integers(3, 7), max_size=12))
def test_tokens_and_end_bring_the_bonuses_of_the_text(tokens):
    hot = HotWords(BONUSES, CHARACTERS)
    text = CHARACTERS.decode(tokens)
    padded = f" {text} "
    expected = sum(b * sum(padded.startswith(f" {w} ", i) for i in range(len(padded))) for w, b in BONUSES.items())
    assert walked(hot, tokens) == pytest.approx(expected, abs=1e-12)
    assert hot.total(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "vocabulary", [Vocabulary.letters(), Vocabulary.tokens(["ab a b"]), subwords()], ids=["letters", "tokens", "word pieces"]
)
@settings(max_examples=30)
@given(data=st.data())
def test_it_does_not_matter_how_a_text_falls_into_tokens(vocabulary, data):
    tokens = data.draw(st.lists(st.integers(3, min(len(vocabulary) - 1, 12)), max_size=10))
    words = ("AB", "TE", "A") if vocabulary == Vocabulary.letters() else ("ab", "ba", "ab a")
    known = {word: 1.0 + place for place, word in enumerate(words) if not vocabulary.unknown_report([word]).unknown}
    hot = HotWords(known, vocabulary)
    assert walked(hot, tokens) == pytest.approx(hot.total(vocabulary.decode(tokens)), abs=1e-12)


def test_a_word_split_in_two_ways_has_its_bonus_in_both():
    vocabulary = subwords()
    pieces = spellings(vocabulary)
    splits = [
        tokens
        for length in range(1, 5)
        for tokens in itertools.product(range(4, len(pieces)), repeat=length)
        if "".join(pieces[token] for token in tokens) == " cab"
    ]
    assert len(splits) > 1
    assert {walked(HotWords({"cab": 2.5}, vocabulary), tokens) for tokens in splits} == {2.5}


def test_words_are_brought_into_the_spelling_of_the_model_or_refused():
    assert HotWords({"anna": 2.0}, Vocabulary.letters()).phrases == {"ANNA": 2.0}
    with pytest.raises(ValueError, match=r"hot_words: 'Ab' has 'A', which this model cannot write; is the case the same"):
        HotWords({"Ab": 1.0}, CHARACTERS)
    with pytest.raises(ValueError, match="has no letters"):
        HotWords({" ": 1.0}, CHARACTERS)


def test_a_share_of_the_bonus_counts_while_a_word_is_spelled_and_goes_again():
    hot = HotWords({"abc": 3.0}, CHARACTERS)
    state = hot.initial_state(1)
    gains, state = hot.step(torch.tensor([END]), state)
    assert float(gains[0, 5]) > 0  # "a" begins the word
    gains, state = hot.step(torch.tensor([5]), state)
    assert float(gains[0, 6]) > 0  # "b" goes on with it
    assert float(gains[0, 7]) < 0  # "c" does not
    assert float(gains[0, END]) < 0


# In the searches -------------------------------------------------------------------------------------------------------------------------

SHORT = {"a": 0.8, "b a": 1.7, "ab": 1.1}
WRITTEN = [4, 5, 6]  # | a b


def made(seed, rows=1, frames=4):
    generator = torch.Generator().manual_seed(seed)
    symbols = len(CHARACTERS)
    logits = 1.5 * torch.randn(rows, frames, symbols, generator=generator)
    logits[..., [1, 2, 3, 7]] = -1e4
    return torch.randn(rows, 4, symbols, symbols, generator=generator), logits.double().log_softmax(-1)


@settings(max_examples=6)
@given(st.integers(0, 10**6))
def test_ctc_beam_with_a_wide_beam_equals_enumeration_with_the_bonus(seed):
    _, ctc = made(seed)
    hot = HotWords(SHORT, CHARACTERS)
    [found] = ctc_beam(ctc, torch.tensor([4]), beam=200, nbest=200, hot_words=hot)
    exact = {}
    for length in range(5):
        for text in itertools.product(WRITTEN, repeat=length):
            score = ctc_log_prob(ctc[0], text) + hot.total(CHARACTERS.decode(text))
            if score > -1e3:
                exact[text] = score
    scores = {h.tokens: h.score for h in found}
    assert all(scores[text] == pytest.approx(score, abs=1e-9) for text, score in exact.items())
    assert found[0].tokens == max(exact, key=exact.__getitem__)
    assert all(h.score == pytest.approx(h.components["ctc"] + h.components["hot_words"], abs=1e-9) for h in found if h.score > -1e3)


@settings(max_examples=6)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 1.0]), st.booleans())
def test_joint_search_with_a_wide_beam_equals_enumeration_with_the_bonus(seed, weight, fused):
    longest = 2
    tables, ctc = made(seed, frames=5)
    table = torch.randn(8, 8, generator=torch.Generator().manual_seed(seed))
    wide, big = torch.full((1, 4, 40, 40), -1e4), torch.full((40, 40), -1e4)
    wide[:, :, :8, :8], big[:8, :8] = tables, table
    padded = torch.full((1, 5, 40), -1e4, dtype=torch.double)
    padded[..., :8] = ctc
    hot = HotWords(SHORT, Vocabulary([*CHARACTERS.symbols, *(f"x{i}" for i in range(32))]))
    options = JointOptions(
        beam=40, nbest=99, ctc_weight=weight, lm_weight=0.6 * fused, pre_beam=None, max_len_ratio=-(longest + 1),
        never=(0, 1, 3, *range(7, 40)),
    )  # fmt: skip
    [found] = joint_beam(TableDecoder(), wide, torch.tensor([5]), padded.log_softmax(-1), options, TableLanguageModel(big), hot)
    attention, lm = wide[0].log_softmax(-1), big.log_softmax(-1)
    scores = {h.tokens: h.score for h in found}
    for length in range(longest + 1):
        for text in itertools.product(WRITTEN, repeat=length):
            steps = list(enumerate(zip([END, *text], [*text, END], strict=True)))
            said = sum(float((1 - weight) * attention[place, a, b] + 0.6 * fused * lm[a, b]) for place, (a, b) in steps)
            expected = said + weight * ctc_log_prob(ctc[0], text) + hot.total(CHARACTERS.decode(text))
            if expected > -1e3:
                assert scores[text] == pytest.approx(expected, abs=1e-3)
    # What the limit cuts off has no share of a word that it leaves open.
    cut = [h for h in found if len(h.tokens) == longest + 1]
    assert cut
    assert all(h.components["hot_words"] == pytest.approx(hot.total(CHARACTERS.decode(h.tokens)), abs=1e-9) for h in cut)


@settings(max_examples=6)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0]))
def test_attention_search_with_a_wide_beam_equals_enumeration_with_the_bonus(seed, penalty):
    tables, _ = made(seed)
    hot = HotWords(SHORT, CHARACTERS)
    never = (0, 3, 7)
    options = BeamOptions(60, 60, penalty, normalize=penalty > 0, min_len=0, max_len_a=0, max_len_b=3, never=never)
    [found] = attention_beam(TableDecoder(), tables, torch.tensor([4]), options, hot_words=hot)
    log_probs = tables[0].log_softmax(-1)
    exact = {}
    for length in range(4):
        for text in itertools.product(WRITTEN, repeat=length):
            steps = enumerate(zip([END, *text], [*text, END], strict=True))
            said = sum(float(log_probs[place, a, b]) for place, (a, b) in steps) + hot.total(CHARACTERS.decode(text))
            exact[text] = said / (length + 1) ** penalty
    assert {h.tokens for h in found} == set(exact)
    assert all(h.score == pytest.approx(exact[h.tokens], abs=1e-4) for h in found)
    assert found[0].tokens == max(exact, key=exact.__getitem__)


@settings(max_examples=4)
@given(st.integers(0, 10**6))
def test_hot_words_of_a_row_do_not_depend_on_its_batch(seed):
    lengths, dim = [6, 0, 3], 4
    generator = torch.Generator().manual_seed(seed)
    hot, decoder = HotWords(BONUSES, CHARACTERS), AttendingDecoder(8, dim, seed)
    encoded = torch.randn(3, 6, dim, generator=generator)
    ctc = torch.randn(3, 6, 8, generator=generator).double().log_softmax(-1)
    joint = JointOptions(beam=4, nbest=4, ctc_weight=0.4, lm_weight=0.5)
    language = TableLanguageModel(torch.randn(8, 8, generator=generator))

    def run(rows):
        sizes = torch.tensor([lengths[row] for row in rows])
        longest = max(1, int(sizes.max()))
        part, heard = encoded[rows, :longest], ctc[rows, :longest]
        return (
            ctc_beam(heard, sizes, 4, nbest=4, hot_words=hot),
            joint_beam(decoder, part, sizes, heard, joint, language, hot),
            attention_beam(decoder, part, sizes, BeamOptions(4, 4, lm_weight=0.5), language, hot_words=hot),
        )

    together, alone = run([0, 1, 2]), [run([row]) for row in range(3)]
    for search in range(3):
        for row in range(3):
            ours, theirs = together[search][row], alone[row][search][0]
            assert [h.tokens for h in ours] == [h.tokens for h in theirs]
            for one, other in zip(ours, theirs, strict=True):
                assert one.score == pytest.approx(other.score, abs=1e-5)


LEXICON = [("ab", (5, 6, 4)), ("ba", (6, 5, 4)), ("a", (5, 4))]


def test_a_search_over_words_adds_the_bonus_of_its_words():
    _, ctc = made(5, frames=6)
    hot = HotWords({"ab": 2.0, "ba a": 3.0}, CHARACTERS)
    options = LexiconOptions(beam=2000, nbest=50, lm_weight=0.0, threshold=1e9)
    plain = {each.words: each.score for each in LexiconDecoder(LEXICON, None, options, 0, 4).decode(ctc[0]) if each.score > -500}
    biased = {each.words: each.score for each in LexiconDecoder(LEXICON, None, options, 0, 4, hot).decode(ctc[0]) if each.score > -500}
    assert len(plain) > 4
    assert {len(words) for words in plain} >= {1, 2}
    for words, score in plain.items():
        assert biased[words] == pytest.approx(score + hot.total(" ".join(words)), abs=1e-6)


def test_summed_alignments_add_the_bonus_of_their_words():
    _, ctc = made(6, frames=6)
    hot = HotWords({"ab": 2.0, "ba a": 3.0}, CHARACTERS)
    bonus = LexiconDecoder(LEXICON, None, LexiconOptions(), 0, 4, hot).bonus
    spelled = [(word, spelling[:-1]) for word, spelling in LEXICON]
    options = SummedOptions(0.0, 0.0, beam=5000, nbest=30)
    plain = {h.text: h.score for h in ctc_word_beam(ctc[0], spelled, None, options, 0, 4)}
    biased = ctc_word_beam(ctc[0], spelled, None, options, 0, 4, bonus)
    assert len(biased) > 4
    for hypothesis in biased:
        assert hypothesis.components["hot_words"] == hot.total(hypothesis.text)
        if math.isfinite(plain.get(hypothesis.text, -math.inf)):
            assert hypothesis.score == pytest.approx(plain[hypothesis.text] + hot.total(hypothesis.text), abs=1e-9)


def test_ids_that_are_never_written_spell_nothing():
    vocabulary = Vocabulary([*CHARACTERS.symbols, "<mask>", "<blank>"])
    plain, hot = HotWords(BONUSES, CHARACTERS, symbols=10), HotWords(BONUSES, vocabulary, never=(8, 9))
    for each in (plain, hot):
        state = each.initial_state(1)
        for token in (END, 5, 6):
            gains, state = each.step(torch.tensor([token]), state)
            assert gains.shape == (1, 10)
        assert gains[0, 8:].tolist() == [0.0, 0.0]
    assert torch.equal(plain.step(torch.tensor([5]), plain.initial_state(1))[0], hot.step(torch.tensor([5]), hot.initial_state(1))[0])
