"""Speech of another domain (OOD-ASR): Common Voice 7 in Spanish, Chinese and Arabic, and the Santa Barbara Corpus of spoken English.

    python -m preprocess.superb OOD-ASR --corpus es|zh-CN|ar --root cv-corpus-7.0-2021-07-21 --out DIR [--copy]
    python -m preprocess.superb OOD-ASR --corpus sbcsae --root SBCSAE --out DIR

Common Voice: ``<language>/{train,dev,test}.tsv`` and ``clips/*.mp3``; of Spanish only the Mexican accent. Texts are in NFKC and upper case,
without punctuation and symbols but the apostrophe (by their Unicode category, which says nearly what s3prl's list does), Chinese without
spaces; sentences with letters of another script are left out. ``--copy`` writes 16 kHz FLAC, which is read much faster than MP3.

Santa Barbara (SBCSAE): ``trn/SBC001.trn`` and ``mp3/01.mp3`` or ``wav/SBC001.wav``. Intonation units of 0.1 to 15 s that no other unit
overlaps, and whose words are certain, are cut into files below OUT; recordings 1 to 46 train, 47 to 53 are dev, 54 to 60 the test
(github.com/vectominist/SBCSAE-preprocess).
"""

import argparse
import csv
import re
import unicodedata
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, table
from preprocess.superb.folder import Preparation, Prepared, prepared

SCRIPTS = {"es": "LATIN", "zh-CN": "CJK", "ar": "ARABIC"}
SPLITS = {"train": "train", "dev": "valid", "test": "test"}
ACCENT = {"es": "mexicano"}
MARKS = "ー\u02d0\u0301\u0303\u030c"  # that stand for no letter and are no punctuation either
LEAST, MOST = 0.1, 15.0  # seconds of a unit
DIVISION = {range(1, 47): "train", range(47, 54): "valid", range(54, 61): "test"}  # of recordings
SIGNS = re.compile(r"[-.,%?!@+~_*#&\"]")
LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ' ")


def normalised(sentence: str, language: str) -> str | None:
    """A sentence of Common Voice as it is to be recognised; None for one with letters of another script, or without any."""
    text = unicodedata.normalize("NFKC", sentence).upper().replace("’", "'").replace("ㄧ", "一")
    kept = ("".join(" " if _is_punctuation(sign) else sign for sign in text)).split()
    text = "".join(kept) if language == "zh-CN" else " ".join(kept)
    own = "'" if language == "es" else ""
    letters = [sign for sign in text if sign != " " and unicodedata.category(sign)[0] in "LP"]
    if not letters or any(sign not in own and not unicodedata.name(sign, "").startswith(SCRIPTS[language]) for sign in letters):
        return None
    return text


def _is_punctuation(sign: str) -> bool:
    return sign != "'" and (unicodedata.category(sign)[0] in "PSZC" or sign in MARKS)


def _common_voice(root: Path, language: str) -> Listing:
    root = root if (root / "train.tsv").is_file() else find_root(root, (language,)) / language
    listing = Listing(root)
    wanted = ACCENT.get(language)
    other = 0
    for part, split in SPLITS.items():
        columns = ("path", "sentence", "client_id", *(("accent",) if wanted else ()))
        for row in table(root / f"{part}.tsv", columns, delimiter="\t", quoting=csv.QUOTE_NONE):
            if wanted and row["accent"] != wanted:
                other += 1
                continue
            text, audio = normalised(row["sentence"], language), f"clips/{row['path']}"
            if text is None:
                listing.left_out[str(root / audio)] = "its sentence has letters of another script, or none"
                continue
            extra = {"part": part}
            listing.rows.append(
                Utterance(Path(row["path"]).stem, audio=audio, transcript=text, speaker=row["client_id"], split=split, extra=extra)
            )
    if other:
        listing.remarks.append(f"{other:,} clips of another accent than {wanted} are not used")
    return listing


def units(path: Path) -> list[tuple[float, float, str]]:
    """Start, end and text of the units of a transcript that can be recognised.

    Raises:
        OSError: it cannot be read.
    """
    found = []
    # Some of these files hold bytes that are no UTF-8.
    for line in path.read_text(encoding="utf-8", errors="ignore").split("\n"):
        times, text = _fields(line)
        words = certain_words(text)
        if times is not None and words and LEAST <= times[1] - times[0] <= MOST:
            found.append((*times, words))
    found.sort(key=lambda unit: unit[1])
    kept: list[tuple[float, float, str]] = []
    for unit in found:  # of units that overlap none is kept
        alone = True
        while kept and unit[0] < kept[-1][1]:
            kept.pop()
            alone = False
        if alone:
            kept.append(unit)
    return kept


