"""The verbs of `avtlm` around units of text: ``units text2units``, ``units reduce`` and ``visualize alignment``.

They are verbs of two words; cli.py joins the words before it parses them.
"""

import argparse
import sys
from pathlib import Path

from avtlm.verbs import AddVerb
from avtlm.verbs.options import add_split
from avtlm.verbs.printing import wrong

TEXT2UNITS, REDUCE, ALIGNMENT = "units text2units", "units reduce", "visualize alignment"
VERBS = (TEXT2UNITS, REDUCE, ALIGNMENT)


def add_verbs(verb: AddVerb) -> None:
    """Add them by the function that adds a verb with its function, summary and further help."""
    text2units = verb(
        TEXT2UNITS,
        _text2units,
        "write units for every line of a text",
        "By a text-to-unit model, or without --model as phones with silences and durations. Stopped and started again, it goes on where it "
        "was; memory does not grow with the file.",
    )
    text2units.add_argument("text", metavar="TEXT", help="a file with a sentence in every line, or a manifest with transcripts")
    text2units.add_argument("--model", metavar="DIR", help="folder of a text-to-unit model")
    layout = "NAME.units (ids and numbers, which a source's key `units` takes), or NAME.km, NAME.phn (fairseq's lines of units)"
    text2units.add_argument("--out", "-o", metavar="FILE", required=True, help=layout)
    text2units.add_argument("--reduced", action="store_true", help="one unit for each run of equal ones (SpeechUT)")
    words = "lines WORD PHONE PHONE ..., or Kaldi's align_lexicon (default: the model's; without any, eSpeak NG reads all words)"
    text2units.add_argument("--lexicon", metavar="FILE", help=words)
    unknown = "words that the lexicon lacks: phones by eSpeak NG's rules, spoken noise, or leave their line out (default: the model's)"
    text2units.add_argument("--unknown", choices=["espeak", "spn", "drop"], help=unknown)
    text2units.add_argument("--missing", metavar="FILE", help="list those words here, with their counts")
    text2units.add_argument("--beam", type=int, default=1, metavar="N", help="of a model that writes unit after unit (default: 1)")
    text2units.add_argument("--seed", type=int, default=0, help="of silences and durations (default: 0)")
    phones = text2units.add_argument_group("phones as units", "Without --model.")
    kinds = "alphabet without a lexicon: kaldi (stress and positions, default), arpabet or ipa; or mandarin, by pinyin or a lexicon"
    phones.add_argument("--alphabet", choices=["kaldi", "arpabet", "ipa", "mandarin"], help=kinds)
    phones.add_argument("--dictionary", metavar="FILE", help="the phones in their order (dict.phn.txt); default: Kaldi's, or the lexicon's")
    phones.add_argument("--no-durations", action="store_true", help="do not repeat phones for their durations")

    reduce = verb(REDUCE, _reduce, "merge runs of one unit in a label file", "")
    reduce.add_argument("labels", metavar="LABELS", help="as `avtlm units` writes it")
    reduce.add_argument("--out", "-o", metavar="FILE", required=True, help="the reduced labels")
    reduce.add_argument("--durations", metavar="FILE", help="write here how many frames each of them lasted")

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
    alignment.add_argument("--seed", type=int, default=0)


def _text2units(options: argparse.Namespace) -> int:
    from avtlm.files import write_text
    from avtlm.units.fairseq_labels import read_dictionary
    from avtlm.units.generators import open_generator
    from avtlm.units.text_stream import text2units

    if options.model is not None and (options.alphabet or options.dictionary or options.no_durations):
        return wrong("--alphabet, --dictionary and --no-durations are for phones as units; leave them out, or --model.")
    if options.beam < 1:
        return wrong(f"--beam {options.beam}: give at least 1.")
    if options.alphabet == "mandarin":
        return _mandarin(options)
    changes = {key: getattr(options, key) for key in ("unknown", "alphabet") if getattr(options, key) is not None}
    symbols = None if options.dictionary is None else list(read_dictionary(options.dictionary))
    generator = open_generator(
        options.model, options.lexicon, changes, symbols, options.seed, options.beam, durations=not options.no_durations
    )
    done = text2units(options.text, options.out, generator, options.reduced)
    if options.missing is not None:
        write_text(options.missing, "".join(f"{word} {count}\n" for word, count in done.counts.missing.listed()))
    print(f"{done.kept} of {done.lines} lines, {done.units} units, {done.lines_per_second:.1f} lines/s")
    if done.counts.missing.missing:
        print(f"avtlm: {done.counts.missing}.", file=sys.stderr)
    if done.counts.unknown:
        some = ", ".join(f"{symbol!r} {count}x" for symbol, count in done.counts.unknown.most_common(10))
        print(f"avtlm: the model does not know {sum(done.counts.unknown.values())} symbols: {some}.", file=sys.stderr)
    print(f"units: {done.out}\ndictionary: {done.dictionary}")
    return 0


def _mandarin(options: argparse.Namespace) -> int:
    from avtlm.text.mandarin import MandarinConfig
    from avtlm.units.mandarin import MandarinUnits
    from avtlm.units.text_stream import text2units

    if options.unknown in ("espeak", "spn") or options.dictionary or options.reduced:
        return wrong("--alphabet mandarin goes with --lexicon and --unknown drop alone; leave the others out.")
    kept = MandarinConfig(options.lexicon)
    config = kept if options.unknown is None else MandarinConfig(options.lexicon, traditional="convert", digits="read", unknown="drop")
    done = text2units(options.text, options.out, MandarinUnits(config))
    print(f"{done.kept} of {done.lines} lines, {done.units} phonemes\nunits: {done.out}\ndictionary: {done.dictionary}")
    return 0


def _reduce(options: argparse.Namespace) -> int:
    from avtlm.units.labels import read_labels, write_labels
    from avtlm.units.reduced import reduce_labels

    found = list(reduce_labels(read_labels(options.labels)))
    write_labels(options.out, {name: units for name, units, _ in found})
    if options.durations is not None:
        write_labels(options.durations, {name: durations for name, _, durations in found})
    before, after = sum(int(durations.sum()) for *_, durations in found), sum(len(units) for _, units, _ in found)
    print(f"{len(found)} utterances, {before} frames, {after} units\nunits: {options.out}")
    return 0


def _alignment(options: argparse.Namespace) -> int:
    from avtlm.evaluation.unit_alignment import table, unit_alignment

    numbers = unit_alignment(
        options.manifest, options.units, options.model, options.out, options.layers, options.split, options.limit, options.seed
    )
    print(f"{table(numbers)}\nfigure: {options.out}")
    return 0
