"""The verb `avtlm transcribe`: of files, or of what a microphone and a camera take in (--stream)."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from avtlm.verbs import AddVerb
from avtlm.verbs.options import add_decoding, add_model
from avtlm.verbs.printing import sentence, wrong

if TYPE_CHECKING:
    from avtlm.transcriber import Transcriber

BACKENDS = ("torch", "onnx")  # of avtlm.export, which the help does not load


def add_verb(verb: AddVerb) -> None:
    """Add ``transcribe``."""
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
    computes = "what has to compute: torch, or onnx for a folder that `avtlm export` has written (default: what the folder holds)"
    transcribe.add_argument("--backend", choices=BACKENDS, help=computes)
    narrow = "8-bit weights of linear layers, on the CPU (docs/export.md says what they cost); of onnx the folder has to have them"
    transcribe.add_argument("--int8", action="store_true", help=narrow)
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
    model = _chosen_model(options)
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
    model = _chosen_model(options)
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


def _chosen_model(options: argparse.Namespace) -> "Transcriber":
    """The model that --model, --backend and --int8 name, opened."""
    from avtlm.transcribe import load_recognizer

    return load_recognizer(options.model, options.backend, "int8" if options.int8 else None)
