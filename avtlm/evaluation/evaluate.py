"""The word error rate of a model on a manifest: by modality, clean and in noise at given signal-to-noise ratios.

The noise behind a clip depends on the seed and its id alone, and is the same at every ratio and for every modality, so that columns and
rows of the table can be compared.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avtlm import systems
from avtlm.data.batching import Batch
from avtlm.data.dataset import ClipDataset, Item, Source, collate
from avtlm.data.media import read_audio
from avtlm.data.noise import BabblePool, mix_at_snr
from avtlm.data.seeds import seed_for
from avtlm.evaluation.wer import ErrorRate, corpus_wer
from avtlm.recognizer import Recognizer
from avtlm.text.normalize import normalize
from avtlm.training.progress import bar
from avtlm.transcribe import load_recognizer

BATCH_FRAMES = 3000  # padded frames at 25 Hz

Noise = Callable[[int, int], np.ndarray]  # number of the utterance, samples -> (samples,)


@dataclass(frozen=True)
class Condition:
    """One cell of the table. ``snr`` is in dB, None for clean speech; ``texts`` holds what was recognised, by utterance id."""

    modality: str
    snr: float | None
    rate: ErrorRate
    texts: dict[str, str] = field(repr=False)

    @property
    def name(self) -> str:
        """``clean``, or the ratio as text such as ``-5``."""
        return "clean" if self.snr is None else f"{self.snr:g}"


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured, and on what."""

    model: str
    manifest: str
    split: str | None
    noise: str
    seed: int
    conditions: tuple[Condition, ...]

    @property
    def wer(self) -> dict[str, dict[str, float]]:
        """Word error rate in percent: modality -> ``clean`` or SNR -> rate."""
        return self._by_cell(lambda rate: round(rate.percent, 2))

    def to_json(self) -> dict[str, Any]:
        """Plain values: rates and 95 % intervals in percent, and what was measured on."""
        first = self.conditions[0].rate
        origin = {"model": self.model, "manifest": self.manifest, "split": self.split, "noise": self.noise, "seed": self.seed}
        counts = {"utterances": first.utterances, "words": first.words}
        return origin | counts | {"wer": self.wer, "interval_95": self._by_cell(lambda rate: [round(end, 2) for end in rate.interval])}

    def table(self) -> str:
        """The table as text: a row for every modality, a column for every condition."""
        from rich.console import Console
        from rich.table import Table

        names = list(dict.fromkeys(condition.name for condition in self.conditions))
        rate = self.conditions[0].rate
        table = Table(title=f"Word error rate, % (95 % interval): {rate.utterances} utterances, {rate.words} words", title_justify="left")
        table.add_column("input")
        for name in names:
            table.add_column(name if name == "clean" else f"{name} dB", justify="right")
        for modality, row in self._by_cell(lambda rate: f"{rate.percent:.1f} ({rate.interval[0]:.1f}-{rate.interval[1]:.1f})").items():
            table.add_row({"a": "audio", "v": "video", "av": "audio-visual"}[modality], *(row[name] for name in names))
        console = Console(file=io.StringIO(), width=30 + 20 * len(names))
        console.print(table)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue().rstrip()

    def _by_cell(self, show: Callable[[ErrorRate], Any]) -> dict[str, dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {}
        for condition in self.conditions:
            rows.setdefault(condition.modality, {})[condition.name] = show(condition.rate)
        return rows


def evaluate(
    manifest: str | Path,
    model: str | Path | Recognizer,
    modalities: Sequence[str] = ("av",),
    split: str | None = "test",
    snrs: Sequence[float] = (),
    noise: str = "babble",
    limit: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Transcribe a manifest of lip crops and sound and count the wrong words. Case does not count.

    Args:
        manifest: rows with transcripts, as avtlm-lip-roi writes them.
        model: a model folder of a recogniser, or one that is loaded already.
        modalities: any of ``a``, ``v``, ``av``.
        split: None takes all rows.
        snrs: noise is added to the sound at these ratios in dB, next to the clean condition.
        noise: ``babble`` of six clips of other speakers of the same rows, ``white``, or a sound file that a random part is taken from.
        limit: only the first rows.
        seed: of the noise.

    Raises:
        ManifestError, MediaError, CheckpointError: something cannot be read.
        ValueError: no rows, rows without transcripts, a modality that the rows have not got, or noise that cannot be made.
    """
    recognizer = load_recognizer(model)
    inputs = systems.input_format(recognizer.encoder)
    if inputs.video_size is None and any("v" in modality for modality in modalities):
        raise ValueError(f"modalities: {', '.join(modalities)} were asked for, but this model hears only; choose a.")
    source = Source(str(manifest), "recognition", split=split, max_seconds=float("inf"), min_seconds=0.0)
    dataset = ClipDataset(source, inputs=inputs, vocabulary=recognizer.vocabulary, training=False)
    rows = list(range(len(dataset) if limit is None else min(limit, len(dataset))))
    references = {dataset.manifest[i].id: normalize(_reference(dataset, i)) for i in rows}
    make_noise = _noise(noise, dataset, rows, seed) if snrs else None
    device = next(recognizer.parameters()).device
    plan = _plan(dataset, rows)

    texts: dict[tuple[str, float | None], dict[str, str]] = {}
    jobs = [(snr, [m for m in modalities if snr is None or "a" in m]) for snr in (None, *snrs)]
    was_training = recognizer.training
    recognizer.eval()
    with bar("evaluating", len(rows) * sum(bool(seen) for _, seen in jobs)) as progress:
        for snr, seen in jobs:
            for batch_rows in plan if seen else ():
                items = [_item(dataset, i, "".join(seen), snr, make_noise) for i in batch_rows]
                batch: Batch = collate(items, "recognition").to(device)
                for modality in seen:
                    results = recognizer.transcribe_batch(batch.only(modality))
                    found = {item.id: result.text for item, result in zip(items, results, strict=True)}
                    texts.setdefault((modality, snr), {}).update(found)
                progress.advance(len(batch_rows), "clean" if snr is None else f"{snr:g} dB")
    recognizer.train(was_training)

    conditions = []
    for modality in modalities:
        for snr in (None, *snrs):
            found = texts[modality, snr if "a" in modality else None]  # noise does not change what is seen
            rate = corpus_wer([(reference, normalize(found[name])) for name, reference in references.items()])
            conditions.append(Condition(modality, snr, rate, found))
    name = "loaded model" if isinstance(model, Recognizer) else str(model)
    return Evaluation(name, str(manifest), split, noise if snrs else "none", seed, tuple(conditions))


def _reference(dataset: ClipDataset, index: int) -> str:
    row = dataset.manifest[index]
    if row.transcript is None:
        raise ValueError(f"{dataset.source.manifest}: utterance {row.id!r} has no transcript to compare with.")
    return row.transcript


def _item(dataset: ClipDataset, index: int, needed: str, snr: float | None, make_noise: Noise | None) -> Item:
    """Unaugmented features; only what is needed is read, and every row must have it."""
    row = dataset.manifest[index]
    for letter, kind, path in (("a", "audio", row.audio), ("v", "video", row.video)):
        if letter in needed and path is None:
            raise ValueError(
                f"{dataset.source.manifest}: utterance {row.id!r} has no {kind}; choose another modality or leave the row out."
            )
    video = dataset.inputs.video(dataset.crops(index)) if "v" in needed else None
    audio = None
    if "a" in needed:
        wave = dataset.wave(index)
        if snr is not None and make_noise is not None:
            wave = mix_at_snr(wave, make_noise(index, len(wave)), snr)
        audio = dataset.inputs.audio(wave, row.video_frames or None)
    return Item(row.id, audio=audio, video=video)


def _noise(kind: str, dataset: ClipDataset, rows: Sequence[int], seed: int) -> Noise:
    manifest = dataset.manifest
    if kind == "babble":
        heard = [i for i in rows if manifest[i].audio is not None]
        speakers = [manifest[i].speaker or manifest[i].id for i in heard]
        pool = BabblePool([dataset.wave(i) for i in heard], speakers, seed=seed)
        return lambda index, samples: pool.noise(manifest[index].id, manifest[index].speaker or manifest[index].id, samples)
    if kind == "white":
        return lambda index, samples: np.random.default_rng(seed_for(seed, "white", manifest[index].id)).standard_normal(samples)
    sound = read_audio(kind)

    def part(index: int, samples: int) -> np.ndarray:
        start = int(np.random.default_rng(seed_for(seed, "part", manifest[index].id)).integers(len(sound)))
        return np.roll(sound, -start)

    return part


def _plan(dataset: ClipDataset, rows: Iterable[int]) -> list[list[int]]:
    """Rows of similar length together, bounded by padded frames."""
    batches: list[list[int]] = []
    for index in sorted(rows, key=dataset.frames):
        if not batches or dataset.frames(index) * (len(batches[-1]) + 1) > BATCH_FRAMES:
            batches.append([])
        batches[-1].append(index)
    return batches
