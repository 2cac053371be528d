"""`avtlm VERB`: read the arguments, call the function of the library that bears the verb's name, print what it returns.

Exit codes: 0 done, 1 failed, 2 wrong use (arguments or configuration), 130 stopped by Ctrl-C. Results go to standard output; errors (one
sentence) and progress to standard error. The library is imported inside the verbs, so that the help is there at once. All verbs but those
of two words (verbs/units.py) share one file, whatever its number of lines, so that the surface is read in one place.
"""

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from avtlm import __version__
from avtlm.memory import use_huge_pages
from avtlm.verbs import export as export_verb
from avtlm.verbs import hub as hub_verbs
from avtlm.verbs import pipeline as pipeline_verb
from avtlm.verbs import report as report_verb
from avtlm.verbs import sounds as sound_verbs
from avtlm.verbs import superb as superb_verb
from avtlm.verbs import units as unit_verbs
from avtlm.verbs.options import add_decoding, add_json, add_model, add_split
from avtlm.verbs.printing import as_json, sentence, wrong

DESCRIPTION = "Train and use models that read sound, lips and text together."
EPILOG = """\
examples:
  avtlm transcribe clip.mp4                          words from sound and lips, with the model of `make quickstart`
  avtlm transcribe clip.mp4 --modality v --srt       from the lips alone, as subtitles
  avtlm train configs/vatlm/tiny_pretrain.yaml optim.lr=1e-3
  avtlm evaluate manifest.jsonl --model runs/model --snr 10,0,-10
  avtlm synthesize "good morning" --model runs/tts --voice alice.npy -o morning.wav
  avtlm convert base_vox_433h.pt --system vatlm -o runs/vatlm
  avtlm info clip.mp4                                what a clip, a manifest or a model folder holds

`avtlm VERB --help` explains one verb.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code."""
    parser = _parser()
    options = parse(sys.argv[1:] if arguments is None else arguments, parser)
    if options.verb is None:
        parser.print_help()
        return 2
    level = logging.DEBUG if options.debug else logging.INFO if options.verb in ("train", "pipeline", "units") else logging.WARNING
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("avtlm").setLevel(level)
    use_huge_pages()
    verb: Callable[[argparse.Namespace], int] = options.run
    try:
        code = verb(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("avtlm: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone, which is its right
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.debug:
            raise
        print(f"avtlm: {sentence(error)}", file=sys.stderr)
        return 2 if _is_wrong_use(error) else 1


def parse(given: Sequence[str], parser: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """Arguments as options. Raises SystemExit for those that no verb has."""
    # A list such as -10,-5,0 begins like an option; one with a space before it does not.
    words = [f" {part}" if re.match(r"-[\d.]+,", part) else part for part in given]
    if " ".join(words[:2]) in unit_verbs.VERBS:
        words[:2] = [" ".join(words[:2])]
    return (parser or _parser()).parse_args(words)


def _is_wrong_use(error: Exception) -> bool:
    from avtlm.plain_yaml import ConfigError

    return isinstance(error, ConfigError | argparse.ArgumentError)


# Verbs -------------------------------------------------------------------------------------------------------------------------------


def _train(options: argparse.Namespace) -> int:
    from avtlm.training.interruption import Interrupted
    from avtlm.training.loop import train

    try:
        folder = train(options.config, options.overrides)
    except Interrupted as stopped:  # as a scheduler asked, which takes that for success
        folder = stopped.folder
    if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
        print(f"model: {folder}")
    return 0


def _profile(options: argparse.Namespace) -> int:
    from avtlm.profile import profile

    return _figures(profile(options.config, options.overrides, options.steps), options.json)


def _plan(options: argparse.Namespace) -> int:
    from avtlm.plan import plan

    sizes = {name: getattr(options, name) for name in ("gpus", "hours", "device", "utilisation", "efficiency")}
    return _figures(plan(options.config, options.overrides, **sizes), options.json)


def _figures(found: Any, file: str | None) -> int:
    """Print a table, and write the same to a file."""
    if file is not None:
        from avtlm.files import write_text

        write_text(file, as_json(found.to_json()) + "\n")
    print(found.table())
    return 0


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


def _transcribe(options: argparse.Namespace) -> int:
    from avtlm.data.media import MediaError
    from avtlm.decoding import captions
    from avtlm.transcribe import transcribe_each

    if options.stream:
        return _stream(options)
    if options.real_time:
        return wrong("--real-time is for --stream; a file that is transcribed whole is read as fast as it can be.")
    if options.resume and options.out is None:
        return wrong("--resume needs --out PATH, where the transcripts that are there already can be seen.")
    files = [Path(file) for file in options.files]
    try:
        kind = captions.format_of(options.format, options.out)
        targets = None if options.out is None else dict(zip(files, captions.targets(files, options.out, kind)))
    except ValueError as error:
        return wrong(str(error))
    if kind in ("srt", "vtt") and len(files) > 1 and targets is None:
        return wrong(f"--format {kind} of several files needs --out FOLDER, one file each.")
    search = ["words=false", *options.decoding] if kind == "text" else options.decoding
    if options.resume and targets is not None:
        waiting = [file for file in files if not targets[file].exists()]
        print(f"avtlm: {len(files) - len(waiting)} of {len(files)} files are transcribed already.", file=sys.stderr)
        files = waiting
    failed = 0
    division = {"window": options.window, "vad": options.vad, "min_silence": options.min_silence}
    model = export_verb.chosen_model(options)
    for path, result in transcribe_each(files, model, options.modality, options.geometry, None, search, **division):
        if isinstance(result, MediaError):
            print(f"avtlm: {sentence(result)}", file=sys.stderr)
            failed += 1
        elif targets is not None:
            captions.write(result, path, targets[path], kind)
            print(targets[path])
        else:
            named = f"{path}\t" if kind == "text" and len(files) > 1 else ""
            print(named + captions.render(result, path, kind).rstrip("\n"), flush=True)
    if failed and len(options.files) > 1:
        print(f"avtlm: {failed} of {len(options.files)} files could not be transcribed.", file=sys.stderr)
    return 1 if failed else 0


def _stream(options: argparse.Namespace) -> int:
    from avtlm.data.live_input import DeviceInput, open_input
    from avtlm.decoding.result import Transcript
    from avtlm.live_captions import LiveCaptions, LiveOptions

    if len(options.files) != 1:
        return wrong("--stream takes one file, or one microphone and camera (mic, mic+camera, alsa:default+v4l2:/dev/video0).")
    if options.out is not None or options.format in ("srt", "vtt") or options.resume:
        return wrong("--stream prints captions as they come; --out, --srt, --vtt and --resume are for files that are transcribed whole.")
    if not options.window:
        return wrong("--stream needs a window; give --window SECONDS, at least 1.")
    division = LiveOptions(window=options.window, vad=options.vad, min_silence=options.min_silence)
    model = export_verb.chosen_model(options)
    captions = LiveCaptions(model, options.modality, False, division, options.decoding, options.geometry)
    source = open_input(options.files[0], "v" in captions.modality, options.real_time)
    captions.live = source.live
    as_json, terminal = options.format == "json", sys.stderr.isatty()
    try:
        for caption in captions.captions(source):
            if as_json:
                words = Transcript(caption.text, caption.words).to_dict()["words"]
                kind = "final" if caption.final else "partial"
                line = {"type": kind, "time": round(caption.time, 3), "text": caption.text, "words": words}
                print(json.dumps(line, ensure_ascii=False), flush=True)
            elif caption.final:
                print("\r\033[K" if terminal else "", end="", file=sys.stderr, flush=True)
                print(f"{caption.time:8.2f}  {caption.text}", flush=True)
            else:
                print(f"\r\033[K          {caption.text} ..." if terminal else f"{caption.time:8.2f}  {caption.text} ...", file=sys.stderr,
                      end="" if terminal else "\n", flush=True)  # fmt: skip
    except KeyboardInterrupt:
        if not isinstance(source, DeviceInput):  # this is how listening to a device ends
            raise
    report = captions.report()
    for problem in dict.fromkeys(report.problems):
        print(f"avtlm: {problem}", file=sys.stderr)
    if as_json:
        print(json.dumps({"type": "report", "source": options.files[0], **report.to_dict()}))
    else:
        print(f"{report}", file=sys.stderr)
    return 0


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


def _average(options: argparse.Namespace) -> int:
    from avtlm.training.averaging import average

    print(f"model: {average(options.models, options.out)}")
    return 0


def _label(options: argparse.Namespace) -> int:
    from avtlm.pseudo_labels import pseudo_labels

    report = pseudo_labels(options.manifest, options.model, options.out, options.modality, options.split, options.min_confidence)
    for name, reason in report.failed.items():
        print(f"avtlm: {name}: {reason}", file=sys.stderr)
    print(f"{report.kept} utterances kept, {report.unsure} left out as unsure or empty, {len(report.failed)} not readable")
    print(f"manifest: {report.manifest}")
    return 1 if report.failed else 0


def _visualize(options: argparse.Namespace) -> int:
    from avtlm.evaluation.representations import describe, visualize

    numbers = visualize(
        options.manifest, options.model, options.out, options.layer, options.inputs, options.split, limit=options.limit, seed=options.seed
    )
    print(f"{describe(numbers)}\nfigure: {options.out}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    source = Path(options.source)
    reading = options.system or options.pretrained or options.vocabulary or options.averaged
    if options.to is not None and reading:
        said = "--system, --pretrained, --vocabulary and --averaged are for reading a .pt file"
        return wrong(f"--to {options.to} writes a model folder back; {said}.")
    if options.to == "icefall":
        from avtlm.convert.mt2kd import to_icefall

        print(f"checkpoint: {to_icefall(source, options.out)}")
        return 0
    if options.to == "fairseq":
        from avtlm.convert.export import to_fairseq

        print(f"checkpoint: {to_fairseq(source, options.out)}")
        return 0
    if options.to == "huggingface":
        from avtlm.convert.export_huggingface import to_huggingface

        print(f"folder: {to_huggingface(source, options.out)}")
        return 0
    if source.is_dir():
        from avtlm.convert.huggingface import convert_folder, is_hugging_face

        if not is_hugging_face(source):
            return wrong(
                f"{source} has no config.json, so it is no Hugging Face folder; to write a model folder of avtlm for other code, add "
                "--to fairseq or --to huggingface."
            )
        if options.pretrained or options.vocabulary or options.averaged:
            said = "--pretrained, --vocabulary and --averaged are for reading a .pt file"
            return wrong(f"{said}; a Hugging Face folder has its own vocab.json.")
        print(f"model: {convert_folder(source, options.system, options.out)}")
        return 0
    from avtlm.convert.fairseq import convert

    print(f"model: {convert(source, options.system, options.out, options.pretrained, options.vocabulary, options.averaged)}")
    return 0


def _info(options: argparse.Namespace) -> int:
    from avtlm.info import info

    found = info(options.path)
    print(as_json(found) if options.json else "\n".join(_lines(found)))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    import dataclasses

    from avtlm.doctor import doctor

    found = dataclasses.asdict(doctor())
    print(as_json(found) if options.json else "\n".join(_lines(found)))
    return 1 if found["problems"] else 0


def _lines(value: Any, indent: str = "") -> Iterable[str]:
    """Nested dictionaries and lists as indented lines with aligned values."""
    entries = value.items() if isinstance(value, dict) else [("-", item) for item in value]
    width = max((len(str(key)) for key, item in entries if not isinstance(item, dict | list)), default=0)
    for key, item in entries:
        if isinstance(item, list) and not any(isinstance(part, dict) or len(str(part)) > 20 for part in item):
            item = ", ".join(map(str, item)) or "none"
        if isinstance(item, dict | list):
            yield f"{indent}{key}" if item else f"{indent}{key}  none"
            yield from _lines(item, indent + "  ")
        else:
            yield f"{indent}{key:<{width}}  {'-' if item is None else item}"


# Arguments ---------------------------------------------------------------------------------------------------------------------------


def _ratios(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text.strip()!r} is not a list of ratios in dB, such as -10,-5,0,5,10") from None


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show where an error comes from")
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("avtlm", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"avtlm {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    verbs = parser.add_subparsers(dest="verb", title="verbs", metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int], summary: str, more: str = "") -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {more}", parents=[shared])
        added.set_defaults(run=run)
        return added

    train = verb("train", _train, "train what a configuration describes", "A run that was stopped goes on where its last state was saved.")
    profile = verb("profile", _profile, "measure where the time of a training step goes", "Nothing is kept of the steps that it makes.")
    plan = verb("plan", _plan, "say what a training takes: memory, speed, time", "It needs no data, and measures or estimates one step.")
    for runs in (train, profile, plan):
        runs.add_argument("config", metavar="CONFIG", help="a YAML file, such as those in configs/")
        runs.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="change single settings: optim.lr=1e-4")
    profile.add_argument("--steps", type=int, default=20, metavar="N", help="how many to measure (default: 20)")
    plan.add_argument("--gpus", type=int, default=1, metavar="N", help="devices (default: 1)")
    plan.add_argument("--hours", type=float, required=True, metavar="H", help="hours of sound or lips in the data")
    plan.add_argument("--device", metavar="GPU", help="estimate the time on this GPU, such as h100 (default: measure a step here)")
    peak = "share of its peak that a named GPU is assumed to reach (default: 0.1, as published pre-trainings of speech models)"
    plan.add_argument("--utilisation", type=float, default=0.1, metavar="X", help=peak)
    alone = "what each of several devices is assumed to do of what it does alone (default: 0.9)"
    plan.add_argument("--efficiency", type=float, default=0.9, metavar="X", help=alone)
    for figures in (profile, plan):
        figures.add_argument("--json", metavar="FILE", help="write the figures here as well")

    units = verb("units", _units, "turn the frames of a corpus into k-means units", "Without --model the features are MFCC of the sound.")
    units.add_argument("manifest", metavar="MANIFEST")
    units.add_argument("out", metavar="FOLDER", help="where the labels and the clusters go")
    units.add_argument("--model", metavar="DIR", help="cluster the features of this model")
    units.add_argument("--layer", type=int, metavar="N", help="features of its layer N")
    units.add_argument("--clusters", type=int, default=100, metavar="K", help="number of units (default: 100)")
    units.add_argument("--clusters-from", metavar="FILE", help="use these clusters (kmeans.safetensors) instead of fitting new ones")
    units.add_argument("--split", nargs="+", metavar="NAME", help="label only these splits (default: everything)")
    units.add_argument("--fit-split", default="train", metavar="NAME", help="fit the clusters on this split (default: train)")
    units.add_argument("--fraction", type=float, default=1.0, metavar="X", help="fit on this share of its utterances (default: 1)")
    units.add_argument("--modality", choices=["av", "a", "v"], default="av", help="what the model sees (default: av)")
    units.add_argument("--seed", type=int, default=0)
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

    transcribe = verb(
        "transcribe",
        _transcribe,
        "write down what is said in video or audio files",
        "Prints the words of each file; a file that cannot be used is reported and the others go on.",
    )
    transcribe.add_argument("files", metavar="FILE", nargs="+", help="any common video or audio file; a video shows one speaking face")
    transcribe.add_argument(
        "--modality", choices=["av", "a", "v"], default="av", help="sound and lips (av, default), sound (a) or lips (v)"
    )
    add_model(transcribe)
    kinds = transcribe.add_mutually_exclusive_group()
    what = "text (default), json (a line a file: words with times and confidences, n-best), srt or vtt (captions)"
    kinds.add_argument("--format", choices=["text", "json", "srt", "vtt"], help=what)
    for kind in ("json", "srt", "vtt"):
        kinds.add_argument(f"--{kind}", dest="format", action="store_const", const=kind, help=f"the same as --format {kind}")
    target = "write there instead of printing: a file named *.txt, *.json, *.srt or *.vtt, or a folder for one file per input"
    transcribe.add_argument("--out", "-o", metavar="PATH", help=target)
    geometry = "how lips are aligned (default: as they were for the model's training)"
    transcribe.add_argument("--geometry", choices=["avhubert", "auto_avsr", "auto_avsr_mediapipe"], help=geometry)
    add_decoding(transcribe)
    export_verb.add_choice(transcribe)
    long = transcribe.add_argument_group("long recordings", "They are divided at pauses; docs/long_recordings.md.")
    window = "seconds that are decoded at once (default: 20); longer files are divided; 0 takes every file whole"
    long.add_argument("--window", type=float, default=20.0, metavar="SECONDS", help=window)
    finds = "what finds speech: energy (default), or the network silero (extra vad)"
    long.add_argument("--vad", choices=["energy", "silero"], default="energy", help=finds)
    pause = "pauses from this length on divide a recording (default: 0.5)"
    long.add_argument("--min-silence", type=float, default=0.5, metavar="SECONDS", help=pause)
    long.add_argument("--resume", action="store_true", help="leave out files whose transcript is in --out already")
    live = "captions while FILE plays, or from a microphone and a camera: mic, mic+camera, alsa:default+v4l2:/dev/video0"
    long.add_argument("--stream", action="store_true", help=live)
    long.add_argument("--real-time", action="store_true", help="with --stream: play the file as fast as it was spoken, not faster")

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

    average = verb("average", _average, "average the weights of several models of one run")
    average.add_argument("models", metavar="DIR", nargs="+", help="model folders, such as those in RUN/candidates")
    average.add_argument("--out", "-o", metavar="DIR", required=True, help="the new model folder")

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
    visualize.add_argument("--seed", type=int, default=0)

    convert = verb(
        "convert",
        _convert,
        "turn an official checkpoint (.pt of fairseq or icefall, or a Hugging Face folder) into a model folder, or back",
        "Neither fairseq, transformers nor any code in the file is run; nothing is written if something does not fit.",
    )
    source = "an official checkpoint (FILE.pt) or a Hugging Face folder, pre-trained or fine-tuned; with --to a model folder"
    convert.add_argument("source", metavar="SOURCE", help=source)
    convert.add_argument("--out", "-o", metavar="DIR", required=True, help="the new model folder; with --to the new .pt file or folder")
    known = ["avhubert", "vatlm", "wav2vec2", "hubert", "wavlm", "data2vec", "mt4ssl", "speecht5", "speech2c", "speechlm", "speechut"]
    known += ["fast_text2unit", "mmspeech", "hifigan", "mt2kd"]
    convert.add_argument("--system", choices=known, help="make sure that it is this system (default: what the file says)")
    back = "write a model folder for the official code, for transformers, or for icefall"
    convert.add_argument("--to", choices=["fairseq", "huggingface", "icefall"], help=back)
    convert.add_argument(
        "--pretrained", metavar="FILE.pt", help="checkpoint that a fine-tuned one came from, if its own configuration lacks the encoder's"
    )
    convert.add_argument("--vocabulary", metavar="FILE", help="SentencePiece model, dict.txt or vocab.txt, if a checkpoint holds none")
    convert.add_argument("--averaged", action="store_true", help="of icefall: the running average of the weights (model_avg)")

    pipeline_verb.add_verb(verb)
    report_verb.add_verb(verb)
    unit_verbs.add_verbs(verb)
    sound_verbs.add_verbs(verb)
    superb_verb.add_verb(verb)
    hub_verbs.add_verbs(verb)
    export_verb.add_verb(verb)

    info = verb("info", _info, "show what a model folder, a manifest or a media file holds")
    info.add_argument("path", metavar="PATH")
    add_json(info)

    doctor = verb(
        "doctor", _doctor, "check this installation: versions, attention backends, extras, codecs", "Exits with 1 if it finds a problem."
    )
    add_json(doctor)
    return parser


if __name__ == "__main__":
    sys.exit(main())
