"""The word error rate of a model on a manifest: by modality, clean, in noise of given kinds at given signal-to-noise ratios, and with lips
that are hidden, blurred, late or missing by given strengths.

The noise behind a clip, and what is done to its picture, depend on the seed and its id alone: the noise is the same at every ratio and for
every modality, so that columns and rows of the table can be compared.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avtlm.data.batching import Batch
from avtlm.data.dataset import ClipDataset, Item, Source, collate
from avtlm.data.noise import mix_at_snr
from avtlm.decoding.settings import DecodingConfig
from avtlm.evaluation.cells import Cells, fingerprint
from avtlm.evaluation.corruptions import KINDS, check_strength, corrupt, in_order
from avtlm.evaluation.noises import Noise, make_noise
from avtlm.evaluation.robustness import corruption_table, mean_of_noises, means_over_ratios, rate_table
from avtlm.evaluation.tables import as_text
from avtlm.evaluation.wer import ErrorRate, corpus_cer, corpus_wer
from avtlm.text.normalize import normalize
from avtlm.training.progress import bar
from avtlm.transcribe import changed_decoding, load_recognizer
from avtlm.transcriber import Transcriber

BATCH_FRAMES = 3000  # padded frames at 25 Hz


@dataclass(frozen=True)
class Cell:
    """What is done to the clips: kind of noise and SNR in dB, kind of corruption of the picture and its strength; nothing by default."""

    noise: str | None = None
    snr: float | None = None
    visual: str | None = None
    strength: float | None = None

    def seen_by(self, modality: str) -> "Cell":
        """What of it reaches a model: noise does not change what is seen, nor hidden lips what is heard."""
        heard = self if "a" in modality else replace(self, noise=None, snr=None)
        return heard if "v" in modality else replace(heard, visual=None, strength=None)

    def __str__(self) -> str:
        sound = [] if self.snr is None else [f"{self.noise}, {self.snr:g} dB"]
        picture = [] if self.visual is None else [f"{self.visual} {self.strength:g} {KINDS[self.visual].unit}"]
        return ", ".join(sound + picture) or "clean"


CLEAN = Cell()


@dataclass(frozen=True)
class Condition:
    """One cell of the table. ``snr`` is in dB, None for clean speech as is ``noise``; ``texts``: what was recognised, by utterance id.

    Of the tables of corruptions, ``visual`` is the kind and ``strength`` how far it goes, the neutral strength among them; ``noise`` and
    ``snr`` then say what was heard.
    """

    modality: str
    snr: float | None
    rate: ErrorRate
    texts: dict[str, str] = field(repr=False)
    noise: str | None = None
    visual: str | None = None
    strength: float | None = None

    @property
    def name(self) -> str:
        """``clean``, or the ratio or strength as text such as ``-5``."""
        if self.visual is not None:
            return f"{self.strength:g}"
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
    visual: tuple[str, ...] = ()
    visual_sound: str = "clean"

    @property
    def wer(self) -> dict[str, dict[str, float]]:
        """Error rate of words (or characters) in percent: modality -> ``clean`` or SNR -> rate, the mean of several kinds of noise."""
        if len(self.noises) < 2:
            return self._by_cell(_percent)
        return mean_of_noises({noise: self._by_cell(_percent, noise) for noise in self.noises})

    def to_json(self) -> dict[str, Any]:
        """Plain values: rates and 95 % intervals in percent, and what was measured on.

        With several kinds of noise, ``by_noise`` has rates and intervals of each and ``mean`` the means over the ratios. With corrupted
        pictures, ``visual`` has unit, rates and intervals of each kind by strength, and ``visual_sound`` what was heard meanwhile.
        """
        first = self.conditions[0].rate
        noise: Any = "none" if not self.noises else self.noises[0] if len(self.noises) == 1 else list(self.noises)
        origin = {"model": self.model, "manifest": self.manifest, "split": self.split, "noise": noise, "seed": self.seed}
        origin |= {"noise_dir": self.noise_dir} if self.noise_dir is not None else {}
        origin |= {"decoding": list(self.decoding)} if self.decoding else {}
        origin |= {"unit": "characters"} if self.characters else {}
        found: dict[str, Any] = {"utterances": first.utterances, "words": first.words, "wer": self.wer}
        if len(self.noises) < 2:
            found["interval_95"] = self._by_cell(_interval)
        else:
            cells = {
                noise: {"wer": self._by_cell(_percent, noise), "interval_95": self._by_cell(_interval, noise)} for noise in self.noises
            }
            found |= {"by_noise": cells, "mean": means_over_ratios(cells)}
        if self.visual:
            found["visual_sound"] = self.visual_sound
            found["visual"] = {
                kind: {
                    "unit": KINDS[kind].unit,
                    "wer": self._by_cell(_percent, visual=kind),
                    "interval_95": self._by_cell(_interval, visual=kind),
                }
                for kind in self.visual
            }
        return origin | found

    def table(self) -> str:
        """The tables as text: a row for every modality (and kind of noise, if there are several), a column for every condition; behind it
        one for every kind of corruption."""
        names = list(dict.fromkeys(condition.name for condition in self.conditions if condition.visual is None))
        report = self.to_json()
        tables = [as_text(rate_table(report, names), 50 + 20 * len(names))]
        for kind, part in report.get("visual", {}).items():
            columns = next(iter(part["wer"].values()))
            tables.append(as_text(corruption_table(report, kind), 50 + 20 * len(columns)))
        return "\n\n".join(tables)

    def _by_cell(self, show: Callable[[ErrorRate], Any], noise: str | None = None, visual: str | None = None) -> dict[str, dict[str, Any]]:
        """Rows by modality: of clean speech and one kind of noise, or of all conditions of the sound, or of one kind of corruption."""
        rows: dict[str, dict[str, Any]] = {}
        for condition in self.conditions:
            if condition.visual == visual and (visual is not None or noise is None or condition.noise in (None, noise)):
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
    visual: Mapping[str, Sequence[float]] | None = None,
    visual_snr: float | None = None,
    cells: str | Path | None = None,
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
        seed: of the noise and of what is done to the picture.
        noise_dir: lists of recorded noise, ``<kind>/<split>.tsv``.
        decoding: changes to the model's decoding settings: ``("method=ctc_beam", "beam=20")``.
        characters: count characters without spaces in place of words, as tables of Mandarin do.
        visual: strengths by kind of corruption of the picture; see avtlm.evaluation.corruptions.
        visual_snr: what is heard meanwhile: the first kind of noise at this ratio in dB; None leaves the sound clean.
        cells: keep what was recognised under every finished condition in this folder, and take from there what was finished before.

    Raises:
        ManifestError, MediaError, CheckpointError: something cannot be read.
        ValueError: no rows, rows without transcripts, a modality that the rows have not got, noise or corruptions that cannot be made, or a
            damaged file among the ``cells``.
    """
    recognizer = load_recognizer(model)
    searched = replace(changed_decoding(recognizer, decoding), words=False)  # their times cost, and no rate counts them
    inputs = recognizer.inputs
    if inputs.video_size is None and any("v" in modality for modality in modalities):
        raise ValueError(f"modalities: {', '.join(modalities)} were asked for, but this model hears only; choose a.")
    if visual and not any("v" in modality for modality in modalities):
        raise ValueError(f"visual: {', '.join(visual)} change the picture, but nothing is to be seen; add the modality v or av.")
    if visual_snr is not None and not visual:
        raise ValueError("visual_snr: is heard while the picture is corrupted; name kinds of corruption, or leave it out.")
    for kind, strengths in (visual or {}).items():
        for strength in strengths:
            check_strength(kind, strength)
    source = Source(str(manifest), "recognition", split=split, max_seconds=float("inf"), min_seconds=0.0)
    dataset = ClipDataset(source, inputs=inputs, vocabulary=recognizer.vocabulary, training=False)
    rows = list(range(len(dataset) if limit is None else min(limit, len(dataset))))
    references = {dataset.manifest[i].id: normalize(_reference(dataset, i)) for i in rows}
    kinds = tuple(dict.fromkeys([noise] if isinstance(noise, str) else noise)) if snrs or visual_snr is not None else ()
    noises = {kind: make_noise(kind, dataset, rows, seed, noise_dir) for kind in (kinds if snrs else kinds[:1])}
    if visual_snr is not None and not kinds:
        raise ValueError("visual_snr: there is no kind of noise to be heard at this ratio; name one (noise).")
    heard = CLEAN if visual_snr is None else Cell(kinds[0], visual_snr)
    columns = [CLEAN, *(Cell(kind, snr) for kind in kinds for snr in snrs)]
    tables: list[tuple[str | None, float | None, Cell]] = [(None, None, cell) for cell in columns]
    for kind, strengths in (visual or {}).items():
        for strength in in_order(kind, strengths):
            changed = heard if strength == KINDS[kind].neutral else replace(heard, visual=kind, strength=strength)
            tables.append((kind, strength, changed))

    kept = None
    if cells is not None:
        asked = {
            "model": str(model) if not isinstance(model, Transcriber) else "loaded model",
            "weights": fingerprint(recognizer, (searched, recognizer.vocabulary.symbols)),
            "manifest": str(manifest),
            "split": split,
            "seed": seed,
            "noise_dir": None if noise_dir is None else str(noise_dir),
            "characters": characters,
        }
        kept = Cells(cells, asked, references)
    texts = _recognise(recognizer, searched, dataset, rows, modalities, [cell for *_, cell in tables], noises, seed, kept)

    conditions = []
    rates: dict[tuple[str, Cell], ErrorRate] = {}
    for modality in modalities:
        for corrupted, degree, cell in tables:
            place = modality, cell.seen_by(modality)
            if place not in rates:
                pairs = [(reference, normalize(texts[place][name])) for name, reference in references.items()]
                rates[place] = corpus_cer(pairs, spaces=False) if characters else corpus_wer(pairs)
            conditions.append(Condition(modality, cell.snr, rates[place], texts[place], cell.noise, corrupted, degree))
    name = "loaded model" if isinstance(model, Transcriber) else str(model)
    lists = None if noise_dir is None else str(noise_dir)
    shown = kinds if snrs else ()
    return Evaluation(
        name, str(manifest), split, shown, seed, tuple(conditions), lists, tuple(decoding), characters, tuple(visual or ()), str(heard)
    )


