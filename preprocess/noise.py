"""Noise as AV-HuBERT has it for training and testing in noise (arXiv 2201.01763), from MUSAN and from speech of one's own.

    python -m preprocess.noise --out DIR [--musan MUSAN] [--speech MANIFEST] [--seed N]

writes ``<kind>/wav/`` and the lists ``<kind>/{train,valid,test}.tsv`` (one path a line) of the kinds babble, music, noise, speech and all;
`avtlm evaluate --noise-dir` and the key ``noise.lists`` of training configurations read them, and so does the official code.

From MUSAN, in its own layout (``{music,noise,speech}/<source>/*.wav``): files longer than 10 s are cut into pieces of 10 s, of which those
from 3 s on are kept; music and noise are split 80/10/10; babble is the mean of 30 pieces of speech, with the speakers (files of MUSAN)
split 80/10/10 first. From the training rows of a manifest with sound (LRS3): speech is what lasts longer than 20 s, cut to 20 s and split
60/20/20; the babble of valid and test is one file, the mean of 30 utterances longer than 15 s. ``all`` has 20,000 training entries of every
kind, and for valid and test the babble of MUSAN.

Different here: draws come from a seed, and speech too short for a list is not used in babble, so that there is as much as was asked for.
The official split of music and noise may put two pieces of one recording on both sides; ``--split-by file`` does not. Give both sources in
one run; files that are there already are kept.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from avtlm.data.manifest import SPLITS, read_manifest
from avtlm.data.media import SAMPLE_RATE
from avtlm.data.noise_files import KINDS
from avtlm.data.seeds import seed_for
from avtlm.files import write_text
from preprocess.noise_pieces import Mixture, Piece, Work, cut, write_all
from preprocess.pool import default_workers

MUSAN_FILES = {"music": 660, "noise": 930, "speech": 426}  # in the released corpus
COMBINED_ORDER = ("noise", "music", "babble", "speech")


@dataclass(frozen=True)
class Recipe:
    """How noise is made; the defaults are those of AV-HuBERT.

    Attributes:
        babbles: files of MUSAN babble for train, valid and test.
        voices: pieces or utterances in one babble.
        piece_seconds, least_seconds: length of the pieces of MUSAN, and of the shortest that is kept.
        babble_seconds, speech_seconds: utterances of the manifest longer than this make its babble and its speech.
        combined: training entries of every kind in ``all``.
        split_by: ``piece`` or ``file``, for music and noise.
    """

    seed: int = 0
    babbles: tuple[int, int, int] = (8000, 1000, 1000)
    voices: int = 30
    piece_seconds: float = 10.0
    least_seconds: float = 3.0
    babble_seconds: float = 15.0
    speech_seconds: float = 20.0
    combined: int = 20_000
    split_by: str = "piece"

    def __post_init__(self) -> None:
        if self.split_by not in ("piece", "file"):
            raise ValueError(f"split_by: {self.split_by!r} is unknown; choose piece or file.")
        if min(self.babbles) < 1 or self.voices < 1 or self.combined < 1:
            raise ValueError("babbles, voices and combined are counts; give whole numbers from 1.")
        if not 0 < self.least_seconds <= self.piece_seconds or min(self.babble_seconds, self.speech_seconds) <= 0:
            raise ValueError("seconds must be above 0, and least_seconds at most piece_seconds.")


def make_noise(
    out: str | Path,
    musan: str | Path | None = None,
    speech: str | Path | None = None,
    recipe: Recipe | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Write the files and lists of noise, or what is missing of them.

    Args:
        out: folder of the noise.
        musan: root of MUSAN.
        speech: manifest of LRS3 or another corpus, whose rows of the split train have sound.
        recipe: see :class:`Recipe`.
        workers: processes; default: one for each core. 0 works in this process.

    Returns:
        What ``noise.json`` in ``out`` says: the recipe, the number of files in every list, files that could not be used and why, and
        remarks.

    Raises:
        ValueError: no source, a wrong folder, too little speech, or a folder with noise of another recipe.
        ManifestError: the manifest cannot be read.
    """
    if musan is None and speech is None:
        raise ValueError("noise is made of something: give the folder of MUSAN, a manifest with speech, or both.")
    out, recipe = Path(out).resolve(), recipe or Recipe()
    _claim(out, recipe, {"musan": musan, "speech": speech})
    work = partial(write_all, workers=default_workers() if workers is None else workers)
    unusable: dict[str, str] = {}
    remarks: list[str] = []
    lists: dict[tuple[str, str], list[Path]] = {}
    combined: dict[tuple[str, str], list[Path]] = {}
    if musan is not None:
        lists |= _from_musan(Path(musan), out, recipe, work, unusable, remarks)
        combined |= lists
    if speech is not None:
        own = _from_speech(Path(speech), out, recipe, work, unusable)
        lists |= own
        combined |= {key: paths for key, paths in own.items() if key not in combined}
    for split in SPLITS:
        there = [combined[kind, split] for kind in COMBINED_ORDER if combined.get((kind, split))]
        lists["all", split] = [path for paths in there for path in (_repeated(paths, recipe.combined) if split == "train" else paths)]
    lists = {key: paths for key, paths in lists.items() if paths}
    for (kind, split), paths in lists.items():
        write_text(out / kind / f"{split}.tsv", "".join(f"{path}\n" for path in paths))
    counts = {kind: {split: len(lists[kind, split]) for split in SPLITS if (kind, split) in lists} for kind in (*KINDS, "all")}
    report = {"recipe": dataclasses.asdict(recipe), "lists": counts, "unusable": unusable, "remarks": remarks}
    write_text(out / "noise.json", json.dumps(report, indent=1) + "\n")
    return report


