"""What the synthetic reader reads: short sentences of English prose, all distinct, and each in German as well.

What is unusual here:
- Unlike commands (sentences.py) they are what language models know, so that recognisers of other makers can judge how well synthesised
  speech is understood.
- The German sentence has another order and inflected articles and adjectives, so that translating is more than spelling words anew.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tale:
    """One sentence, in lower case and without punctuation, in both languages."""

    english: str
    german: str


@dataclass(frozen=True)
class Noun:
    """A noun and its gender in German (m, f or n)."""

    english: str
    german: str
    gender: str


# Weak endings behind der, die, das; mixed ones behind ein, as subject (nominative) and object (accusative).
DEFINITE = {"m": "der", "f": "die", "n": "das"}
INDEFINITE = {"m": "einen", "f": "eine", "n": "ein"}
ENDINGS = {"m": "en", "f": "e", "n": "es"}

TIMES = (
    ("yesterday", "gestern"),
    ("last night", "gestern nacht"),
    ("one morning", "eines morgens"),
    ("last summer", "im letzten sommer"),
    ("in the winter", "im winter"),
    ("on monday", "am montag"),
    ("on friday", "am freitag"),
    ("after lunch", "nach dem essen"),
    ("before school", "vor der schule"),
    ("long ago", "vor langer zeit"),
)
PEOPLE = (
    Noun("man", "mann", "m"),
    Noun("woman", "frau", "f"),
    Noun("child", "kind", "n"),
    Noun("girl", "mädchen", "n"),
    Noun("teacher", "lehrer", "m"),
    Noun("doctor", "arzt", "m"),
    Noun("sister", "schwester", "f"),
    Noun("brother", "bruder", "m"),
    Noun("neighbor", "nachbar", "m"),
    Noun("farmer", "bauer", "m"),
    Noun("king", "könig", "m"),
    Noun("queen", "königin", "f"),
)
# With the stem that German endings follow.
CHARACTERS = (
    ("old", "alt"),
    ("young", "jung"),
    ("happy", "glücklich"),
    ("tired", "müd"),
    ("kind", "nett"),
    ("tall", "groß"),
    ("clever", "klug"),
    ("quiet", "still"),
)
DEEDS = (
    ("found", "fand"),
    ("saw", "sah"),
    ("bought", "kaufte"),
    ("lost", "verlor"),
    ("wanted", "wollte"),
    ("took", "nahm"),
    ("painted", "malte"),
    ("carried", "trug"),
    ("needed", "brauchte"),
    ("hid", "versteckte"),
)
LOOKS = (
    ("red", "rot"),
    ("green", "grün"),
    ("white", "weiß"),
    ("black", "schwarz"),
    ("small", "klein"),
    ("big", "groß"),
    ("new", "neu"),
    ("heavy", "schwer"),
    ("beautiful", "schön"),
    ("strange", "seltsam"),
)
THINGS = (
    Noun("ball", "ball", "m"),
    Noun("book", "buch", "n"),
    Noun("boat", "boot", "n"),
    Noun("lamp", "lampe", "f"),
    Noun("chair", "stuhl", "m"),
    Noun("bottle", "flasche", "f"),
    Noun("picture", "bild", "n"),
    Noun("letter", "brief", "m"),
    Noun("box", "kiste", "f"),
    Noun("shirt", "hemd", "n"),
    Noun("flower", "blume", "f"),
    Noun("table", "tisch", "m"),
)
PLACES = (
    ("in the garden", "im garten"),
    ("near the river", "am fluss"),
    ("behind the house", "hinter dem haus"),
    ("at the station", "am bahnhof"),
    ("in the forest", "im wald"),
    ("under the bridge", "unter der brücke"),
    ("in the kitchen", "in der küche"),
    ("on the street", "auf der straße"),
    ("at the market", "auf dem markt"),
    ("by the window", "am fenster"),
)


def tale(rng: np.random.Generator) -> Tale:
    """Any of 11.5 million sentences: time, somebody, deed, something, place."""
    time, place = TIMES[int(rng.integers(len(TIMES)))], PLACES[int(rng.integers(len(PLACES)))]
    who, what = PEOPLE[int(rng.integers(len(PEOPLE)))], THINGS[int(rng.integers(len(THINGS)))]
    character, look = CHARACTERS[int(rng.integers(len(CHARACTERS)))], LOOKS[int(rng.integers(len(LOOKS)))]
    deed = DEEDS[int(rng.integers(len(DEEDS)))]
    english = f"{time[0]} the {character[0]} {who.english} {deed[0]} a {look[0]} {what.english} {place[0]}"
    # The verb stands second whatever stands first, so that the subject follows it.
    subject = f"{DEFINITE[who.gender]} {character[1]}e {who.german}"
    thing = f"{INDEFINITE[what.gender]} {look[1]}{ENDINGS[what.gender]} {what.german}"
    return Tale(english, f"{time[1]} {deed[1]} {subject} {thing} {place[1]}")


def distinct_tales(count: int, rng: np.random.Generator) -> list[Tale]:
    """``count`` different sentences."""
    found: dict[str, Tale] = {}
    while len(found) < count:
        made = tale(rng)
        found.setdefault(made.english, made)
    return list(found.values())