def _recognise(
    recognizer: Transcriber,
    searched: DecodingConfig,
    dataset: ClipDataset,
    rows: Sequence[int],
    modalities: Sequence[str],
    cells: Sequence[Cell],
    noises: Mapping[str, Noise],
    seed: int,
    kept: Cells | None,
) -> dict[tuple[str, Cell], dict[str, str]]:
    """What is recognised, by utterance id, for every modality and what it is given of every cell. Clips are read once for all modalities
    that a cell reaches whole; what is kept is not done again."""
    texts: dict[tuple[str, Cell], dict[str, str]] = {}
    jobs: dict[Cell, list[str]] = {}
    for cell in cells:
        for modality in modalities:
            place = modality, cell.seen_by(modality)
            if place in texts or modality in jobs.get(place[1], ()):
                continue
            found = None if kept is None else kept.find(_asked(*place))
            if found is None:
                jobs.setdefault(place[1], []).append(modality)
            else:
                texts[place] = found
    device = next(recognizer.parameters()).device
    plan = _plan(dataset, rows)
    was_training = recognizer.training
    recognizer.eval()
    with bar("evaluating", len(rows) * len(jobs)) as progress:
        for cell, seen in jobs.items():
            for batch_rows in plan:
                items = [_item(dataset, i, "".join(seen), cell, noises, seed) for i in batch_rows]
                batch: Batch = collate(items, "recognition").to(device)
                for modality in seen:
                    results = recognizer.transcribe_batch(batch.only(modality), searched)
                    said = {item.id: result.text for item, result in zip(items, results, strict=True)}
                    texts.setdefault((modality, cell), {}).update(said)
                progress.advance(len(batch_rows), str(cell))
            if kept is not None:
                for modality in seen:
                    kept.keep(_asked(modality, cell), texts[modality, cell])
    recognizer.train(was_training)
    return texts