def _claim(out: Path, recipe: Recipe, sources: dict[str, str | Path | None]) -> None:
    """Note how the noise of a folder is made. Files are never made twice, so a folder has one recipe for good."""
    note = out / "recipe.json"
    wanted = json.loads(json.dumps(dataclasses.asdict(recipe)))
    wanted |= {name: str(Path(path).resolve()) for name, path in sources.items() if path is not None}
    begun = note.exists() and any(out.glob("*/wav"))  # a note without files is of a run that was refused
    found = json.loads(note.read_text(encoding="utf-8")) if begun else wanted
    differing = [f"{key} {found[key]}" for key in wanted if key in found and found[key] != wanted[key]]
    if differing:
        raise ValueError(f"{out} holds noise that was made with {', '.join(differing)}; choose another folder, or delete this one.")
    write_text(note, json.dumps(found | wanted, indent=1) + "\n")


def _from_musan(
    root: Path, out: Path, recipe: Recipe, work: Work, unusable: dict[str, str], remarks: list[str]
) -> dict[tuple[str, str], list[Path]]:
    if not (root / "speech").is_dir() and (root / "musan").is_dir():
        root /= "musan"
    pieces: dict[str, dict[str, list[Piece]]] = {}
    for kind, expected in MUSAN_FILES.items():
        files = sorted((root / kind).glob("*/*.wav"))
        if not files:
            raise ValueError(
                f"{root / kind} holds no sound files (<source>/<name>.wav); give the folder with MUSAN's music, noise and speech."
            )
        if len(files) != expected:
            remarks.append(f"MUSAN {kind}: {len(files)} files, the released corpus has {expected}")
        found = {f"{file.parent.name}/{file.stem}": cut(file, recipe.piece_seconds, recipe.least_seconds, unusable) for file in files}
        pieces[kind] = {name: parts for name, parts in found.items() if parts}
        if short := len(files) - len(pieces[kind]) - sum(str(file) in unusable for file in files):
            remarks.append(f"MUSAN {kind}: {short} files of {recipe.piece_seconds:g} s or less are not used")
    speakers = _splits(pieces["speech"], (0.8, 0.1), recipe.seed, "speakers")
    babbles = []
    for split, count in zip(SPLITS, recipe.babbles):
        voices = [piece for name, parts in sorted(pieces["speech"].items()) if speakers[name] == split for piece in parts]
        _enough(len(voices), recipe.voices, f"{root / 'speech'}: the split {split} has", "pieces of speech")
        for number in range(count):
            rng = np.random.default_rng(seed_for(recipe.seed, "babble", split, number))
            chosen = tuple(voices[int(place)] for place in rng.choice(len(voices), recipe.voices, replace=False))
            babbles.append(Mixture(out / "babble" / "wav" / f"{split}-{number + 1:05d}.wav", chosen))
    lists: dict[tuple[str, str], list[Path]] = {}
    for kind in ("music", "noise"):
        mixtures = {
            f"{name}-{number}": Mixture(out / kind / "wav" / f"{name}-{number}.wav", (piece,))
            for name, parts in pieces[kind].items()
            for number, piece in enumerate(parts)
        }
        failed = work(kind, list(mixtures.values()))
        unusable |= {str(path): reason for path, reason in failed.items()}
        made = {name: mixture for name, mixture in mixtures.items() if mixture.target not in failed}
        groups = {name: name.rpartition("-")[0] if recipe.split_by == "file" else name for name in made}
        split_of = _splits(set(groups.values()), (0.8, 0.1), recipe.seed, kind)
        lists |= {(kind, split): [made[name].target for name in sorted(made) if split_of[groups[name]] == split] for split in SPLITS}
    failed = work("babble", babbles)
    unusable |= {str(path): reason for path, reason in failed.items()}
    good = [babble.target for babble in babbles if babble.target not in failed]
    return lists | {("babble", split): [path for path in good if path.name.startswith(split)] for split in SPLITS}


