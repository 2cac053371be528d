"""The verbs of `avtlm` that write speech: ``synthesize``, ``convert-voice`` and ``enhance``."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from avtlm.verbs import AddVerb
from avtlm.verbs.printing import sentence, wrong


def add_verbs(verb: AddVerb) -> None:
    """Add ``synthesize``, ``convert-voice`` and ``enhance``."""
    synthesize = verb(
        "synthesize",
        _synthesize,
        "say a text",
        "With --file, a text that cannot be said is reported and the others go on.",
    )
    synthesize.add_argument("text", metavar="TEXT", nargs="?", help="what to say, in the symbols of the model's vocabulary")
    lines = "say every line of this file; NAME<TAB>TEXT names the files that are written"
    synthesize.add_argument("--file", metavar="FILE", help=lines)
    again = "A file that cannot be used is reported and the others go on."
    convert_voice = verb("convert-voice", _convert_voice, "say in another voice what is said in files", again)
    enhance = verb("enhance", _convert_voice, "say without the noise what is said in files", again)
    for conversion in (convert_voice, enhance):
        conversion.add_argument("files", metavar="FILE", nargs="+", help="any common video or audio file")
        window = "seconds that are taken at once (default: 20); longer files are divided at pauses; 0 takes every file whole"
        conversion.add_argument("--window", type=float, default=20.0, metavar="SECONDS", help=window)
    for delivery in (synthesize, convert_voice, enhance):
        delivery.add_argument("--model", metavar="DIR", required=True, help="a model folder for generation")
        said = "a file *.wav (16 kHz), or a folder for one file per input"
        delivery.add_argument("--out", "-o", metavar="PATH", required=True, help=said)
        voice = "speaker embedding of a reference, such as an x-vector: .npy, or .npz or .safetensors of one or several"
        delivery.add_argument("--voice", metavar="FILE", help=voice)
        delivery.add_argument("--speaker", metavar="NAME", help="whose of the embeddings in --voice")
        delivery.add_argument("--vocoder", metavar="DIR", help="folder of a vocoder (default: Griffin-Lim, which needs no weights)")
        delivery.add_argument("--seed", type=int, default=0, help="repeats what is said (default: 0)")
        threshold = "probability at which speech ends (default: the model's, mostly 0.5)"
        delivery.add_argument("--threshold", type=float, metavar="X", help=threshold)
        longest = "cut speech at so many frames of 16 ms for each symbol, or each 20 ms of sound, that was read (default: the model's)"
        delivery.add_argument("--longest", type=float, metavar="X", help=longest)
        delivery.add_argument("--mel", metavar="PATH", help="also write the log mel spectrogram: a file *.npy, or a folder")
        delivery.add_argument("--attention", metavar="PATH", help="also draw where the decoder looked: a file *.png, or a folder")


def _synthesize(options: argparse.Namespace) -> int:
    from avtlm.speaking import read_texts, synthesize_each

    if (options.text is None) == (options.file is None):
        return wrong("Give one text, or --file FILE with one in every line.")
    texts = [("speech", options.text)] if options.file is None else read_texts(options.file)
    return _say(options, [name for name, _ in texts], synthesize_each([text for _, text in texts], _delivery(options)))


def _convert_voice(options: argparse.Namespace) -> int:
    from avtlm.speaking import convert_voice_each

    files = [Path(file) for file in options.files]
    results = convert_voice_each(files, _delivery(options), options.window)
    return _say(options, [file.stem for file in files], results, files)


def _delivery(options: argparse.Namespace) -> Any:
    """How things are said, an avtlm.speech_writer.Delivery."""
    from avtlm.speech_writer import Delivery

    changes = [f"{key}={value}" for key in ("threshold", "longest") if (value := getattr(options, key)) is not None]
    return Delivery.prepare(options.model, options.voice, options.vocoder, options.seed, changes, options.speaker)


def _say(options: argparse.Namespace, names: Sequence[str], results: Iterable[tuple[Any, Any]], inputs: Sequence[Path] = ()) -> int:
    """Write what is said, one after the other."""
    from avtlm.speaking import output_files

    kinds = (("out", ".wav"), ("mel", ".npy"), ("attention", ".png"))
    try:
        targets = {kind: output_files(names, out, ending) for kind, ending in kinds if (out := getattr(options, kind)) is not None}
    except ValueError as error:
        return wrong(str(error))
    written = {target.resolve() for target in targets["out"]}
    over = next((file for file in inputs if file.resolve() in written), None)
    if over is not None:
        return wrong(f"--out {options.out} would overwrite {over}; choose another folder.")
    arguments = {"out": "path", "mel": "mel", "attention": "attention"}
    failed = said = 0
    for place, (_, result) in enumerate(results):
        if isinstance(result, ValueError):
            print(f"avtlm: {sentence(result)}", file=sys.stderr)
            failed += 1
            continue
        if options.vocoder is None and not said:
            print("avtlm: without --vocoder, waveforms come from Griffin-Lim, which sounds rougher than a vocoder.", file=sys.stderr)
        said += 1
        result.save(**{argument: targets[kind][place] for kind, argument in arguments.items() if kind in targets})
        print(targets["out"][place], flush=True)
    if failed and len(names) > 1:
        print(f"avtlm: {failed} of {len(names)} could not be said.", file=sys.stderr)
    return 1 if failed else 0
