"""Fluent Speech Commands for intents (IC), Audio SNIPS for slots (SF).

    python -m preprocess.superb IC --root fluent_speech_commands_dataset --out DIR
    python -m preprocess.superb SF --root SNIPS --out DIR

IC (Lugosch et al., arXiv 1904.03670): ``data/{train,valid,test}_data.csv`` and ``wavs/``; an intent is an action, an object and a location.
SF (Lai et al., arXiv 2010.13105), as s3prl has it: ``all.iob.snips.txt`` with lines ``ID BOS WORDS EOS<tab>O TYPES INTENT`` and
``{train,valid,test}/<speaker>-snips-<split>-<number>.wav``, of which training, dev and test have speakers of their own. A slot is marked
``B-type words E-type``; neighbouring words of one type are one slot.
"""

from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, lines, table
from preprocess.superb.folder import divided

SPLITS = ("train", "valid", "test")
INTENT = ("action", "object", "location")
FLUENT = {"train": 23_132, "valid": 3_118, "test": 3_793}
SPEAKERS = {
    "train": ("Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"),
    "valid": ("Aditi", "Amy", "Geraint", "Nicole"),
    "test": ("Brian", "Emma", "Raveena", "Russell"),
}
SNIPS = {"train": 13_084 * 8, "valid": 700 * 4, "test": 700 * 4}


def _fluent(root: Path) -> Listing:
    root = find_root(root, ["wavs"])
    listing = Listing(root, published=FLUENT)
    for split in SPLITS:
        for row in table(root / "data" / f"{split}_data.csv", ("path", "speakerId", *INTENT)):
            name = row["path"].removesuffix(".wav").removeprefix("wavs/speakers/")
            extra = {"part": split, "labels": [row[slot] for slot in INTENT]}
            listing.rows.append(Utterance(name, audio=row["path"], speaker=row["speakerId"], split=split, extra=extra))
    return listing


def marked(words: list[str], types: list[str]) -> str:
    """Words with the marks of their slots.

    Args:
        types: one for each word, ``O`` outside of slots; ``B-`` and ``I-`` before a type may say where one begins.
    """
    assert len(words) == len(types)
    kinds = ["O", *(kind.removeprefix("B-").removeprefix("I-") for kind in types), "O"]
    begins = [kind.startswith("B-") for kind in types] + [False]
    found = []
    for place, word in enumerate(words):
        if word and word in "?!.,;-":
            continue
        kind = kinds[place + 1]
        if kind != "O" and (kinds[place] != kind or begins[place]):
            found.append(f"B-{kind}")
        found.append("AND" if word == "&" else word)
        if kind != "O" and (kinds[place + 2] != kind or begins[place + 1]):
            found.append(f"E-{kind}")
    return " ".join(found)


def _snips(root: Path) -> Listing:
    root = find_root(root, SPLITS)
    listing = Listing(root, published=SNIPS)
    split_of = {speaker: split for split, speakers in SPEAKERS.items() for speaker in speakers}
    path, others = root / "all.iob.snips.txt", 0
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        said, _, kinds = line.partition("\t")
        name, _, sentence = said.partition(" ")
        words, types = sentence.split(" ")[1:-1], kinds.split(" ")[1:-1]
        if not words or len(words) != len(types):
            raise ValueError(f"{path}, line {number}: {line!r:.60} is not 'ID BOS WORDS EOS<tab>O TYPES INTENT' with a type for each word.")
        speaker, folder = name.partition("-")[0], name.split("-")[2:3]
        split = split_of.get(speaker)
        if split is None or folder != [split]:
            others += 1
            continue
        extra = {"part": split, "text": marked(words, types)}
        listing.rows.append(Utterance(name, audio=f"{split}/{name}.wav", speaker=speaker, split=split, extra=extra))
    if others:
        listing.remarks.append(f"{others:,} sentences are of speakers of another split and not used")
    return listing


COMMANDS = SoundCorpus("fluent", "Fluent Speech Commands", _fluent)
AUDIO_SNIPS = SoundCorpus("snips", "Audio SNIPS", _snips)


INTENTS = divided("IC", COMMANDS, "labels")
SLOTS = divided("SF", AUDIO_SNIPS, "text")
