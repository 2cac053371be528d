"""What 8-bit weights and ONNX cost and bring: word error rates, sizes and times of one model in four forms, in one run.

    python -m benchmarks.export MODEL MANIFEST [--split test] [--limit N] [--modality av] [--snr 0,-5] [--json FILE]

The forms are PyTorch and ONNX Runtime, each with the own weights of the model and with 8-bit ones. All transcribe the same clips by the
search of the model folder; noise is babble of the same seed. Times are of the search and all behind the features, on as many threads as
PyTorch has; forms take turns, round by round, and medians count. Sizes are of the weights: files of the model folder or of the export,
and for 8 bits in PyTorch, which has no file of its own, what the layers hold.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from avtlm.checkpoint import WEIGHTS
from avtlm.data.batching import Batch
from avtlm.data.dataset import ClipDataset, Item, Source, collate
from avtlm.evaluation.evaluate import evaluate
from avtlm.export.write import Exported, export
from avtlm.files import write_text
from avtlm.nn.int8 import Int8Linear
from avtlm.transcribe import load_recognizer
from avtlm.transcriber import Transcriber

FORMS = ("PyTorch", "PyTorch, int8", "ONNX", "ONNX, int8")
BATCH = 8  # clips at once, for the times


def opened(form: str, model: Path, graphs: Path, narrow: Path) -> Transcriber:
    """The model in one of the forms."""
    if form.startswith("PyTorch"):
        return load_recognizer(model, "torch", "int8" if "int8" in form else None)
    return load_recognizer(narrow if "int8" in form else graphs, "onnx")


def held(model: Transcriber) -> int:
    """Bytes of the weights of a PyTorch model: 8-bit ones with a scale for each output, all others as they are."""
    kept = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    packed = [torch.ops.quantized.linear_unpack(each.packed)[0] for each in model.modules() if isinstance(each, Int8Linear)]
    biases = [each.out_features for each in model.modules() if isinstance(each, Int8Linear)]
    return kept + sum(weight.numel() + 4 * len(weight) for weight in packed) + 4 * sum(biases)


def batches(manifest: Path, split: str, model: Transcriber, modality: str, limit: int) -> tuple[list[Batch], float]:
    """Clips of a split as the model takes them in, and their seconds."""
    source = Source(str(manifest), "recognition", split=split, max_seconds=float("inf"), min_seconds=0.0)
    dataset = ClipDataset(source, inputs=model.inputs, vocabulary=model.vocabulary, training=False)
    items = []
    for index in range(min(limit, len(dataset))):
        row = dataset.manifest[index]
        sound = dataset.features(index, dataset.wave(index), row.video_frames or None) if "a" in modality else None
        items.append(Item(row.id, audio=sound, video=dataset.inputs.video(dataset.crops(index)) if "v" in modality else None))
    found = [collate(items[first : first + BATCH], "recognition") for first in range(0, len(items), BATCH)]
    seconds = sum(row.duration for row in list(dataset.manifest)[: len(items)])
    return found, seconds


def times(forms: dict[str, Transcriber], clips: Sequence[Batch], repeats: int) -> dict[str, list[float]]:
    """Seconds of each form for all clips, round by round; the first round, which opens graphs and lays weights out, does not count."""
    taken: dict[str, list[float]] = {form: [] for form in forms}
    for number in range(repeats + 1):
        for form, model in forms.items():
            start = time.perf_counter()
            for batch in clips:
                model.transcribe_batch(batch)
            if number:
                taken[form].append(time.perf_counter() - start)
    return taken


def measure(
    model: Path,
    manifest: Path,
    split: str = "test",
    limit: int | None = None,
    modality: str = "av",
    snrs: Sequence[float] = (),
    repeats: int = 3,
    timed: int = 16,
) -> dict[str, Any]:
    """Word error rates, sizes, times and differences by form.

    Args:
        limit: clips for the word error rates; None for the whole split.
        timed: clips for the times.
    """
    with tempfile.TemporaryDirectory() as folder:
        graphs, narrow = Path(folder) / "graphs", Path(folder) / "narrow"
        done: dict[str, Exported] = {"ONNX": export(model, graphs), "ONNX, int8": export(model, narrow, int8=True)}
        forms = {form: opened(form, model, graphs, narrow) for form in FORMS}
        clips, seconds = batches(manifest, split, forms["PyTorch"], modality, timed)
        taken = times(forms, clips, repeats)
        texts: dict[str, dict[Any, dict[str, str]]] = {}
        found: dict[str, Any] = {}
        for form, each in forms.items():
            report = evaluate(manifest, each, split=split, modalities=(modality,), snrs=snrs, limit=limit, seed=1)
            texts[form] = {(row.noise, row.snr): dict(row.texts) for row in report.conditions}
            sizes = {"PyTorch": (model / WEIGHTS).stat().st_size, "PyTorch, int8": held(each)}
            found[form] = {
                "wer": {"clean" if row.snr is None else f"{row.snr:g}": round(row.rate.percent, 2) for row in report.conditions},
                "same_texts": _share(texts["PyTorch"], texts[form]),
                "megabytes": round((done[form].bytes if form in done else sizes[form]) / 1e6, 2),
                "seconds": round(statistics.median(taken[form]), 3),
                "of_real_time": round(statistics.median(taken[form]) / seconds, 4),
                "difference": done[form].difference if form in done else None,
            }
    words = sum(len(text.split()) for text in next(iter(texts["PyTorch"].values())).values())
    about = {"clips": len(next(iter(texts["PyTorch"].values()))), "words_written": words, "timed_seconds": round(seconds, 1)}
    return {"forms": found, **about, "modality": modality, "split": split, "noise": "babble", "repeats": repeats}


def _share(wanted: dict[Any, dict[str, str]], given: dict[Any, dict[str, str]]) -> float:
    """Of transcripts that are the same."""
    pairs = [(text, given[cell][name]) for cell, row in wanted.items() for name, text in row.items()]
    return round(sum(first == second for first, second in pairs) / max(1, len(pairs)), 4)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, metavar="N")
    parser.add_argument("--modality", choices=["av", "a", "v"], default="av")
    parser.add_argument("--snr", default="", help="signal-to-noise ratios in dB, such as 0,-5")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--timed", type=int, default=16, metavar="N", help="clips for the times (default: 16)")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    snrs = tuple(float(part) for part in options.snr.split(",") if part)
    found = measure(options.model, options.manifest, options.split, options.limit, options.modality, snrs, options.repeats, options.timed)
    found |= {"threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version()}
    found["command"] = f"python -m benchmarks.export {' '.join(sys.argv[1:] if arguments is None else arguments)}"
    conditions = list(found["forms"]["PyTorch"]["wer"])
    head = "".join(f"{'WER ' + name:>12}" for name in conditions)
    print(f"{'':16}{head}{'same texts':>12}{'MB':>8}{'seconds':>9}{'of real time':>14}")
    for form, row in found["forms"].items():
        rates = "".join(f"{row['wer'][name]:12.2f}" for name in conditions)
        print(f"{form:16}{rates}{row['same_texts']:12.3f}{row['megabytes']:8.1f}{row['seconds']:9.2f}{row['of_real_time']:14.3f}")
    if options.json:
        write_text(options.json, json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
