"""Do speech and its units end up in the same place? The alignment table of SpeechLM and SpeechUT, and their layers laid out by t-SNE.

The papers state shares of aligned frames but not how they were counted, and the official code does not count them. Ours is defined here,
and its figures are not comparable with theirs:

- The clips are divided into two halves. Each is run through the model twice: as sound, and as the sequence of its units, one a frame.
- Of the units' states in the first half, the mean of every phone is taken, after the mean of these means is taken off: its prototype.
- In the second half, every state of a frame, of either run, is given the phone of the prototype that it lies nearest to (cosine).
- A frame is **aligned** if both of its states are given the same phone. Shares are of all frames, and of those of vowels, consonants and
  silence, by the phone that was spoken in the middle of the frame.
- Beside it stand how often either state is given the phone that was spoken, and the agreement to expect by chance: that of the two
  states' phones drawn without regard to each other.

For the picture, the first half is heard and the second half read, so that nothing in it is paired; points are means over phones.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from avtlm import systems
from avtlm.data.batching import Batch
from avtlm.data.dataset import Source
from avtlm.data.inputs import InputFormat
from avtlm.data.seeds import seed_for
from avtlm.data.spoken_clips import SpokenDataset
from avtlm.evaluation.plots import layer_maps
from avtlm.evaluation.representations import Points, layout, phones_of
from avtlm.files import write_text
from avtlm.training.progress import bar
from avtlm.units.labels import UnitLabels, read_labels
from avtlm.units.phonemes import phone_class

CLASSES = ("total", "vowel", "consonant", "silence")
SPEECH, UNITS = "speech", "units"


class HearsAndReads(Protocol):
    """A system whose second encoder goes on from speech, or reads units (SpeechLM, SpeechUT)."""

    config: Any
    encoder: Any
    unit_encoder: Any
    unit_embedding: Any

    def hidden_states(self, batch: Batch) -> tuple[list[Tensor], Tensor]: ...
    def embed_units(self, units: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Frames:
    """What a model says of the frames of one clip.

    Attributes:
        phones: spoken in the middle of each frame; empty where there is none.
        speech, units: by layer, (frames, dim) float32.
    """

    id: str
    phones: tuple[str, ...]
    speech: Mapping[int, np.ndarray]
    units: Mapping[int, np.ndarray]


def unit_alignment(
    manifest: str | Path,
    units: str | Path,
    model: str | Path,
    output: str | Path | None = None,
    layers: Sequence[int] | None = None,
    split: str | None = "test",
    limit: int = 100,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the alignment layer by layer; draw the layers (PNG) and write the numbers beside them (JSON).

    Args:
        manifest: clips with timed phones.
        units: their labels, of the kind that the model was pre-trained with.
        model: folder of a pre-trained SpeechLM or SpeechUT, with its units.
        output: of the figure; None draws none.
        layers: counted from 1 through both encoders; from the first encoder's last one on, where units come in. Default: all of those.
        limit: clips, drawn with ``seed``.

    Returns:
        ``layers``: by layer the table (see `alignment`); ``clips``, ``frames``.

    Raises:
        ManifestError, CheckpointError, FileNotFoundError: something cannot be read.
        ValueError: a model without units; a layer that has none; clips without phones or labels; too few clips.
    """
    bridge, form = _open(model)
    first = int(bridge.config.encoder.layers)
    last = first + int(bridge.config.unit_encoder.layers)
    chosen = list(range(first, last + 1)) if layers is None else sorted(set(layers))
    wrong = [layer for layer in chosen if not first <= layer <= last]
    if wrong or not chosen:
        raise ValueError(f"layers: {wrong[0] if wrong else 'none'}; units are in the layers {first} to {last} of this model.")
    clips = list(_clips(bridge, form, manifest, read_labels(units), chosen, split, limit, seed))
    if len(clips) < 4:
        raise ValueError(f"{manifest}: {len(clips)} clips with timed phones in split {split or 'any'}; give at least 4.")
    half = len(clips) // 2
    tables = {str(layer): alignment(clips[:half], clips[half:], layer) for layer in chosen}
    measured = sum(len(clip.phones) for clip in clips[half:])
    numbers = {"model": str(model), "manifest": str(manifest), "clips": len(clips), "frames": measured, "layers": tables}
    if output is not None:
        maps = {layer: unpaired_points(clips[:half], clips[half:], layer) for layer in chosen}
        laid = {layer: (layout(points.features, seed), points.inputs, points.labels) for layer, points in maps.items()}
        layer_maps(laid, output)
        write_text(Path(output).with_suffix(".json"), json.dumps(numbers, indent=1) + "\n")
    return numbers


