"""Holes in texts."""

from typing import Any

import pytest
import torch

from avtlm.objectives.infilling import InfillingConfig, TorchDraws, infill, span_probabilities

MASK, TEXT = 30, [0, *range(4, 24), 2]


def text_with_holes(*given: Any) -> list[int]:
    """Without what is to be written."""
    return infill(*given)[0]


class Draws:
    """Given numbers."""

    def __init__(self, spans: list[int], order: list[list[int]], uniform: list[float], tokens: list[list[int]], count: int = 6) -> None:
        self._count = count
        self._spans, self._order, self._uniform, self._tokens = spans, order, uniform, tokens

    def spans(self, count: int) -> list[int]:
        assert count == self._count
        return list(self._spans)

    def order(self, count: int) -> list[int]:
        del count
        return self._order.pop(0)

    def uniform(self, count: int) -> list[float]:
        return self._uniform[:count]

    def tokens(self, count: int) -> list[int]:
        del count
        return self._tokens.pop(0)

    def turn(self, chance: float, count: int) -> int:
        return min(3, count) if chance else 0


def test_a_span_becomes_one_mask_symbol() -> None:
    draws = Draws([4, 2, 9], [[0, 10]], [0.5, 0.5], [[]])
    assert text_with_holes(TEXT, MASK, InfillingConfig(), draws) == [0, MASK, *range(8, 14), MASK, *range(16, 24), 2]


def test_some_spans_become_a_random_token() -> None:
    draws = Draws([6], [[3]], [0.05], [[28]])
    assert text_with_holes(TEXT, MASK, InfillingConfig(), draws) == [0, 4, 5, 6, 28, *range(13, 24), 2]


def test_a_span_may_leave_a_mask_symbol_for_each_token_or_nothing() -> None:
    # Of each step of the spans, those that are random tokens are drawn together, until there are none.
    each = Draws([4, 2], [[0, 10]], [0.05, 0.5], [[20], [21], [22], [23], []])
    found = text_with_holes(TEXT, MASK, InfillingConfig(trace="tokens"), each)
    assert found == [0, 20, 21, 22, 23, *range(8, 14), MASK, MASK, *range(16, 24), 2]
    none = text_with_holes(TEXT, MASK, InfillingConfig(trace="nothing"), Draws([4, 2], [[0, 10]], [0.5, 0.5], []))
    assert none == [0, *range(8, 14), *range(16, 24), 2]


def test_further_mask_symbols_are_put_in_afterwards() -> None:
    draws = Draws([6], [[0], [3, 9]], [0.5], [[], []])
    found = text_with_holes(TEXT, MASK, InfillingConfig(random=0.0, inserted=0.1), draws)  # a tenth of 17, rounded up
    assert found == [0, MASK, 10, 11, MASK, 12, 13, 14, 15, 16, MASK, *range(17, 24), 2]


def test_spans_of_words_take_whole_words() -> None:
    begins = [0 < place < 21 and place % 3 == 1 for place in range(22)]  # 4, 7, ..., 22 begin words: 7, of which 3 are hidden
    draws = Draws([2, 1], [[1, 6, 0]], [0.5, 0.5], [[]], count=3)
    assert text_with_holes(TEXT, MASK, InfillingConfig(), draws, begins) == [0, 4, 5, 6, MASK, *range(13, 22), MASK, 2]


def test_holes_may_be_of_single_words() -> None:
    draws = Draws([], [[4, 0, 9, 19, 2, 7]], [0.5] * 6, [[]])
    gone = {8, 4, 13, 23, 6, 11}
    assert text_with_holes(TEXT, MASK, InfillingConfig(mean_span=0.0), draws) == [MASK if token in gone else token for token in TEXT]


def test_a_span_ends_before_the_end_symbol() -> None:
    assert text_with_holes(TEXT, MASK, InfillingConfig(), Draws([6], [[18]], [0.5], [[]])) == [0, *range(4, 22), MASK, 2]


def test_spans_of_no_tokens_put_mask_symbols_in() -> None:
    found = text_with_holes(TEXT, MASK, InfillingConfig(random=0.0), Draws([0, 6], [[0], [4]], [0.5], [[], []]))
    assert found == [0, MASK, 10, 11, 12, MASK, *range(13, 24), 2]


def test_texts_are_hidden_as_often_as_asked_for() -> None:
    generator = torch.Generator().manual_seed(0)
    long = [0, *[5] * 200, 2]
    kept = [text_with_holes(long, MASK, InfillingConfig(), TorchDraws(generator, 3.5, 32)).count(5) / 200 for _ in range(40)]
    assert sum(kept) / len(kept) == pytest.approx(0.7, abs=0.05)  # overlapping spans hide fewer, random ones may be a 5


@pytest.mark.parametrize("text", [[0, 2], [0, 5, 2]])
def test_short_texts_keep_their_ends(text: list[int]) -> None:
    for seed in range(20):
        found = text_with_holes(text, MASK, InfillingConfig(), TorchDraws(torch.Generator().manual_seed(seed), 3.5, 32))
        assert (found[0], found[-1]) == (0, 2)


def test_sentences_may_change_places() -> None:
    text = [0, 5, 6, 2, 7, 2, 8, 9, 2]
    draws = Draws([], [[2, 0, 1], [1, 0]], [], [])  # the third and the first of them
    assert text_with_holes(text, MASK, InfillingConfig(share=0.0, permuted=0.5), draws) == [0, 8, 9, 7, 2, 5, 6, 2, 2]
    found = infill(text, MASK, InfillingConfig(share=0.0, permuted=1.0), TorchDraws(torch.Generator().manual_seed(1), 3.5, 32))
    assert sorted(found[0]) == sorted(text)
    assert found[1] == text


def test_a_text_may_begin_with_another_of_its_tokens() -> None:
    assert text_with_holes([0, 5, 6, 7, 8, 2], MASK, InfillingConfig(share=0.0, rotated=1.0), Draws([], [], [], [])) == [0, 7, 8, 5, 6, 2]
    draws = TorchDraws(torch.Generator().manual_seed(0), 3.5, 32)
    turned = [text_with_holes(TEXT, MASK, InfillingConfig(share=0.0, rotated=0.5), draws) != TEXT for _ in range(200)]
    assert 0.35 < sum(turned) / len(turned) < 0.65


def test_numbered_mask_symbols_ask_for_what_they_hide_alone() -> None:
    draws = Draws([4, 2], [[0, 10]], [0.5, 0.5], [[]])
    holed, written = infill(TEXT, MASK, InfillingConfig(numbered=5), draws)
    assert holed == [0, MASK + 2, *range(8, 14), MASK + 3, *range(16, 24), 2]
    assert written == [MASK + 2, 4, 5, 6, 7, MASK + 3, 14, 15, 2]


def test_lengths_are_poisson() -> None:
    table = span_probabilities(3.5)
    assert table.sum() == pytest.approx(1.0, abs=1e-5)
    assert float((table * torch.arange(len(table))).sum()) == pytest.approx(3.5, abs=1e-4)
    with pytest.raises(ValueError, match="share 2"):
        InfillingConfig(share=2)
