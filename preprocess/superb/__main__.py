"""``python -m preprocess.superb TASK --root DIR --out DIR``: an official corpus as `avtlm superb` reads it."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from preprocess.corpora.reading import SHOWN
from preprocess.superb.folder import Preparation

# Of each task the module and the name of its preparation there, and its corpus.
TASKS = {
    "SID": ("speakers", "IDENTIFICATION", "VoxCeleb1"),
    "ASV": ("speakers", "VERIFICATION", "VoxCeleb1"),
    "SD": ("mixtures", "DIARIZATION", "Libri2Mix in Kaldi's files"),
    "PR": ("read_speech", "PHONES", "LibriSpeech and a lexicon"),
    "ASR": ("read_speech", "WORDS", "LibriSpeech"),
    "OOD-ASR": ("out_of_domain", "WORDS", "Common Voice 7 (es, zh-CN, ar), Santa Barbara Corpus"),
    "KS": ("keywords", "KEYWORDS", "Speech Commands v0.01"),
    "QbE": ("queries", "QUERIES", "QUESST 2014"),
    "ST": ("translations", "TRANSLATION", "CoVoST 2"),
    "IC": ("spoken_commands", "INTENTS", "Fluent Speech Commands"),
    "SF": ("spoken_commands", "SLOTS", "Audio SNIPS"),
    "ER": ("emotions", "EMOTIONS", "IEMOCAP"),
    "SE": ("enhancement", "ENHANCEMENT", "VoiceBank-DEMAND"),
    "SS": ("mixtures", "SEPARATION", "Libri2Mix"),
}


def preparation(task: str) -> Preparation:
    """That of a task."""
    module, name, _ = TASKS[task]
    found: Preparation = getattr(import_module(f"preprocess.superb.{module}"), name)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 0 done, 1 if nothing can be prepared, 2 if there is no such task."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print("usage: python -m preprocess.superb TASK --root DIR --out DIR [options]   (TASK --help explains them)\n")
        print("\n".join(f"  {name:8} {corpus}" for name, (_, _, corpus) in TASKS.items()))
        return 0 if given else 2
    task = next((name for name in TASKS if name.lower() == given[0].lower()), None)
    if task is None:
        print(f"superb: {given[0]!r} is unknown; choose one of {', '.join(TASKS)}.", file=sys.stderr)
        return 2
    prepare = preparation(task)
    parser = argparse.ArgumentParser(prog=f"python -m preprocess.superb {task}", description=f"Prepare {TASKS[task][2]} for {task}.")
    parser.add_argument("--root", required=True, type=Path, metavar="DIR", help="folder of the corpus")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder that is written")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    prepare.add_options(parser)
    options = vars(parser.parse_args(given[1:]))
    root, out = options.pop("root"), options.pop("out")
    try:
        done = prepare(root, out, **options)
    except (ValueError, OSError) as error:
        print(f"superb {task}: {error}", file=sys.stderr)
        return 1
    for remark in done.remarks:
        print(f"superb {task}: {remark}.", file=sys.stderr)
    for path, reason in list(done.left_out.items())[:SHOWN]:
        print(f"superb {task}: left out {path}: {reason}.", file=sys.stderr)
    counts = ", ".join(f"{len(rows):,} {name}" for name, rows in done.lists.items())
    trials = f", {len(done.trials):,} trials" if done.trials else ""
    print(f"{out}: {counts}{trials}; {len(done.left_out):,} left out{' (left_out.tsv)' if done.left_out else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
