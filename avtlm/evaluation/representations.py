"""Seeing inside an encoder: do sound, lips, both and text of the same content end up in the same place?

Every clip goes through the encoder once for each kind of input. Frames are averaged over each phone where the manifest has timed phones,
and taken one by one elsewhere; t-SNE lays them out in a plane. A picture deceives easily, so a figure stands beside it: how often the
nearest neighbour of a phone, looked up among the phones of other clips and of another kind of input, is the same phone.

Source: the t-SNE of modalities in VATLM (arXiv 2211.11275, section V-D); the nearest-neighbour figure is ours.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from avtlm import systems
from avtlm.data.batching import Batch
from avtlm.data.dataset import ClipDataset, Item, Source, collate, frame_level_phones
from avtlm.data.inputs import InputFormat
from avtlm.data.manifest import Utterance
from avtlm.data.seeds import seed_for
from avtlm.errors import needs
from avtlm.evaluation.plots import modality_map
from avtlm.files import write_text
from avtlm.text.vocabulary import SPECIALS, Vocabulary
from avtlm.training.initial import PHONES
from avtlm.training.progress import bar
from avtlm.units.text_to_units import timed_phones

RATE = 25.0
STEP = 5  # frames between two points where there are no timed phones
SILENCES = ("sil", "sp", "SIL", "_", "")
INPUTS = ("av", "a", "v", "text")
BATCH_ROWS = 16


@dataclass(frozen=True)
class Points:
    """What an encoder makes of pieces of clips.

    Attributes:
        features: (points, dim) float32.
        inputs: kind of input of each point: ``av``, ``a``, ``v`` or ``text``.
        labels: phone of each point; empty where phones are not known.
        clips: utterance id of each point.
    """

    features: np.ndarray
    inputs: tuple[str, ...]
    labels: tuple[str, ...]
    clips: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.inputs)


def visualize(
    manifest: str | Path,
    model: str | Path,
    output: str | Path,
    layer: int | None = None,
    inputs: Sequence[str] | None = None,
    split: str | None = "test",
    limit: int = 30,
    seed: int = 0,
) -> dict[str, Any]:
    """Draw the figure (PNG) and write its numbers beside it (JSON); return the numbers.

    Args:
        manifest: lip crops and sound, as avtlm-lip-roi writes them; timed phones (``phones``) give points per phone.
        model: folder of a pre-trained encoder or of a recogniser.
        layer: 1-based layer whose output is looked at; default: the last, after the encoder's norm.
        inputs: any of ``av``, ``a``, ``v``, ``text``; default: all that model and manifest have.
        limit: clips, drawn with ``seed``.

    Raises:
        ManifestError, MediaError, CheckpointError: something cannot be read.
        MissingExtra: scikit-learn is not installed.
        ValueError: an unknown input, or one that the model or the manifest lacks; too few points.
    """
    points = collect(manifest, model, layer, inputs, split, limit, seed)
    places = layout(points.features, seed)
    numbers: dict[str, Any] = {
        "model": str(model),
        "manifest": str(manifest),
        "layer": layer,
        "clips": len(set(points.clips)),
        "points": len(points),
        "same_phone": same_phone(points),
        "chance": chance(points),
    }
    modality_map(places, points.inputs, points.labels, output, numbers["same_phone"], numbers["chance"])
    write_text(Path(output).with_suffix(".json"), json.dumps(numbers, indent=1) + "\n")
    return numbers


def collect(
    manifest: str | Path,
    model: str | Path,
    layer: int | None = None,
    inputs: Sequence[str] | None = None,
    split: str | None = "test",
    limit: int = 30,
    seed: int = 0,
) -> Points:
    """Run the encoder; see `visualize` for arguments and errors."""
    encoder, form = systems.load_encoder(model)
    systems.for_use(encoder)
    dataset = _dataset(manifest, form, split)
    rows = sorted(range(len(dataset)), key=lambda i: seed_for(seed, "clips", dataset.manifest[i].id))[:limit]
    phones = _phone_table(Path(model))
    kinds = _kinds(inputs, dataset, rows, phones)
    found: list[tuple[np.ndarray, str, str, str]] = []
    with bar("encoding", len(rows) * len(kinds)) as progress:
        for start in range(0, len(rows), BATCH_ROWS):
            part = rows[start : start + BATCH_ROWS]
            whole = collate([dataset.item(i) for i in part], dataset.source.task)
            for kind in kinds:
                batch = _text(dataset, part, phones) if kind == "text" else whole.only(kind)
                for index, features in zip(part, _encode(encoder, batch, layer), strict=True):
                    row = dataset.manifest[index]
                    found += [(vector, kind, label, row.id) for vector, label in _pieces(features, row)]
                progress.advance(len(part), kind)
    if len(found) < 10:
        raise ValueError(f"{manifest}: only {len(found)} points to draw; take more clips (limit) or longer ones.")
    vectors, names, labels, clips = zip(*found, strict=True)
    return Points(np.stack(vectors).astype(np.float32), names, labels, clips)


def layout(features: np.ndarray, seed: int = 0) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton 2008) with cosine distances: (points, dim) -> (points, 2)."""
    with needs("train", "scikit-learn", "laying out points by t-SNE"):
        from sklearn.manifold import TSNE
    perplexity = min(30.0, (len(features) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, metric="cosine", init="random", learning_rate="auto", random_state=seed)
    places: np.ndarray = tsne.fit_transform(features)
    return places


def same_phone(points: Points) -> dict[str, float]:
    """For each pair of inputs, ``from>to``: share of phones whose nearest neighbour (cosine) among the other clips' phones of the other
    input is the same phone. Pairs without labelled phones are left out."""
    shares = {}
    features = points.features / np.maximum(np.linalg.norm(points.features, axis=1, keepdims=True), 1e-9)
    inputs, labels, clips = (np.array(part) for part in (points.inputs, points.labels, points.clips))
    for one in dict.fromkeys(points.inputs):
        for other in dict.fromkeys(points.inputs):
            here, there = np.flatnonzero((inputs == one) & (labels != "")), np.flatnonzero((inputs == other) & (labels != ""))
            if one == other or not len(here) or not len(there):
                continue
            close = features[here] @ features[there].T
            close[clips[here][:, None] == clips[there][None]] = -2.0
            best = close.argmax(1)
            usable = close[np.arange(len(here)), best] > -2.0
            if usable.any():
                shares[f"{one}>{other}"] = round(float((labels[here] == labels[there][best])[usable].mean()), 4)
    return shares


def chance(points: Points) -> float:
    """How often two phones drawn at random are the same."""
    counts = Counter(label for label in points.labels if label)
    total = sum(counts.values())
    return round(sum((count / total) ** 2 for count in counts.values()), 4) if total else 0.0


def _dataset(manifest: str | Path, form: InputFormat, split: str | None) -> ClipDataset:
    source = Source(str(manifest), "audio_video", split=split, max_seconds=float("inf"), min_seconds=0.0)
    return ClipDataset(source, inputs=form, training=False)


def _phone_table(model: Path) -> Vocabulary | None:
    """Symbols of the model's text input; None for a model without one."""
    path = model / PHONES
    symbols = path.read_text(encoding="utf-8").split() if path.is_file() else []
    return Vocabulary(symbols, "tokens") if tuple(symbols[:4]) == SPECIALS else None


def _kinds(wanted: Sequence[str] | None, dataset: ClipDataset, rows: Sequence[int], phones: Vocabulary | None) -> list[str]:
    chosen = [dataset.manifest[i] for i in rows]
    has = {
        "a": all(row.audio is not None for row in chosen),
        "v": all(row.video is not None for row in chosen),
        "text": phones is not None and all(phones_of(row) for row in chosen),
    }
    has["av"] = has["a"] and has["v"]
    for kind in wanted or ():
        if kind not in INPUTS:
            raise ValueError(f"inputs: {kind!r} is unknown; choose from {', '.join(INPUTS)}.")
        if not has[kind]:
            lack = "the model's folder has no phone table" if kind == "text" and phones is None else "not all clips have what it needs"
            raise ValueError(f"inputs: {kind} cannot be looked at, since {lack}; leave it out.")
    return [kind for kind in INPUTS if (kind in wanted if wanted else has[kind])]


def phones_of(row: Utterance) -> list[tuple[str, float, float]]:
    """Phones of a row with their times in seconds; empty if there are none or they have no times."""
    try:
        return timed_phones(row)
    except ValueError:
        return []


def _text(dataset: ClipDataset, rows: Sequence[int], phones: Vocabulary | None) -> Batch:
    assert phones is not None
    made = [dataset.manifest[i] for i in rows]
    return collate([Item(row.id, text=torch.tensor(frame_level_phones(row, phones))) for row in made], "text")


@torch.inference_mode()
def _encode(encoder: nn.Module, batch: Batch, layer: int | None) -> list[np.ndarray]:
    device = next(encoder.parameters()).device
    features, lengths = encoder.encode(batch.to(device), output_layer=layer)  # type: ignore[operator]
    return [feature[:length].float().cpu().numpy() for feature, length in zip(features, lengths.tolist(), strict=True)]


def _pieces(features: np.ndarray, row: Utterance) -> list[tuple[np.ndarray, str]]:
    """(frames, dim) -> vectors with their phones: one for each phone that is no silence, or every fifth frame without a label."""
    phones = phones_of(row)
    if not phones:
        return [(vector, "") for vector in features[STEP // 2 :: STEP]]
    pieces = []
    for symbol, start, end in phones:
        first = min(int(start * RATE), len(features) - 1)
        last = max(first + 1, min(round(end * RATE), len(features)))
        if symbol not in SILENCES and start * RATE < len(features):
            pieces.append((features[first:last].mean(0), symbol))
    return pieces


def describe(numbers: Mapping[str, Any]) -> str:
    """The numbers of `visualize` as a sentence or two."""
    if not numbers["same_phone"]:
        return f"{numbers['points']} points of {numbers['clips']} clips (no timed phones in the manifest, so nothing to count)."
    shares = ", ".join(f"{pair} {100 * share:.0f} %" for pair, share in numbers["same_phone"].items())
    count = f"{numbers['points']} points of {numbers['clips']} clips"
    return f"{count}. Nearest neighbour is the same phone: {shares} (chance {100 * numbers['chance']:.0f} %)."