def _asked(modality: str, cell: Cell) -> dict[str, Any]:
    return {"modality": modality, "noise": cell.noise, "snr": cell.snr, "visual": cell.visual, "strength": cell.strength}


def transcribe_rows(
    recognizer: Transcriber, dataset: ClipDataset, rows: Sequence[int], modality: str, decoding: DecodingConfig
) -> dict[str, str]:
    """What a model writes of clean clips, by utterance id."""
    device = next(recognizer.parameters()).device
    texts: dict[str, str] = {}
    with bar("transcribing", len(rows)) as progress:
        for batch_rows in _plan(dataset, rows):
            items = [_item(dataset, index, modality, CLEAN, {}, 0) for index in batch_rows]
            results = recognizer.transcribe_batch(collate(items, "recognition").to(device), decoding)
            texts |= {item.id: result.text for item, result in zip(items, results, strict=True)}
            progress.advance(len(batch_rows))
    return texts


def _reference(dataset: ClipDataset, index: int) -> str:
    row = dataset.manifest[index]
    if row.transcript is None:
        raise ValueError(f"{dataset.source.manifest}: utterance {row.id!r} has no transcript to compare with.")
    return row.transcript


def _item(dataset: ClipDataset, index: int, needed: str, cell: Cell, noises: Mapping[str, Noise], seed: int) -> Item:
    """Unaugmented features; only what is needed is read, and every row must have it."""
    row = dataset.manifest[index]
    for letter, part, path in (("a", "audio", row.audio), ("v", "video", row.video)):
        if letter in needed and path is None:
            raise ValueError(
                f"{dataset.source.manifest}: utterance {row.id!r} has no {part}; choose another modality or leave the row out."
            )
    video = None
    if "v" in needed:
        crops = dataset.crops(index)
        if cell.visual is not None and cell.strength is not None:
            crops = corrupt(crops, cell.visual, cell.strength, seed, row.id)
        video = dataset.inputs.video(crops)
    audio = None
    if "a" in needed:
        wave = dataset.wave(index)
        if cell.noise is not None and cell.snr is not None:
            wave = mix_at_snr(wave, noises[cell.noise](index, len(wave)), cell.snr)
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