def alignment(fitted: Sequence[Frames], measured: Sequence[Frames], layer: int) -> dict[str, dict[str, float]]:
    """The table of one layer: for ``total``, ``vowel``, ``consonant`` and ``silence``, the shares ``aligned``, ``speech``, ``units`` and
    ``chance``, and the number of ``frames``; kinds of phones without frames are left out. See the top of this file.

    Raises:
        ValueError: no frame has a phone.
    """
    names, prototypes, centre = _prototypes(fitted, layer)
    said = {
        side: np.concatenate([_nearest(getattr(clip, side)[layer] - centre, prototypes) for clip in measured]) for side in (SPEECH, UNITS)
    }
    spoken = np.array([phone for clip in measured for phone in clip.phones])
    index = {name: number for number, name in enumerate(names)}
    truth = np.array([index.get(phone, -1) for phone in spoken.tolist()])
    kinds = np.array([phone_class(phone) for phone in spoken.tolist()])
    table: dict[str, dict[str, float]] = {}
    for kind in CLASSES:
        here = np.ones(len(kinds), dtype=bool) if kind == "total" else kinds == kind
        if not here.any():
            continue
        one, other, true = said[SPEECH][here], said[UNITS][here], truth[here]
        shares = [np.bincount(side, minlength=len(names)) / len(side) for side in (one, other)]
        table[kind] = {
            "frames": int(here.sum()),
            "aligned": float((one == other).mean()),
            "speech": float((one == true).mean()),
            "units": float((other == true).mean()),
            "chance": float(shares[0] @ shares[1]),
        }
    return table


