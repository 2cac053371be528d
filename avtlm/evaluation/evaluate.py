"""The word error rate of a model on a manifest: by modality, clean and in noise of given kinds at given signal-to-noise ratios.

The noise behind a clip depends on the seed and its id alone, and is the same at every ratio and for every modality, so that columns and
rows of the table can be compared.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avtlm.data.batching import Batch
from avtlm.data.dataset import ClipDataset, Item, Source, collate
from avtlm.data.noise import mix_at_snr
from avtlm.decoding.settings import DecodingConfig
from avtlm.evaluation.noises import Noise, make_noise
from avtlm.evaluation.robustness import mean_of_noises, means_over_ratios, rate_table
from avtlm.evaluation.tables import as_text
from avtlm.evaluation.wer import ErrorRate, corpus_cer, corpus_wer
from avtlm.text.normalize import normalize
from avtlm.training.progress import bar
from avtlm.transcribe import changed_decoding, load_recognizer
from avtlm.transcriber import Transcriber

Cell = tuple[str | None, float | None]  # kind of noise, SNR in dB
CLEAN: Cell = (None, None)
BATCH_FRAMES = 3000  # padded frames at 25 Hz


@dataclass(frozen=True)
class Condition:
    """One cell of the table. ``snr`` is in dB, None for clean speech as is ``noise``; ``texts``: what was recognised, by utterance id."""

    modality: str
    snr: float | None
    rate: ErrorRate
    texts: dict[str, str] = field(repr=False)
    noise: str | None = None

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
    noises: tuple[str, ...]
    seed: int
    conditions: tuple[Condition, ...]
    noise_dir: str | None = None
    decoding: tuple[str, ...] = ()
    characters: bool = False

    @property
    def wer(self) -> dict[str, dict[str, float]]:
        """Error rate of words (or characters) in percent: modality -> ``clean`` or SNR -> rate, the mean of several kinds of noise."""
        if len(self.noises) < 2:
            return self._by_cell(_percent)
        return mean_of_noises({noise: self._by_cell(_percent, noise) for noise in self.noises})

    def to_json(self) -> dict[str, Any]:
        """Plain values: rates and 95 % intervals in percent, and what was measured on.

        With several kinds of noise, ``by_noise`` has rates and intervals of each and ``mean`` the means over the ratios.
        """
        first = self.conditions[0].rate
        noise: Any = "none" if not self.noises else self.noises[0] if len(self.noises) == 1 else list(self.noises)
        origin = {"model": self.model, "manifest": self.manifest, "split": self.split, "noise": noise, "seed": self.seed}
        origin |= {"noise_dir": self.noise_dir} if self.noise_dir is not None else {}
        origin |= {"decoding": list(self.decoding)} if self.decoding else {}
        origin |= {"unit": "characters"} if self.characters else {}
        counts = {"utterances": first.utterances, "words": first.words}
        if len(self.noises) < 2:
            return origin | counts | {"wer": self.wer, "interval_95": self._by_cell(_interval)}
        cells = {noise: {"wer": self._by_cell(_percent, noise), "interval_95": self._by_cell(_interval, noise)} for noise in self.noises}
        return origin | counts | {"wer": self.wer, "by_noise": cells, "mean": means_over_ratios(cells)}

    def table(self) -> str:
        """The table as text: a row for every modality (and kind of noise, if there are several), a column for every condition."""
        names = list(dict.fromkeys(condition.name for condition in self.conditions))
        return as_text(rate_table(self.to_json(), names), 50 + 20 * len(names))

    def _by_cell(self, show: Callable[[ErrorRate], Any], noise: str | None = None) -> dict[str, dict[str, Any]]:
        """Rows by modality, of clean speech and one kind of noise, or of all conditions."""
        rows: dict[str, dict[str, Any]] = {}
        for condition in self.conditions:
            if noise is None or condition.noise in (None, noise):
                rows.setdefault(condition.modality, {})[condition.name] = show(condition.rate)
        return rows


def _percent(rate: ErrorRate) -> float:
    return round(rate.percent, 2)


def _interval(rate: ErrorRate) -> list[float]:
    return [round(end, 2) for end in rate.interval]


def evaluate(
    manifest: str | Path,
    model: str | Path | Transcriber,
    modalities: Sequence[str] = ("av",),
    split: str | None = "test",
    snrs: Sequence[float] = (),
    noise: str | Sequence[str] = "babble",
    limit: int | None = None,
    seed: int = 0,
    noise_dir: str | Path | None = None,
    decoding: Sequence[str] = (),
    characters: bool = False,
) -> Evaluation:
    """Transcribe a manifest of lip crops and sound and count the wrong words. Case does not count.

    Args:
        manifest: rows with transcripts, as avtlm-lip-roi writes them.
        model: a model folder of a recogniser, or of a whole model that writes text, or one that is loaded already.
        modalities: any of ``a``, ``v``, ``av``.
        split: None takes all rows.
        snrs: noise is added to the sound at these ratios in dB, next to the clean condition.
        noise: one kind or several: ``babble`` of six clips of other speakers of the same rows, ``speech`` of one, ``white``, a sound file
            that a random part is taken from, or, with ``noise_dir``, the names of its lists; see avtlm.evaluation.noises.
        limit: only the first rows.
        seed: of the noise.
        noise_dir: lists of recorded noise, ``<kind>/<split>.tsv``.
        decoding: changes to the model's decoding settings: ``("method=ctc_beam", "beam=20")``.
        characters: count characters without spaces in place of words, as tables of Mandarin do.

    Raises:
        ManifestError, MediaError, CheckpointError: something cannot be read.
        ValueError: no rows, rows without transcripts, a modality that the rows have not got, or noise that cannot be made.
    """
    recognizer = load_recognizer(model)
    searched = replace(changed_decoding(recognizer, decoding), words=False)  # their times cost, and no rate counts them
    inputs = recognizer.inputs
    if inputs.video_size is None and any("v" in modality for modality in modalities):
        raise ValueError(f"modalities: {', '.join(modalities)} were asked for, but this model hears only; choose a.")
    source = Source(str(manifest), "recognition", split=split, max_seconds=float("inf"), min_seconds=0.0)
    dataset = ClipDataset(source, inputs=inputs, vocabulary=recognizer.vocabulary, training=False)
    rows = list(range(len(dataset) if limit is None else min(limit, len(dataset))))
    references = {dataset.manifest[i].id: normalize(_reference(dataset, i)) for i in rows}
    kinds = tuple(dict.fromkeys([noise] if isinstance(noise, str) else noise)) if snrs else ()
    noises = {kind: make_noise(kind, dataset, rows, seed, noise_dir) for kind in kinds}
    device = next(recognizer.parameters()).device
    plan = _plan(dataset, rows)

    texts: dict[tuple[str, Cell], dict[str, str]] = {}
    cells: list[Cell] = [CLEAN, *((kind, snr) for kind in kinds for snr in snrs)]
    jobs = [(cell, [m for m in modalities if cell == CLEAN or "a" in m]) for cell in cells]
    was_training = recognizer.training
    recognizer.eval()
    with bar("evaluating", len(rows) * sum(bool(seen) for _, seen in jobs)) as progress:
        for cell, seen in jobs:
            for batch_rows in plan if seen else ():
                items = [_item(dataset, i, "".join(seen), cell, noises) for i in batch_rows]
                batch: Batch = collate(items, "recognition").to(device)
                for modality in seen:
                    results = recognizer.transcribe_batch(batch.only(modality), searched)
                    found = {item.id: result.text for item, result in zip(items, results, strict=True)}
                    texts.setdefault((modality, cell), {}).update(found)
                progress.advance(len(batch_rows), "clean" if cell == CLEAN else f"{cell[0]}, {cell[1]:g} dB")
    recognizer.train(was_training)

    conditions = []
    for modality in modalities:
        for cell in cells:
            found = texts[modality, cell if "a" in modality else CLEAN]  # noise does not change what is seen
            pairs = [(reference, normalize(found[name])) for name, reference in references.items()]
            rate = corpus_cer(pairs, spaces=False) if characters else corpus_wer(pairs)
            conditions.append(Condition(modality, cell[1], rate, found, cell[0]))
    name = "loaded model" if isinstance(model, Transcriber) else str(model)
    lists = None if noise_dir is None else str(noise_dir)
    return Evaluation(name, str(manifest), split, kinds, seed, tuple(conditions), lists, tuple(decoding), characters)


def transcribe_rows(
    recognizer: Transcriber, dataset: ClipDataset, rows: Sequence[int], modality: str, decoding: DecodingConfig
) -> dict[str, str]:
    """What a model writes of clean clips, by utterance id."""
    device = next(recognizer.parameters()).device
    texts: dict[str, str] = {}
    with bar("transcribing", len(rows)) as progress:
        for batch_rows in _plan(dataset, rows):
            items = [_item(dataset, index, modality, CLEAN, {}) for index in batch_rows]
            results = recognizer.transcribe_batch(collate(items, "recognition").to(device), decoding)
            texts |= {item.id: result.text for item, result in zip(items, results, strict=True)}
            progress.advance(len(batch_rows))
    return texts


def _reference(dataset: ClipDataset, index: int) -> str:
    row = dataset.manifest[index]
    if row.transcript is None:
        raise ValueError(f"{dataset.source.manifest}: utterance {row.id!r} has no transcript to compare with.")
    return row.transcript


def _item(dataset: ClipDataset, index: int, needed: str, cell: Cell, noises: Mapping[str, Noise]) -> Item:
    """Unaugmented features; only what is needed is read, and every row must have it."""
    row = dataset.manifest[index]
    for letter, part, path in (("a", "audio", row.audio), ("v", "video", row.video)):
        if letter in needed and path is None:
            raise ValueError(
                f"{dataset.source.manifest}: utterance {row.id!r} has no {part}; choose another modality or leave the row out."
            )
    video = dataset.inputs.video(dataset.crops(index)) if "v" in needed else None
    audio = None
    if "a" in needed:
        wave = dataset.wave(index)
        kind, snr = cell
        if kind is not None and snr is not None:
            wave = mix_at_snr(wave, noises[kind](index, len(wave)), snr)
        audio = dataset.features(index, wave, row.video_frames or None)
    return Item(row.id, audio=audio, video=video)


def _plan(dataset: ClipDataset, rows: Iterable[int]) -> list[list[int]]:
    """Rows of similar length together, bounded by padded frames."""
    batches: list[list[int]] = []
    for index in sorted(rows, key=dataset.frames):
        if not batches or dataset.frames(index) * (len(batches[-1]) + 1) > BATCH_FRAMES:
            batches.append([])
        batches[-1].append(index)
    return batches
