"""Sentences of the reader: distinct, repeatable, and translated word for word and in German order."""

import numpy as np

from preprocess.synthesis.tales import DEEDS, THINGS, TIMES, distinct_tales


def test_sentences_are_distinct_and_repeat_with_their_seed() -> None:
    made = distinct_tales(500, np.random.default_rng(3))
    assert len({each.english for each in made}) == len({each.german for each in made}) == 500
    assert made == distinct_tales(500, np.random.default_rng(3))
    assert made != distinct_tales(500, np.random.default_rng(4))


def test_sentences_are_words_and_spaces_alone() -> None:
    for each in distinct_tales(500, np.random.default_rng(1)):
        for text in (each.english, each.german):
            assert text == text.lower() == " ".join(text.split())
            assert text.replace(" ", "").isalpha()


def test_the_german_verb_stands_behind_the_time_and_articles_agree() -> None:
    articles = {"m": "einen", "f": "eine", "n": "ein"}
    for each in distinct_tales(300, np.random.default_rng(2)):
        [(_, time)] = [pair for pair in TIMES if each.english.startswith(f"{pair[0]} ")]
        [(english, verb)] = [pair for pair in DEEDS if f" {pair[0]} a " in each.english]
        assert each.german.startswith(f"{time} {verb} "), english
        [thing] = [noun for noun in THINGS if f" {noun.english} " in each.english.partition(f" {english} a ")[2] + " "]
        words = each.german.split()
        assert words[words.index(thing.german, 3) - 2] == articles[thing.gender]
