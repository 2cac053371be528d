"""Two toy languages into which the commands of the synthetic corpus are translated, word by word from a list and by one rule of order.

A command is verb, colour, preposition, letter, digit, adverb ("place blue at f nine now"). Toy German keeps this order; toy Italian puts
the colour behind the digit. Letters keep their names. Neither is more than that: no inflection, no choice of words. They stand in for the
target languages of speech translation where only what translation teaches about English speech is asked for.
"""

import dataclasses
from pathlib import Path

from avtlm.data.manifest import Manifest, read_manifest, write_manifest
from preprocess.synthesis.sentences import GRAMMAR

GERMAN = (
    ("wirf", "lege", "stelle", "setze"),
    ("blau", "grün", "rot", "weiß"),
    ("an", "bei", "in", "mit"),
    GRAMMAR[3],
    ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
    ("wieder", "jetzt", "bitte", "bald"),
)
ITALIAN = (
    ("getta", "posa", "colloca", "metti"),
    ("blu", "verde", "rosso", "bianco"),
    ("presso", "accanto", "dentro", "con"),
    GRAMMAR[3],
    ("zero", "uno", "due", "tre", "quattro", "cinque", "sei", "sette", "otto", "nove"),
    ("ancora", "adesso", "prego", "presto"),
)
# Words of each language, and in which order the parts of an English command stand there.
LANGUAGES = {"german": (GERMAN, (0, 1, 2, 3, 4, 5)), "italian": (ITALIAN, (0, 2, 3, 4, 1, 5))}


def translate(command: str, language: str) -> str:
    """A command of the corpus in a toy language.

    Raises:
        ValueError: it is none.
    """
    words, order = LANGUAGES[language]
    said = command.split()
    if len(said) != len(GRAMMAR) or any(word not in part for word, part in zip(said, GRAMMAR, strict=True)):
        raise ValueError(f"{command!r}: is no command of the synthetic corpus (verb, colour, preposition, letter, digit, adverb).")
    found = [part[english.index(word)] for word, part, english in zip(said, words, GRAMMAR, strict=True)]
    return " ".join(found[place] for place in order)


def add_translations(manifest: Path, out: Path) -> None:
    """Write a manifest whose rows have their translations in ``extra``, by the names of the languages.

    Raises:
        ValueError: a transcript is no command.
    """
    corpus = read_manifest(manifest)
    rows = []
    for row in corpus:
        said = {language: translate(row.transcript or "", language) for language in LANGUAGES}
        rows.append(dataclasses.replace(row, extra={**row.extra, **said}))
    write_manifest(out, Manifest(corpus.root, tuple(rows)))
