"""Claims about error rates and their intervals."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from avtlm.evaluation.wer import (
    align_words,
    bootstrap_interval,
    corpus_cer,
    corpus_per,
    corpus_wer,
    error_table,
    slot_errors,
    word_errors,
)

CASE = json.loads((Path(__file__).parents[1] / "golden" / "evaluation" / "wer_cer" / "case.json").read_text())
PAIRS = [(case["ref"], case["hyp"]) for case in CASE["cases"]]
sentences = st.lists(st.sampled_from(["a", "b", "c"]), max_size=6).map(" ".join)


def test_corpus_rates_are_sums_over_sums():
    words, characters = corpus_wer(PAIRS), corpus_cer(PAIRS)
    assert (words.words, words.rate) == (CASE["corpus"]["words"]["n_ref"], pytest.approx(CASE["corpus"]["words"]["wer"], abs=1e-9))
    assert (characters.words, characters.rate) == (104, pytest.approx(CASE["corpus"]["chars"]["cer"], abs=1e-9))
    assert words.errors == words.substitutions + words.deletions + words.insertions
    assert corpus_cer(PAIRS, spaces=False).rate == pytest.approx(CASE["corpus_extra"]["cer_without_spaces"], abs=1e-9)


def edit_distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, above = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


@settings(max_examples=60, deadline=None)
@given(sentences, sentences)
def test_errors_are_the_edit_distance_and_the_alignment_spells_both_sides(reference, hypothesis):
    errors, words = word_errors(reference, hypothesis)
    assert errors == edit_distance(reference.split(), hypothesis.split())
    assert words == len(reference.split())
    pairs = align_words(reference, hypothesis)
    assert " ".join(pair.reference for pair in pairs if pair.reference) == reference
    assert " ".join(pair.hypothesis for pair in pairs if pair.hypothesis) == hypothesis
    assert sum(pair.kind != "equal" for pair in pairs) == errors


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30), st.integers(0, 1000))
def test_the_interval_holds_the_rate_and_the_seed_fixes_it(counts, seed):
    errors, words = np.asarray(counts).T
    low, high = bootstrap_interval(errors, words, 50, seed)
    assert low <= errors.sum() / max(words.sum(), 1) <= high
    assert (low, high) == bootstrap_interval(errors, words, 50, seed)


def test_the_interval_has_the_width_that_theory_gives():
    rng = np.random.default_rng(0)
    errors, words = rng.binomial(6, 0.2, size=400), np.full(400, 6)
    low, high = bootstrap_interval(errors, words)
    expected = 2 * 1.96 * np.sqrt(0.2 * 0.8 / 2400)
    assert high - low == pytest.approx(expected, rel=0.15)


def test_a_large_corpus_is_drawn_in_pieces(monkeypatch):
    errors, words = np.arange(50) % 3, np.full(50, 4)
    whole = bootstrap_interval(errors, words, 100, 7)
    monkeypatch.setattr("avtlm.evaluation.wer.CHUNK", 200)
    assert bootstrap_interval(errors, words, 100, 7) == whole


def test_slots_of_a_command_are_counted_by_position():
    pairs = [("bin blue at f", "bin red at f"), ("set green by g", "set green g"), ("lay red in z", "well lay red in z")]
    rates = slot_errors(pairs, ["command", "colour", "preposition", "letter"])
    assert [rate.errors for rate in rates.values()] == [0, 1, 1, 0]
    assert rates["colour"].rate == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="3 words, not one for each of the 2 slots"):
        slot_errors([("a b c", "a")], ["x", "y"])


def test_any_white_space_divides_words():
    assert word_errors("one\ttwo\n three", "one two three") == (0, 3)


def test_no_pairs_are_refused():
    for function in (corpus_wer, corpus_cer):
        with pytest.raises(ValueError, match="at least one pair"):
            function([])


def test_the_table_shows_rate_interval_and_counts():
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(error_table({"audio": corpus_wer(PAIRS)}))
    text = console.export_text()
    assert "audio" in text
    assert "60.0" in text
    assert " 25 " in text


def test_phone_error_rate_counts_phones() -> None:
    rate = corpus_per([(["HH", "AH0", "L", "OW1"], ["HH", "L", "OW1"]), (["B", "IH1", "N"], ["P", "IH1", "N"])], resamples=10)
    assert (rate.errors, rate.words, rate.deletions, rate.substitutions) == (2, 7, 1, 1)
    assert corpus_per([((), ())], resamples=1).rate == 0
    for broken in ("AH 0", "", " "):
        with pytest.raises(ValueError, match="is no phone"):
            corpus_per([(["B"], [broken])])
