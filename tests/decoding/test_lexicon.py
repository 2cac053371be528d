"""The lexicon search equals enumeration (and flashlight: tests/test_golden.py); n-grams back off."""

import itertools
from pathlib import Path

import pytest
import torch

from avtlm.decoding.lexicon import LexiconDecoder, LexiconOptions, read_lexicon
from avtlm.decoding.ngram import END, START, NGram

ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-2.0\t<unk>
-99\t<s>\t-0.3
-0.9\t</s>
-0.5\tAB\t-0.2
-0.7\tB\t-0.4

\\2-grams:
-0.1\t<s> AB
-0.2\tAB B

\\end\\
"""
BLANK, SILENCE, A, B = range(4)
LEXICON = [("AB", (A, B, SILENCE)), ("B", (B, SILENCE)), ("AB", (A, SILENCE))]


@pytest.fixture
def model(tmp_path: Path) -> NGram:
    (tmp_path / "lm.arpa").write_text(ARPA)
    return NGram.read(tmp_path / "lm.arpa")


def test_n_grams_back_off(model: NGram) -> None:
    assert model.order == 2
    assert model.score((START,), "AB") == -0.1
    assert model.score((START,), "B") == pytest.approx(-0.3 - 0.7)
    assert model.score(("B",), "AB") == pytest.approx(-0.4 - 0.5)
    assert model.score(("AB",), END) == pytest.approx(-0.2 - 0.9)
    assert model.score(("B",), "never") == pytest.approx(-0.4 - 2.0)
    assert model.extend(("AB",), "B") == ("B",)
    assert model.extend((), "never") == ("<unk>",)


def spelled(path: tuple[int, ...]) -> tuple[int, ...]:
    """Symbols of a path without repeats and blanks, after an artificial silence, which a first silence repeats."""
    return tuple(symbol for symbol, _ in itertools.groupby((SILENCE, *path)) if symbol != BLANK)[1:]


def readings(symbols: tuple[int, ...]) -> set[tuple[str, ...]]:
    """All ways to read symbols as words with any silence between them."""
    if not symbols:
        return {()}
    found = readings(symbols[1:]) if symbols[0] == SILENCE else set()
    for word, spelling in LEXICON:
        if symbols[: len(spelling)] == spelling:
            found |= {(word, *rest) for rest in readings(symbols[len(spelling) :])}
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_search_equals_enumeration_of_all_paths(model: NGram, seed: int) -> None:
    emissions = 2 * torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
    options = LexiconOptions(beam=10_000, threshold=1e9, lm_weight=1.5, word_score=0.4, silence_score=-0.2, nbest=3)
    best: dict[tuple[str, ...], float] = {}
    for path in itertools.product(range(4), repeat=6):
        for words in readings(spelled(path)):
            score = sum(emissions[frame, symbol].item() for frame, symbol in enumerate(path)) + 0.4 * len(words)
            score -= 0.2 * path.count(SILENCE)
            for before, word in itertools.pairwise((START, *words, END)):
                score += 1.5 * model.score((before,), word)
            best[words] = max(best.get(words, float("-inf")), score)
    expected = sorted(best.items(), key=lambda each: -each[1])[:3]
    found = LexiconDecoder(LEXICON, model, options, BLANK, SILENCE).decode(emissions)
    assert [each.words for each in found] == [words for words, _ in expected]
    assert [each.score for each in found] == pytest.approx([score for _, score in expected], abs=1e-4)
    for each in found:
        assert len(each.path) == 8
        assert each.words in readings(spelled(each.path[1:-1]))


def test_pruning_keeps_the_best_of_clear_emissions(model: NGram) -> None:
    emissions = torch.full((8, 4), -20.0)
    for frame, symbol in enumerate([A, B, SILENCE, BLANK, B, B, SILENCE, SILENCE]):
        emissions[frame, symbol] = 0.0
    [found] = LexiconDecoder(LEXICON, model, LexiconOptions(beam=3, threshold=5.0), BLANK, SILENCE).decode(emissions)
    assert found.words == ("AB", "B")


def test_wrong_files_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("AB\tA B |\nCD\tC D |\n")
    with pytest.raises(ValueError, match=r"line 2: symbol 'C' is not in the vocabulary"):
        read_lexicon(path, {"A": 2, "B": 3, "|": 1})
    path.write_text("AB\n")
    with pytest.raises(ValueError, match=r"line 1: expected a word, a tab"):
        read_lexicon(path, {})
    path.write_text("\\1-grams:\n-0.5 A B C D\n")
    with pytest.raises(ValueError, match=r"line 2: 5 fields where a 1-gram has 2 or 3"):
        NGram.read(path)
    path.write_text("nothing")
    with pytest.raises(ValueError, match="no n-grams"):
        NGram.read(path)


def best(model: NGram, emissions: torch.Tensor, **options: object) -> list[tuple[tuple[str, ...], float]]:
    chosen = LexiconOptions(**{"beam": 10_000, "threshold": 1e9, "lm_weight": 1.0, "word_score": 0.0, "nbest": 50} | options)  # type: ignore[arg-type]
    return [(each.words, each.score) for each in LexiconDecoder(LEXICON, model, chosen, BLANK, SILENCE).decode(emissions)]


def test_words_spelled_alike_are_smeared_together(model: NGram) -> None:
    alike = [("AB", (A, SILENCE)), ("B", (A, SILENCE)), ("B", (B, SILENCE))]
    root = LexiconDecoder(alike, model, LexiconOptions(), BLANK, SILENCE).root
    together = torch.logaddexp(torch.tensor(-0.1), torch.tensor(-1.0)).item()
    assert root.children[A].best == pytest.approx(together)
    assert root.children[A].children[SILENCE].best == pytest.approx(together)
    assert root.children[B].best == pytest.approx(-1.0)


def test_a_search_that_ends_within_words_gives_every_way_to_go_on(model: NGram) -> None:
    emissions = torch.full((1, 4), -30.0)
    emissions[0, [A, B]] = torch.tensor([-1.0, -2.0])
    found = best(model, emissions, beam=2)
    assert [words for words, _ in found] == [(), ()]
    assert found[0][1] > found[1][1]


def test_hypotheses_far_behind_the_best_are_not_given_out(model: NGram) -> None:
    emissions = 2 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    whole = best(model, emissions)
    near = best(model, emissions, threshold=3.0)
    assert 1 < len(near) < len(whole)
    assert near[-1][1] >= near[0][1] - 3.0


def test_unknown_words_end_anywhere_and_cost_what_is_asked(model: NGram) -> None:
    emissions = torch.full((2, 4), -30.0)
    emissions[0, A] = emissions[1, B] = 0.0
    assert all("<unk>" not in words for words, _ in best(model, emissions))
    dear, cheap = (dict(best(model, emissions, unknown_score=score)) for score in (-9.0, 1.0))
    words = ("<unk>", "<unk>")
    assert cheap[words] == pytest.approx(dear[words] + 20.0)
    expected = model.score((START,), "<unk>") + model.score(("<unk>",), "<unk>") + model.score(("<unk>",), END) + 2.0
    assert cheap[words] == pytest.approx(expected)


def test_words_are_spelled_with_the_best_symbols_of_a_frame_alone(model: NGram) -> None:
    emissions = torch.tensor([[0.0, -1.0, -2.0, -3.0], [0.0, -1.0, -2.0, -3.0], [0.0, -1.0, -2.0, -3.0]])
    assert {words for words, _ in best(model, emissions, symbols=2)} == {()}
    assert ("AB",) in {words for words, _ in best(model, emissions, symbols=3)}
