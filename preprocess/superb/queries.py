"""QUESST 2014 (Anguera et al. 2015, ICASSP) for query by example (QbE): which recordings hold what a spoken query says.

    python -m preprocess.superb QbE --root quesst14Database --out DIR [--language nnenglish]

Read are the lists of ``scoring/``: ``language_key_utterances.lst`` names the recordings, ``language_key_dev.lst`` and
``language_key_eval.lst`` the queries, all with their languages, and ``groundtruth_quesst14_{dev,eval}/*.rttm`` what is in what. The
benchmark uses the non-native English part, against which all its queries are searched.
"""

import argparse
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, lines
from preprocess.superb.folder import Preparation, Prepared, Row, row

QUERIES_OF = {"dev": "dev", "eval": "test"}  # names of the corpus -> splits of the benchmark
ALL = "all"


def _lists(root: Path, language: str) -> Listing:
    root = find_root(root, ["scoring"])
    listing = Listing(root)
    _add(listing, "language_key_utterances.lst", language, {"split": None})
    for name, split in QUERIES_OF.items():
        _add(listing, f"language_key_{name}.lst", language, {"split": split})
    if not listing.rows:
        raise ValueError(f"{root / 'scoring'}: the lists have no recording in {language!r}; choose another --language, or {ALL}.")
    return listing


def _add(listing: Listing, name: str, language: str, extra: Row) -> None:
    path = listing.root / "scoring" / name
    for number, line in enumerate(lines(path), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2:
            raise ValueError(f"{path}, line {number}: {line!r:.60} is not '<database>/<folder>/<file>.wav <language>'.")
        if language in (ALL, fields[1]):
            audio = fields[0].partition("/")[2]  # the first folder is that of the database
            listing.rows.append(Utterance(Path(audio).stem, audio=audio, extra={**extra, "language": fields[1]}))


CORPUS = SoundCorpus("quesst14", "QUESST 2014", _lists)


def _prepare(root: Path, out: Path, workers: int | None, language: str = "nnenglish") -> Prepared:
    reading = CORPUS.read(root, workers=workers, language=language)
    assert reading.root is not None
    documents: list[Row] = []
    queries: list[Row] = []
    for utterance in reading.rows:
        split = utterance.extra["split"]
        (documents if split is None else queries).append(row(utterance, reading, out, split=split, language=utterance.extra["language"]))
    held = {document["id"] for document in documents}
    asked = {query["id"] for query in queries}
    relevance = [
        {"query": query, "document": document, "split": split}
        for name, split in QUERIES_OF.items()
        for query, document in _truth(reading.root / "scoring" / f"groundtruth_quesst14_{name}")
        if query in asked and document in held
    ]
    for split in QUERIES_OF.values():
        if not any(pair["split"] == split for pair in relevance):
            raise ValueError(f"{reading.root / 'scoring'}: the ground truth has no {split} query that is in a recording in {language!r}.")
    return Prepared({"queries": queries, "documents": documents, "relevance": relevance}, (), {}, reading.left_out, reading.remarks)


def _truth(folder: Path) -> list[tuple[str, str]]:
    """Queries and recordings that hold them, each pair once."""
    paths = sorted(folder.glob("*.rttm"))
    if not paths:
        raise ValueError(f"{folder}: has no .rttm, which says which recordings hold which queries; unpack the whole database.")
    pairs: dict[tuple[str, str], None] = {}
    for path in paths:
        for line in lines(path):
            fields = line.split()
            if fields and fields[0] == "LEXEME":
                query = next((field for field in fields[2:] if field.startswith(("quesst14_dev", "quesst14_eval"))), None)
                if query is not None:
                    pairs[query, fields[1]] = None
    return list(pairs)


def _add_language(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--language", default="nnenglish", help=f"of recordings and queries, or {ALL} (default: %(default)s, the benchmark's)"
    )


QUERIES = Preparation("QbE", "QUESST 2014", ("queries", "documents", "relevance"), _prepare, _add_language)
