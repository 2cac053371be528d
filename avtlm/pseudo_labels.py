"""Transcripts of untranscribed clips by a model: the first half of self-training, whose second half is to fine-tune again on them.

Source: AV-HuBERT section 4.3 and its released self-training configurations (arXiv 2201.02184); VATLM section IV-C follows it.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from avtlm.data.dataset import ClipDataset, Source, collate
from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import MediaError
from avtlm.decoding.result import Transcript
from avtlm.training.progress import bar
from avtlm.transcribe import load_recognizer
from avtlm.transcriber import Transcriber

BATCH_ROWS = 16


@dataclass(frozen=True)
class Report:
    """What became of the rows: written, thrown out for a low confidence or an empty transcript, or not readable (id -> reason)."""

    manifest: Path
    kept: int
    unsure: int
    failed: dict[str, str]


def pseudo_labels(
    manifest: str | Path,
    model: str | Path | Transcriber,
    output: str | Path,
    modality: str = "av",
    split: str | None = "train",
    min_confidence: float = 0.0,
) -> Report:
    """Write a manifest of the same clips with a model's transcripts, and its confidence in ``extra["confidence"]``.

    What is decoded goes to ``<output>.partial`` at once, so that
    an interrupted call goes on where it stopped; the manifest itself appears whole, at the end.

    Args:
        manifest: lip crops and sound, as avtlm-lip-roi writes them; transcripts that are there are not looked at.
        output: path of the new manifest; its media paths are absolute.
        modality: ``av``, ``a`` or ``v``.
        split: which rows; None takes all.
        min_confidence: clips below this are left out (0 to 1).

    Raises:
        ManifestError, CheckpointError: something cannot be read.
        ValueError: no rows, or an unknown modality.
    """
    if modality not in ("av", "a", "v"):
        raise ValueError(f"modality: {modality!r} is unknown; choose av, a or v.")
    if not 0.0 <= min_confidence <= 1.0:
        raise ValueError(f"min_confidence: {min_confidence} is not between 0 and 1.")
    recognizer = load_recognizer(model)
    if recognizer.inputs.video_size is None and modality != "a":
        raise ValueError(f"modality: {modality!r} was asked for, but this model hears only; choose a.")
    task: Any = "audio" if modality == "a" else "audio_video"
    source = Source(str(manifest), task, split=split, cache=False, max_seconds=float("inf"), min_seconds=0.0)
    dataset = ClipDataset(source, inputs=recognizer.inputs, training=False)
    partial = Path(f"{output}.partial")
    origin = {"manifest": str(manifest), "model": str(model) if not isinstance(model, Transcriber) else "loaded", "modality": modality}
    found = _resume(partial, origin)
    rows = [index for index, row in enumerate(dataset.manifest) if row.id not in found]
    rows.sort(key=dataset.frames)
    with bar("pseudo-labels", len(dataset), len(found)) as progress, open(partial, "a", encoding="utf-8") as journal:
        for start in range(0, len(rows), BATCH_ROWS):
            batch = rows[start : start + BATCH_ROWS]
            for name, entry in _recognise(recognizer, dataset, batch, modality).items():
                found[name] = entry
                journal.write(json.dumps({"id": name, **entry}, ensure_ascii=False) + "\n")
            journal.flush()
            progress.advance(len(batch))
    kept = []
    for row in dataset.manifest:
        entry = found[row.id]
        if "text" in entry and entry["text"] and entry["confidence"] >= min_confidence:
            kept.append(_labelled(dataset.manifest, row, entry))
    failed = {name: entry["failed"] for name, entry in found.items() if "failed" in entry}
    write_manifest(output, Manifest(Path(output).parent, tuple(kept)))
    partial.unlink()
    return Report(Path(output), len(kept), len(dataset) - len(kept) - len(failed), failed)


def _resume(partial: Path, origin: dict[str, str]) -> dict[str, dict[str, Any]]:
    """What an interrupted call has decoded, if it was the same call; the file is started afresh otherwise."""
    lines = [line for line in partial.read_text(encoding="utf-8").splitlines() if line.endswith("}")] if partial.exists() else []
    if lines and json.loads(lines[0]) == origin:
        entries = [json.loads(line) for line in lines[1:]]
    else:
        entries = []
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in [origin, *entries]), encoding="utf-8")
    return {entry.pop("id"): entry for entry in entries}


def _recognise(recognizer: Transcriber, dataset: ClipDataset, rows: list[int], modality: str) -> dict[str, dict[str, Any]]:
    entries: dict[str, dict[str, Any]] = {}
    items = []
    for index in rows:
        try:
            item = dataset.item(index)
            if ("a" in modality and item.audio is None) or ("v" in modality and item.video is None):
                raise MediaError(dataset.manifest[index].id, f"has not got what modality {modality} needs")
            items.append(item)
        except MediaError as error:
            entries[dataset.manifest[index].id] = {"failed": str(error)}
    if items:
        device = next(recognizer.parameters()).device
        batch = collate(items, dataset.source.task).to(device)
        for item, result in zip(items, recognizer.transcribe_batch(batch.only(modality)), strict=True):
            entries[item.id] = {"text": result.text, "confidence": round(confidence(result), 4)}
    return entries


def confidence(result: Transcript) -> float:
    """Geometric mean of the posteriors of the best hypothesis' tokens, from 0 to 1; 0 for an empty one.

    CTC knows the probability of the whole sequence only; its root of the number of tokens stands in.
    """
    best = result.hypotheses[0]
    if not best.tokens:
        return 0.0
    total = sum(best.token_scores) if best.token_scores else best.score
    return math.exp(min(0.0, total / max(len(best.token_scores), len(best.tokens))))


def _labelled(manifest: Manifest, row: Utterance, entry: dict[str, Any]) -> Utterance:
    paths = {name: str(path.resolve()) for name in ("video", "audio") if (path := manifest.path(getattr(row, name))) is not None}
    return replace(row, transcript=entry["text"], extra=row.extra | {"confidence": entry["confidence"]}, **paths)  # type: ignore[arg-type]
