"""The verbs of `avtlm` around sounds and voices: ``teach``, ``tag`` and ``verify``."""

import argparse
import json
import sys
from pathlib import Path

from avtlm.verbs import AddVerb
from avtlm.verbs.options import add_device, add_json, add_model, add_split
from avtlm.verbs.printing import as_json, wrong


def add_verbs(verb: AddVerb) -> None:
    """Add ``teach``, ``tag`` and ``verify``."""
    teach = verb(
        "teach",
        _teach,
        "ask teachers about every clip of a manifest, and keep what they say for a student (MT2KD)",
        "Stopped and started again, it goes on where it was; a clip that cannot be heard is listed and the others go on.",
    )
    teach.add_argument("manifest", metavar="MANIFEST", help="clips with sound")
    kinds = "speech=DIR (Whisper), sound=FILE.pt (BEATs), speaker=DIR (ECAPA-TDNN), or model folders of avtlm; one or more"
    teach.add_argument("--teachers", nargs="+", metavar="NAME=PATH", required=True, help=kinds)
    teach.add_argument("--out", "-o", metavar="DIR", required=True, help="where the answers go")
    teach.add_argument("--labels", metavar="CSV", help="AudioSet's class_labels_indices.csv, to name BEATs' classes")
    add_device(teach)

    tag = verb(
        "tag",
        _tag,
        "name the sounds in files, or measure a model's tags on a manifest",
        "Prints the likeliest classes of each file; a file that cannot be used is reported and the others go on.",
    )
    tag.add_argument("files", metavar="FILE", nargs="*", help="any common video or audio file")
    tag.add_argument("--top", type=int, default=5, metavar="N", help="classes of a file (default: 5)")
    tag.add_argument("--least", type=float, default=0.0, metavar="X", help="leave out classes that are less probable (default: 0)")
    tag.add_argument("--manifest", metavar="MANIFEST", help="measure mAP against extra.labels of its clips instead")

    verify = verb(
        "verify",
        _verify,
        "tell whether two files are of one speaker, or measure a model on speaker trials",
        "Prints the cosine of the two voices: the higher, the likelier it is one speaker.",
    )
    verify.add_argument("files", metavar="FILE", nargs="*", help="two files")
    verify.add_argument("--threshold", type=float, metavar="X", help="from which cosine on it is one speaker; trials tell a good one")
    verify.add_argument("--trials", metavar="LIST", help="measure EER and minDCF of lines `1 FIRST SECOND` instead; needs --manifest")
    verify.add_argument("--manifest", metavar="MANIFEST", help="where the utterances of the trials are")
    for each in (tag, verify):
        add_model(each)
        add_split(each, what="of the manifest")
        window = "seconds that are heard at once (default: 60); longer files in parts; 0 hears every file whole"
        each.add_argument("--window", type=float, default=60.0, metavar="SECONDS", help=window)
        add_json(each)


def _teach(options: argparse.Namespace) -> int:
    from avtlm.teaching import teach

    pairs = [each.partition("=") for each in options.teachers]
    bare = [name + sign for name, sign, path in pairs if not path]
    if bare:
        return wrong(f"--teachers {bare[0]}: write NAME=PATH, such as speech=models/whisper-large-v3.")
    teachers = {name: path for name, _, path in pairs}
    done = teach(options.manifest, teachers, options.out, options.labels, options.device)
    for name, each in done.about.teachers.items():
        rate = f" at {each.rate:g} Hz" if each.rate else ""
        print(f"{name}: {each.width} values{rate}, by {each.source}")
    print(f"{done.clips - len(done.failed)} of {done.clips} clips, {done.new} of {done.about.pieces} files new\nanswers: {done.folder}")
    if done.failed:
        print(f"avtlm: {len(done.failed)} clips could not be heard; see {done.folder / 'failed.jsonl'}.", file=sys.stderr)
    return 0


def _tag(options: argparse.Namespace) -> int:
    from avtlm.hearing import Listener, tag_each

    if options.manifest is not None:
        if options.files:
            return wrong("--manifest measures its own clips; leave the files out.")
        from avtlm.evaluation.sounds_and_voices import evaluate_tags

        report = evaluate_tags(options.manifest, options.model, options.split)
        print(as_json(report.to_json()) if options.json else report.table())
        return 0
    if not options.files or options.top < 1:
        return wrong("avtlm tag needs files, or --manifest; --top is at least 1.")
    listener, failed = Listener(options.model, options.window), 0
    for path, tags in tag_each(options.files, listener):
        if isinstance(tags, ValueError):
            print(f"avtlm: {path}: {tags}" if str(path) not in str(tags) else f"avtlm: {tags}", file=sys.stderr)
            failed += 1
            continue
        shown = [tag for tag in tags[: options.top] if tag.probability >= options.least]
        if options.json:
            found = [{"name": tag.name, "probability": round(tag.probability, 5)} for tag in shown]
            print(json.dumps({"file": str(path), "tags": found}, ensure_ascii=False))
        else:
            prefix = f"{path}: " if len(options.files) > 1 else ""
            print(prefix + ", ".join(f"{tag.name} {tag.probability:.3f}" for tag in shown))
    return 1 if failed else 0


def _verify(options: argparse.Namespace) -> int:
    from avtlm.hearing import Listener, verify

    if (options.trials is None) != (options.manifest is None):
        return wrong("--trials and --manifest go together.")
    if options.trials is not None:
        if options.files:
            return wrong("--trials measures utterances of the manifest; leave the files out.")
        from avtlm.evaluation.sounds_and_voices import evaluate_trials

        report = evaluate_trials(Path(options.trials), options.manifest, options.model, options.split)
        print(json.dumps(report.to_json(), indent=2) if options.json else report.table())
        return 0
    if len(options.files) != 2:
        return wrong(f"avtlm verify compares two files, not {len(options.files)}; or give --trials and --manifest.")
    first, second = options.files
    score = verify(first, second, Listener(options.model, options.window))
    same = None if options.threshold is None else score >= options.threshold
    if options.json:
        print(json.dumps({"files": options.files, "cosine": round(score, 5), "same": same}, ensure_ascii=False))
    else:
        verdict = "" if same is None else "  same speaker" if same else "  two speakers"
        print(f"{score:.4f}{verdict}")
    return 0