def _prototypes(clips: Sequence[Frames], layer: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Phones, the direction of each (phones, dim), and what is taken off states first (dim,)."""
    states = np.concatenate([clip.units[layer] for clip in clips])
    phones = np.array([phone for clip in clips for phone in clip.phones])
    names = sorted(set(phones.tolist()))
    if not names:
        raise ValueError("no frame of the first half of the clips has a phone; give more clips.")
    means = np.stack([states[phones == name].mean(0) for name in names])
    centre = means.mean(0)
    return names, _directions(means - centre), centre


def _nearest(states: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    nearest: np.ndarray = (_directions(states) @ prototypes.T).argmax(1)
    return nearest


def _directions(vectors: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return scaled


def unpaired_points(heard: Sequence[Frames], read: Sequence[Frames], layer: int) -> Points:
    """Means over the phones of clips that are heard, and of others that are read; silences are left out."""
    found: list[tuple[np.ndarray, str, str, str]] = []
    for side, clips in ((SPEECH, heard), (UNITS, read)):
        for clip in clips:
            states, start = getattr(clip, side)[layer], 0
            for place in range(1, len(clip.phones) + 1):
                if place == len(clip.phones) or clip.phones[place] != clip.phones[start]:
                    if phone_class(clip.phones[start]) != "silence":
                        found.append((states[start:place].mean(0), side, clip.phones[start], clip.id))
                    start = place
    if len(found) < 10:
        raise ValueError(f"only {len(found)} phones to draw; take more clips (limit) or longer ones.")
    vectors, sides, labels, names = zip(*found, strict=True)
    return Points(np.stack(vectors).astype(np.float32), sides, labels, names)


# Running the model ---------------------------------------------------------------------------------------------------------------------


def _open(model: str | Path) -> tuple[HearsAndReads, InputFormat]:
    encoder, form = systems.load_encoder(model)
    if getattr(encoder, "unit_encoder", None) is None or getattr(encoder, "unit_embedding", None) is None:
        raise ValueError(f"{model}: this model reads no units; give the folder of a pre-trained SpeechLM or SpeechUT.")
    systems.for_use(encoder)
    return cast(HearsAndReads, encoder), form


def _clips(
    bridge: HearsAndReads,
    form: InputFormat,
    manifest: str | Path,
    labels: UnitLabels,
    layers: Sequence[int],
    split: str | None,
    limit: int,
    seed: int,
) -> Iterator[Frames]:
    """Clips that have timed phones, in an order that the seed fixes."""
    source = Source(str(manifest), "speech", split=split, units=str(labels.path), max_seconds=float("inf"), min_seconds=0.05, cache=False)
    dataset = SpokenDataset(source, inputs=form, training=False)
    rows = [index for index in range(len(dataset)) if phones_of(dataset.manifest[index])]
    rows = sorted(rows, key=lambda index: seed_for(seed, "clips", dataset.manifest[index].id))[:limit]
    with bar("hearing and reading", len(rows)) as progress:
        for index in rows:
            yield _frames(bridge, form, dataset, labels, index, layers)
            progress.advance()


@torch.inference_mode()
def _frames(
    bridge: HearsAndReads, form: InputFormat, dataset: SpokenDataset, labels: UnitLabels, index: int, layers: Sequence[int]
) -> Frames:
    row, device = dataset.manifest[index], bridge.unit_embedding.weight.device
    batch = dataset.batch([index]).to(device)
    states, lengths = bridge.hidden_states(batch)
    first, raw = int(bridge.config.encoder.layers), labels[row.id]
    count = int(lengths[0])
    places = (np.arange(count) * form.label_rate / form.frame_rate).astype(int)
    count = int((places < len(raw)).sum())  # labels may end a frame before the sound
    ids = torch.from_numpy(raw[places[:count]].astype(np.int64)).to(device)[None] + form.first_unit
    entering = bridge.embed_units(ids)
    read = bridge.unit_encoder.hidden_states(entering, torch.tensor([count], device=device))
    heard = {layer: states[layer - 1] for layer in layers}
    if first in heard and bridge.config.encoder.norm_first:
        heard[first] = bridge.encoder.norm(heard[first])  # as it enters the second encoder
    said = {layer: entering if layer == first else read[layer - first] for layer in layers}
    phones, frame = [], 0
    timed = phones_of(row)
    for place in range(count):
        middle = (place + 0.5) / form.frame_rate
        while frame < len(timed) - 1 and middle >= timed[frame][2]:
            frame += 1
        phones.append(timed[frame][0])
    return Frames(
        row.id,
        tuple(phones),
        {layer: _array(heard[layer], count) for layer in layers},
        {layer: _array(said[layer], count) for layer in layers},
    )


def _array(states: Tensor, count: int) -> np.ndarray:
    """(1, frames, dim) -> (count, dim) float32."""
    found: np.ndarray = states[0, :count].float().cpu().numpy()
    return found


def table(numbers: Mapping[str, Any]) -> str:
    """The figures of `unit_alignment` as text."""
    from rich.table import Table

    from avtlm.evaluation.tables import as_text

    shown = Table()
    for heading in ("layer", *(f"{kind}, %" for kind in CLASSES), "by chance, %", "phone from speech, %", "from units, %"):
        shown.add_column(heading, justify="right")
    for layer, rows in numbers["layers"].items():
        shares = [f"{100 * rows[kind]['aligned']:.1f}" if kind in rows else "-" for kind in CLASSES]
        shown.add_row(layer, *shares, *(f"{100 * rows['total'][name]:.1f}" for name in ("chance", "speech", "units")))
    counted = f"{numbers['frames']} frames; {numbers['clips']} clips, half of which teach the phones"
    title = f"Frames whose speech and units are given the same phone ({counted})"
    return f"{title}\n{as_text(shown, 120)}"
