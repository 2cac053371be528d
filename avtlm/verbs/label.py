"""The verb `avtlm label`: transcripts by a model, for the training of the next."""

import argparse
import sys

from avtlm.verbs import AddVerb
from avtlm.verbs.options import add_model, add_split


def add_verb(verb: AddVerb) -> None:
    """Add ``label``."""
    label = verb(
        "label",
        _label,
        "transcribe a manifest by a model, as training data for the next (self-training)",
        "Stopped and started again, it goes on where it was.",
    )
    label.add_argument("manifest", metavar="MANIFEST", help="lip crops and sound, as avtlm-lip-roi writes them")
    add_model(label)
    label.add_argument("--out", "-o", metavar="MANIFEST", required=True, help="the new manifest")
    label.add_argument("--modality", choices=["av", "a", "v"], default="av", help="what the model sees (default: av)")
    add_split(label, "train")
    label.add_argument("--min-confidence", type=float, default=0.0, metavar="X", help="leave out clips below this, 0 to 1 (default: 0)")


def _label(options: argparse.Namespace) -> int:
    from avtlm.pseudo_labels import pseudo_labels

    report = pseudo_labels(options.manifest, options.model, options.out, options.modality, options.split, options.min_confidence)
    for name, reason in report.failed.items():
        print(f"avtlm: {name}: {reason}", file=sys.stderr)
    print(f"{report.kept} utterances kept, {report.unsure} left out as unsure or empty, {len(report.failed)} not readable")
    print(f"manifest: {report.manifest}")
    return 1 if report.failed else 0
