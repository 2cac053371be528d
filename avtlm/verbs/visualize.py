"""The verbs of `avtlm` that draw what a model makes of its inputs: ``visualize`` and ``visualize alignment``."""

import argparse
from pathlib import Path

from avtlm.verbs import AddVerb
from avtlm.verbs.options import add_model, add_split

ALIGNMENT = "visualize alignment"


def add_verb(verb: AddVerb) -> None:
    """Add ``visualize``."""
    visualize = verb(
        "visualize",
        _visualize,
        "draw where a model puts sound, lips, both and text of the same content (t-SNE)",
        "With timed phones in the manifest, points are phones, and it counts how often neighbours across inputs agree.",
    )
    visualize.add_argument("manifest", metavar="MANIFEST", help="lip crops and sound, as avtlm-lip-roi writes them")
    add_model(visualize)
    visualize.add_argument(
        "--out", "-o", metavar="PNG", default=Path("representations.png"), type=Path, help="the figure (default: %(default)s)"
    )
    visualize.add_argument("--layer", type=int, metavar="N", help="output of layer N, counted from 1 (default: the last)")
    visualize.add_argument("--inputs", nargs="+", choices=["av", "a", "v", "text"], help="kinds of input (default: all there are)")
    add_split(visualize)
    visualize.add_argument("--limit", type=int, default=30, metavar="N", help="clips (default: 30)")
    visualize.add_argument("--seed", type=int, default=0, help="of the clips and the layout (default: 0)")


def add_alignment(verb: AddVerb) -> None:
    """Add ``visualize alignment``."""
    alignment = verb(
        ALIGNMENT,
        _alignment,
        "measure how often speech and its units are given the same phone in SpeechLM or SpeechUT, and draw their layers (t-SNE)",
        "What is counted is defined in docs/units.md.",
    )
    alignment.add_argument("manifest", metavar="MANIFEST", help="clips with timed phones")
    alignment.add_argument("--units", metavar="FILE", required=True, help="their unit labels")
    alignment.add_argument("--model", metavar="DIR", required=True, help="a pre-trained model folder")
    alignment.add_argument(
        "--out",
        "-o",
        metavar="PNG",
        type=Path,
        default=Path("alignment.png"),
        help="the figure; numbers go beside it (default: %(default)s)",
    )
    alignment.add_argument("--layers", nargs="+", type=int, metavar="N", help="of both encoders, from 1 (default: all that know units)")
    add_split(alignment)
    alignment.add_argument("--limit", type=int, default=100, metavar="N", help="clips (default: 100)")
    alignment.add_argument("--seed", type=int, default=0, help="of the clips and the layout (default: 0)")


def _visualize(options: argparse.Namespace) -> int:
    from avtlm.evaluation.representations import describe, visualize

    numbers = visualize(
        options.manifest, options.model, options.out, options.layer, options.inputs, options.split, limit=options.limit, seed=options.seed
    )
    print(f"{describe(numbers)}\nfigure: {options.out}")
    return 0


def _alignment(options: argparse.Namespace) -> int:
    from avtlm.evaluation.unit_alignment import table, unit_alignment

    numbers = unit_alignment(
        options.manifest, options.units, options.model, options.out, options.layers, options.split, options.limit, options.seed
    )
    print(f"{table(numbers)}\nfigure: {options.out}")
    return 0
