"""The verb `avtlm evaluate`: a model on a manifest, by what the model is for."""

import argparse
from pathlib import Path
from typing import Any

from avtlm.verbs import AddVerb
from avtlm.verbs.options import add_decoding, add_model, add_split
from avtlm.verbs.printing import as_json, wrong


def add_verb(verb: AddVerb) -> None:
    """Add ``evaluate``."""
    evaluate = verb(
        "evaluate",
        _evaluate,
        "measure a model on a manifest: word error rate, or what it was trained for",
        "Intervals are 95 %, by bootstrap or of a share.",
    )
    evaluate.add_argument("manifest", metavar="MANIFEST", help="lip crops and sound with transcripts, as avtlm-lip-roi writes them")
    add_model(evaluate)
    evaluate.add_argument("--modality", nargs="+", choices=["av", "a", "v"], default=["av"], help="one or more (default: av)")
    add_split(evaluate)
    ratios = "also in noise at these signal-to-noise ratios, divided by spaces or commas"
    evaluate.add_argument("--snr", nargs="+", type=_ratios, default=[], metavar="DB", help=ratios)
    noises = (
        "babble of other speakers (default), speech of one, white, or a sound file; with --noise-dir any of its lists. "
        "Several, divided by commas, give a table of kinds and ratios with means"
    )
    evaluate.add_argument("--noise", metavar="KINDS", help=noises)
    lists = "recorded noise: folder of lists KIND/SPLIT.tsv, as python -m preprocess.noise writes it"
    evaluate.add_argument("--noise-dir", metavar="DIR", help=lists)
    evaluate.add_argument("--characters", action="store_true", help="count characters without spaces in place of words (Mandarin)")
    corruptions = "also with corrupted lips: KIND or KIND=STRENGTH,..., of several kinds, or all (docs/robustness.md)"
    evaluate.add_argument("--visual", nargs="+", default=[], metavar="KIND", help=corruptions)
    heard = "meanwhile, the first kind of noise is heard at this signal-to-noise ratio (default: clean sound)"
    evaluate.add_argument("--visual-snr", type=float, metavar="DB", help=heard)
    kept = "keep what was recognised here, cell by cell; the same command goes on from there, and avtlm report shows it"
    evaluate.add_argument("--cells", metavar="DIR", help=kept)
    evaluate.add_argument("--plot", metavar="PNG", help="draw the rates against the ratios, or against the strengths of --visual")
    add_decoding(evaluate)
    evaluate.add_argument("--limit", type=int, metavar="N", help="only the first N utterances")
    evaluate.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of a table")
    evaluate.add_argument("--out", metavar="FILE", help="write the JSON here as well")
    translated = "score translations by BLEU against this column of the manifest (default: translation)"
    evaluate.add_argument("--translation", metavar="COLUMN", nargs="?", const="translation", help=translated)
    speech = evaluate.add_argument_group("models that write speech", "Mel-cepstral distortion against the clips, and what is understood.")
    speech.add_argument("--voices", metavar="FILE", help="speaker embeddings by utterance or speaker (.npz, .safetensors)")
    speech.add_argument("--vocoder", metavar="DIR", help="folder of a vocoder (default: Griffin-Lim)")
    speech.add_argument("--recognizer", metavar="DIR", help="model that listens to what is said: its word error rate")


def _ratios(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text.strip()!r} is not a list of ratios in dB, such as -10,-5,0,5,10") from None


def _evaluate(options: argparse.Namespace) -> int:
    from avtlm import checkpoint
    from avtlm.evaluation.corruption_plot import draw
    from avtlm.evaluation.corruptions import parse_corruptions
    from avtlm.evaluation.evaluate import evaluate
    from avtlm.export.folder import is_exported

    folder = Path(options.model).is_dir() and not is_exported(options.model)
    task = checkpoint.load_config(options.model).get("task") if folder else None
    if (options.voices or options.vocoder or options.recognizer) and (task != "generation" or options.translation is not None):
        return wrong("--voices, --vocoder and --recognizer are for models that write speech, and without --translation.")
    if task in ("speaker", "generation") or options.translation is not None:
        return _evaluate_whole(options, task)
    snrs = [snr for group in options.snr for snr in group]
    if not snrs and options.visual_snr is None and (options.noise or options.noise_dir):
        return wrong("--noise and --noise-dir need signal-to-noise ratios: add, for example, --snr -10,-5,0,5,10.")
    noise = options.noise or "babble"
    report = evaluate(
        options.manifest,
        options.model,
        modalities=options.modality,
        split=options.split,
        snrs=snrs,
        noise=noise if Path(noise).is_file() else [kind for kind in noise.split(",") if kind],
        limit=options.limit,
        seed=options.seed,
        noise_dir=options.noise_dir,
        decoding=options.decoding,
        characters=options.characters,
        visual=parse_corruptions(options.visual),
        visual_snr=options.visual_snr,
        cells=options.cells,
    )
    if options.plot is not None:
        draw(report.to_json(), options.plot)
    return _measured(options, report)


def _evaluate_whole(options: argparse.Namespace, task: str | None) -> int:
    """Of models that name voices, write speech or translate: one row of figures for a manifest."""
    from avtlm.evaluation.generation import evaluate_speech
    from avtlm.evaluation.identification import evaluate_speakers
    from avtlm.evaluation.translation import evaluate_translation

    rates = ("snr", "noise", "noise_dir", "visual", "visual_snr", "cells", "plot")
    if any(getattr(options, name) not in (None, []) for name in rates):
        return wrong("--snr, --noise, --noise-dir, --visual, --visual-snr, --cells and --plot are for word error rates; leave them out.")
    shared: dict[str, Any] = {"split": options.split, "limit": options.limit}
    if options.translation is not None:
        shared |= {"column": options.translation, "decoding": options.decoding}
        return _measured(options, evaluate_translation(options.manifest, options.model, **shared))
    if options.decoding:
        return wrong("--decoding is for models that write text; leave it out.")
    if task == "speaker":
        return _measured(options, evaluate_speakers(options.manifest, options.model, **shared))
    given = {name: getattr(options, name) for name in ("voices", "vocoder", "recognizer", "seed")}
    return _measured(options, evaluate_speech(options.manifest, options.model, **shared, **given))


def _measured(options: argparse.Namespace, report: Any) -> int:
    """Print a report, and write the same to a file, with the machine and the command that it comes from."""
    values = report.to_json()
    if options.out is not None:
        from avtlm.files import write_text
        from avtlm.origin import origin

        write_text(options.out, as_json(values | {"origin": origin()}) + "\n")
    print(as_json(values) if options.json else report.table())
    return 0