def _fields(line: str) -> tuple[tuple[float, float] | None, str]:
    """Times and text of a line, whichever of the corpus's ways it is written in; no times where there are none."""
    fields = line.strip("\t\n").split("\t")
    if len(fields) == 4 and " " not in fields[0].strip():
        times = fields[:2]
    else:
        times = fields[0].split()[:2]
    try:
        return ((float(times[0]), float(times[1])) if len(fields) in (2, 3, 4) else None), fields[-1]
    except (ValueError, IndexError):
        return None, fields[-1]


def certain_words(text: str) -> str:
    """Words of a unit in upper case; nothing for one that another speaker overlaps (brackets), is uncertain (``<``, ``X``) or cannot be
    spelt with 26 letters."""
    if re.search(r"[\[\]<>]", text):
        return ""
    text = re.sub(r"\([^)]*\)", "", text).replace("=", "").replace("’", "'")
    words = SIGNS.sub(" ", text).upper().split()
    text = f" {' '.join(words)} "
    if "XX" in text or " X " in text or not set(text) <= LETTERS:
        return ""
    return text.strip() if len(text.strip()) > 1 else ""


def _recordings(root: Path) -> Listing:
    """Whole recordings, with their units."""
    root = find_root(root, ["trn"])
    listing = Listing(root)
    for numbers, split in DIVISION.items():
        for number in numbers:
            name = f"SBC{number:03d}"
            transcript = root / "trn" / f"{name}.trn"
            places = (f"wav/{name}.wav", f"mp3/{number:02d}.mp3", f"mp3/{name}.mp3")
            audio = next((place for place in places if (root / place).is_file()), None)
            if not transcript.is_file() or audio is None:
                listing.left_out[str(transcript if audio else root / places[1])] = "is not there"
                continue
            listing.rows.append(Utterance(name, audio=audio, split=split, extra={"part": split, "units": units(transcript)}))
    return listing


RECORDINGS = SoundCorpus("sbcsae", "the Santa Barbara Corpus", _recordings)


def _santa_barbara(root: Path, out: Path, workers: int | None) -> Prepared:
    """Recordings are decoded once, then cut."""
    whole = RECORDINGS.read(root, out / "recordings", copy=True, workers=workers)

    def cut(place: Path) -> Listing:
        listing = Listing(place, left_out=dict(whole.left_out), remarks=list(whole.remarks))
        for recording in whole.rows:
            for start, end, text in recording.extra["units"]:
                name = f"{recording.id}_{int(start * 100):06d}-{int(end * 100):06d}"
                extra = {"part": recording.split, "span": [start, end]}
                listing.rows.append(Utterance(name, audio=recording.audio, transcript=text, split=recording.split, extra=extra))
        return listing

    reading = SoundCorpus("sbcsae", "the Santa Barbara Corpus", cut).read(out / "recordings", out, workers=workers)
    return prepared(reading, out, lambda row: {"text": row.transcript}, metric="wer")


def _words(root: Path, out: Path, workers: int | None, corpus: str, copy: bool = False) -> Prepared:
    if corpus == "sbcsae":
        return _santa_barbara(root, out, workers)
    reader = SoundCorpus("common_voice", "Common Voice", _common_voice)
    reading = reader.read(root, out, copy=copy, workers=workers, language=corpus)
    about = {"name": f"Common Voice 7 {corpus}", "metric": "cer" if corpus == "zh-CN" else "wer"}
    return prepared(reading, out, lambda row: {"text": row.transcript}, **about)


def _add_corpus(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--corpus", choices=(*SCRIPTS, "sbcsae"), required=True, help="language of Common Voice, or the Santa Barbara Corpus"
    )
    parser.add_argument("--copy", action="store_true", help="write the sound of Common Voice as 16 kHz FLAC below OUT/audio")


WORDS = Preparation("OOD-ASR", "SBCSAE", ("train", "dev", "test"), _words, _add_corpus)
