"""The verbs of `avtlm` around units: ``units`` of a corpus, and with a second word ``units text2units`` and ``units reduce``."""

import argparse
import sys
from typing import Any

from avtlm.verbs import AddVerb
from avtlm.verbs.printing import wrong

TEXT2UNITS, REDUCE = "units text2units", "units reduce"


def add_units(verb: AddVerb) -> None:
    """Add ``units``."""
    units = verb("units", _units, "turn the frames of a corpus into k-means units", "Without --model the features are MFCC of the sound.")
    units.add_argument("manifest", metavar="MANIFEST", help="clips with sound or, for a model that sees, lip crops")
    units.add_argument("out", metavar="FOLDER", help="where the labels and the clusters go")
    units.add_argument("--model", metavar="DIR", help="cluster the features of this model")
    units.add_argument("--layer", type=int, metavar="N", help="features of its layer N, counted from 1; goes with --model")
    units.add_argument("--clusters", type=int, default=100, metavar="K", help="number of units (default: 100)")
    units.add_argument("--clusters-from", metavar="FILE", help="use these clusters (kmeans.safetensors) instead of fitting new ones")
    units.add_argument("--split", nargs="+", metavar="NAME", help="label only these splits (default: everything)")
    units.add_argument("--fit-split", default="train", metavar="NAME", help="fit the clusters on this split (default: train)")
    units.add_argument("--fraction", type=float, default=1.0, metavar="X", help="fit on this share of its utterances (default: 1)")
    units.add_argument("--modality", choices=["av", "a", "v"], default="av", help="what the model sees (default: av)")
    units.add_argument("--seed", type=int, default=0, help="of the clusters (default: 0)")
    units.add_argument("--rate", type=float, choices=[25, 50, 100], default=25, help="MFCC units per second (default: 25)")
    units.add_argument("--plain-mfcc", action="store_true", help="MFCC as HuBERT's and AV-HuBERT's, not normalised over the utterance")
    units.add_argument("--km", action="store_true", help="also write fairseq's layout, in FOLDER/km")
    large = units.add_argument_group("large corpora", "The defaults of the clustering are HuBERT's and AV-HuBERT's.")
    large.add_argument("--stream", action="store_true", help="never hold all features in memory; go on where a stopped call was")
    large.add_argument("--dump", metavar="DIR", help="keep the features here, for more than one clustering (implies --stream)")
    large.add_argument("--shard", metavar="I/N", help="do one part of the dump, or of the labels with --clusters-from; then run without")
    large.add_argument("--batch-frames", type=int, default=10000, metavar="N", help="frames of a mini-batch (default: 10000)")
    large.add_argument("--restarts", type=int, default=20, metavar="N", help="starts, the best of which is taken (default: 20)")
    large.add_argument("--max-iterations", type=int, default=100, metavar="N", help="passes over the frames at most (default: 100)")
    improved = "end after so many mini-batches without improvement (default: 100)"
    large.add_argument("--max-no-improvement", type=int, default=100, metavar="N", help=improved)


def add_text_verbs(verb: AddVerb) -> None:
    """Add ``units text2units`` and ``units reduce``."""
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

    reduce = verb(REDUCE, _reduce, "merge runs of one unit in a label file")
    reduce.add_argument("labels", metavar="LABELS", help="as `avtlm units` writes it")
    reduce.add_argument("--out", "-o", metavar="FILE", required=True, help="the reduced labels")
    reduce.add_argument("--durations", metavar="FILE", help="write here how many frames each of them lasted")


def _units(options: argparse.Namespace) -> int:
    from avtlm.units.discovery import units, units_shard
    from avtlm.units.dump import Shard
    from avtlm.units.kmeans import KMeansConfig

    where: dict[str, Any] = {"model": options.model, "layer": options.layer, "modality": options.modality, "dump": options.dump}
    where |= {"mfcc_rate": options.rate, "mfcc_normalise": not options.plain_mfcc}
    where |= {"clusters_from": options.clusters_from, "splits": options.split}
    if options.shard is not None:
        done = units_shard(options.manifest, options.out, Shard.parse(options.shard), **where)
        rest = f"{done.missing} missing" if done.missing else "all there: run it without --shard to put them together"
        print(f"shard {options.shard}: {done.pieces} pieces done, {rest}\npieces: {done.folder}")
        return 0
    report = units(
        options.manifest,
        options.out,
        config=KMeansConfig(
            clusters=options.clusters,
            batch_frames=options.batch_frames,
            max_iterations=options.max_iterations,
            restarts=options.restarts,
            max_no_improvement=options.max_no_improvement,
            seed=options.seed,
        ),
        fit_split=options.fit_split,
        fraction=options.fraction,
        stream=options.stream,
        km=options.km,
        **where,
    )
    print(f"{report.utterances} utterances, {report.frames} frames at {report.rate:g} Hz")
    print(f"{report.units_used} of {report.units} units in use, perplexity {report.perplexity:.1f}")
    if report.quality is not None:
        print(report.quality)
    print(f"labels: {report.labels}\nclusters: {report.clusters}")
    return 0


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
