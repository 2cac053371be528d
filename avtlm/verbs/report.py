"""The verb `avtlm report`: what runs have come to, as one HTML file."""

import argparse
import sys
from pathlib import Path

from avtlm.verbs import AddVerb
from avtlm.verbs.options import add_split
from avtlm.verbs.printing import wrong

VERB = "report"


def add_verb(verb: AddVerb) -> None:
    """Add ``report``."""
    added = verb(
        VERB,
        _report,
        "show what runs have come to on one HTML page: curves, error rates, errors, samples, settings",
        "The page needs nothing but itself. Several folders are compared. What a folder has not got is left out; docs/report.md.",
    )
    added.add_argument("folders", metavar="DIR", nargs="+", help="folder of a training, an evaluation, a model, or of several runs")
    added.add_argument("--out", "-o", metavar="FILE", required=True, help="the page, such as report.html")
    added.add_argument("--manifest", metavar="MANIFEST", help="clips for samples with sound, lips and alignments")
    add_split(added, what="of the manifest")
    added.add_argument("--samples", type=int, default=6, metavar="N", help="clips on the page, of at most 1 MB each (default: 6)")
    added.add_argument("--modality", choices=["av", "a", "v"], help="what models are given of them (default: all that they take in)")
    added.add_argument("--seed", type=int, default=0, help="of the choice of clips (default: 0)")
    added.add_argument("--title", metavar="TEXT", help="of the page")


def _report(options: argparse.Namespace) -> int:
    from avtlm.evaluation.report import report

    if Path(options.out).suffix not in (".html", ".htm"):
        return wrong(f"--out {options.out}: the page is HTML; name it *.html.")
    done = report(
        options.folders, options.out, options.manifest, options.split, options.samples, options.seed, options.modality, options.title
    )
    for problem in done.problems:
        print(f"avtlm: {problem}", file=sys.stderr)
    print(f"report: {done.path} ({done.size / 1e6:.1f} MB)")
    return 0