def _from_speech(manifest: Path, out: Path, recipe: Recipe, work: Work, unusable: dict[str, str]) -> dict[tuple[str, str], list[Path]]:
    rows = read_manifest(manifest)
    heard = {row.id: row for row in rows.split("train") if row.audio is not None}
    sources = {name: Piece(rows.root / (row.audio or ""), 0, row.audio_samples) for name, row in sorted(heard.items())}
    if wrong := next((name for name, row in heard.items() if row.sample_rate != SAMPLE_RATE), None):
        raise ValueError(f"{manifest}: utterance {wrong!r} is not at {SAMPLE_RATE} Hz; give a manifest that avtlm-lip-roi wrote.")

    def longer(seconds: float) -> list[str]:
        return [name for name, piece in sources.items() if piece.samples > seconds * SAMPLE_RATE]

    talking = longer(recipe.babble_seconds)
    enough = f"training utterances longer than {recipe.babble_seconds:g} s"
    _enough(len(talking), recipe.voices, f"{manifest}: has", enough, "babble_seconds or ")
    rng = np.random.default_rng(seed_for(recipe.seed, "babble of speech"))
    voices = [talking[int(place)] for place in rng.choice(len(talking), recipe.voices, replace=False)]
    babble = Mixture(out / "babble" / "wav" / "speech.wav", tuple(sources[name] for name in sorted(voices)))
    if outside := next((name for name in heard if Path(name).is_absolute() or ".." in Path(name).parts), None):
        raise ValueError(f"{manifest}: the id {outside!r} would lead out of the folder of the noise; ids must be plain relative names.")
    size = round(recipe.speech_seconds * SAMPLE_RATE)
    long = longer(recipe.speech_seconds)
    if not long:
        raise ValueError(f"{manifest}: no training utterance is longer than {recipe.speech_seconds:g} s; lower speech_seconds.")
    cut_down = {name: dataclasses.replace(sources[name], samples=size) for name in long}
    mixtures = [Mixture(out / "speech" / "wav" / f"{name}.wav", (piece,)) for name, piece in cut_down.items()]
    if failed := work("babble of speech", [babble]):
        raise ValueError(f"{manifest}: its babble cannot be made: {failed[babble.target]}")
    failed = work("speech", mixtures)
    unusable |= {str(path): reason for path, reason in failed.items()}
    made = [mixture.target for mixture in mixtures if mixture.target not in failed]
    first, second = int(0.6 * len(made)), int(0.2 * len(made))  # in the order of ids, which keeps what one person says together
    parts = made[:first], made[first : first + second], made[first + second : first + 2 * second]
    shared = {("babble", split): [babble.target] for split in ("valid", "test")}
    return {("speech", split): part for split, part in zip(SPLITS, parts)} | shared


def _splits(names: Iterable[str], shares: tuple[float, float], seed: int, what: str) -> dict[str, str]:
    """Names to splits by a hash of each name, so that the order of files on a disk does not matter."""
    order = sorted(names, key=lambda name: (seed_for(seed, what, name), name))
    first, second = int(shares[0] * len(order)), int(shares[1] * len(order))
    return {name: SPLITS[(place >= first) + (place >= first + second)] for place, name in enumerate(order)}


def _enough(have: int, need: int, where: str, what: str, instead: str = "") -> None:
    if have < need:
        raise ValueError(f"{where} {have} {what}, fewer than the {need} voices of one babble; lower {instead}voices, or give more.")


def _repeated(paths: Sequence[Path], count: int) -> list[Path]:
    return [paths[number % len(paths)] for number in range(count)]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 done, 1 if it cannot be done, 2 for wrong use."""
    defaults = Recipe()
    parser = argparse.ArgumentParser(prog="python -m preprocess.noise", description="Make noise and lists of it from MUSAN and speech.")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the noise")
    parser.add_argument("--musan", metavar="DIR", help="MUSAN, with music/, noise/ and speech/ in it")
    parser.add_argument("--speech", metavar="MANIFEST", help="LRS3 or other speech, as avtlm-lip-roi writes it")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    for field in dataclasses.fields(Recipe):
        value, option = getattr(defaults, field.name), f"--{field.name.replace('_', '-')}"
        if isinstance(value, tuple):
            shown = " ".join(map(str, value))
            parser.add_argument(option, type=int, nargs=3, default=value, metavar=("TRAIN", "VALID", "TEST"), help=f"(default: {shown})")
        elif isinstance(value, str):
            parser.add_argument(option, choices=("piece", "file"), default=value, help="(default: %(default)s)")
        else:
            parser.add_argument(option, type=type(value), default=value, metavar="N", help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        given = {field.name: getattr(options, field.name) for field in dataclasses.fields(Recipe)}
        recipe = Recipe(**given | {"babbles": tuple(options.babbles)})
        report = make_noise(options.out, options.musan, options.speech, recipe, options.workers)
    except (ValueError, OSError) as error:
        print(f"noise: {error}", file=sys.stderr)
        return 1
    for remark in report["remarks"]:
        print(f"noise: {remark}.", file=sys.stderr)
    for path, reason in list(report["unusable"].items())[:10]:
        print(f"noise: left out {path}: {reason}", file=sys.stderr)
    if report["unusable"]:
        print(f"noise: {len(report['unusable'])} files left out; {Path(options.out) / 'noise.json'} lists them.", file=sys.stderr)
    for kind, counts in report["lists"].items():
        if counts:
            print(f"{kind:8} {', '.join(f'{count} {split}' for split, count in counts.items())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
