"""Speech that a model writes, over a manifest: how far it is from recordings of the same, and what a recogniser understands of it.

A model that reads text says the transcripts, and is compared with their clips. One that reads speech says the clips in the voices of their
targets, and is compared with these (voice conversion), or with the clips themselves where they name none (enhancement).

Source: SpeechT5 (arXiv 2110.07205), sections 4.2, 4.3 and 4.5.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from avtlm.data.batching import Batch
from avtlm.data.dataset import Item, Source, collate, written
from avtlm.data.manifest import Manifest, Utterance, read_manifest
from avtlm.data.media import MediaError
from avtlm.data.sound import read_track
from avtlm.data.spoken_clips import open_source
from avtlm.evaluation.cepstra import mel_cepstra
from avtlm.evaluation.speech_quality import mel_cepstral_distortion
from avtlm.evaluation.tables import figures
from avtlm.evaluation.wer import ErrorRate, corpus_wer
from avtlm.speech_writer import Delivery, SpeechWriter, Vocoder, load_writer, open_vocoder
from avtlm.text.normalize import normalize
from avtlm.text.vocabulary import EOS
from avtlm.training.progress import bar
from avtlm.transcribe import load_recognizer, to_int16
from avtlm.transcriber import Transcriber

Reading = Literal["text", "speech"]


@dataclass(frozen=True)
class Generation:
    """What `evaluate_speech` measured, and on what.

    Attributes:
        reading: ``text`` or ``speech``.
        distortions: mel-cepstral distortion in dB, by utterance id.
        cut: utterances that did not end by themselves.
        rate: word errors of what was understood; None without a recogniser.
        texts: what was understood, by utterance id.
    """

    model: str
    manifest: str
    split: str | None
    reading: Reading
    vocoder: str
    distortions: Mapping[str, float] = field(repr=False)
    cut: int
    recognizer: str | None = None
    rate: ErrorRate | None = None
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def distortion(self) -> float:
        """Mean over the utterances, in dB."""
        return sum(self.distortions.values()) / len(self.distortions)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        origin = {"model": self.model, "manifest": self.manifest, "split": self.split, "reads": self.reading, "vocoder": self.vocoder}
        found = {"utterances": len(self.distortions), "mel_cepstral_distortion": round(self.distortion, 3), "cut": self.cut}
        if self.rate is None:
            return origin | found
        heard = {"wer": round(self.rate.percent, 2), "interval_95": [round(end, 2) for end in self.rate.interval]}
        return origin | found | {"recognizer": self.recognizer, **heard}

    def table(self) -> str:
        """The figures as text."""
        columns = {"mel-cepstral distortion, dB": f"{self.distortion:.2f}", "cut off": str(self.cut)}
        if self.rate is not None:
            columns["word error rate (95 % interval)"] = str(self.rate)
        title = f"Speech written from {self.reading}: {len(self.distortions)} utterances"
        return figures(title, columns, f"waveforms: {self.vocoder}")


def evaluate_speech(
    manifest: str | Path,
    model: str | Path | SpeechWriter,
    voices: str | Path | None = None,
    vocoder: Vocoder | None = None,
    recognizer: str | Path | Transcriber | None = None,
    reading: Reading | None = None,
    split: str | None = "test",
    limit: int | None = None,
    seed: int = 0,
) -> Generation:
    """Let a model say every row of a manifest, and compare.

    Args:
        manifest: clips, with transcripts where they are read or a recogniser is given.
        model: a model folder for generation, or one that is open already.
        voices: file of speaker embeddings by utterance or speaker, see avtlm.data.voices.
        vocoder: its model folder; None for Griffin-Lim.
        recognizer: a model that writes text, which listens to what was said.
        reading: what of a row is read; by default what the model reads, and of one that reads both, speech where rows name targets.
        split: None takes all rows.
        limit: only the first rows.
        seed: of what the decoder draws.

    Raises:
        ManifestError, MediaError, CheckpointError: something cannot be read.
        ValueError: no rows, or rows without what is needed.
    """
    writer = load_writer(model)
    settings = writer.model.config
    whole = read_manifest(manifest)
    reading = reading or _reading(tuple(settings.inputs), whole)
    if reading not in settings.inputs:
        raise ValueError(f"reading: {reading}, but {writer.name} reads {' and '.join(settings.inputs)}.")
    source = Source(
        str(manifest),
        "synthesis" if reading == "text" else "conversion",
        split=split,
        voices=None if voices is None else str(voices),
        max_seconds=float("inf"),
        min_seconds=0.0,
        cache=False,
    )
    if reading == "text" and writer.vocabulary is None:
        raise ValueError(f"{writer.name}: the folder has no vocabulary to read text with; convert its source again with --vocabulary.")
    dataset = open_source(source, inputs=writer.model.input_format, vocabulary=writer.vocabulary, training=False)
    rows = range(len(dataset) if limit is None else min(limit, len(dataset)))
    listener = None if recognizer is None else load_recognizer(recognizer)
    if listener is not None:
        silent = next((dataset.manifest[index].id for index in rows if written(dataset.manifest[index]) is None), None)
        if silent is not None:
            raise ValueError(f"{manifest}: utterance {silent!r} has no transcript to compare with what is understood.")
    opened = open_vocoder(vocoder, settings.spectrogram.bands, writer.device)
    others = {row.id: row for row in whole}
    distortions, texts, cut = {}, {}, 0
    with bar("evaluating", len(rows)) as progress:
        for index in rows:
            row = dataset.manifest[index]
            [given] = [dataset.utterance(index)]  # type: ignore[attr-defined]
            voice = None if given.voice is None else given.voice[None]
            [said] = Delivery(writer, voice, opened, seed).say([_batch(row.id, given, writer)])
            reference = _reference(whole, row, others if reading == "speech" else {})
            distortions[row.id] = mel_cepstral_distortion(mel_cepstra(said.wave), mel_cepstra(reference))
            cut += said.cut
            if listener is not None:
                texts[row.id] = _understood(listener, row.id, said.wave)
            progress.advance(1)
    rate = None
    if listener is not None:
        rate = corpus_wer([(normalize(others[name].transcript or ""), normalize(text)) for name, text in texts.items()])
    named = "Griffin-Lim" if vocoder is None else "loaded model" if isinstance(vocoder, torch.nn.Module) else str(vocoder)
    heard = None if recognizer is None else "loaded model" if isinstance(recognizer, Transcriber) else str(recognizer)
    return Generation(writer.name, str(manifest), split, reading, named, distortions, cut, heard, rate, texts)


def _reading(inputs: tuple[str, ...], manifest: Manifest) -> Reading:
    if len(inputs) == 1:
        return "text" if inputs[0] == "text" else "speech"
    return "speech" if any("target" in row.extra for row in manifest) else "text"


def _batch(name: str, given: Any, writer: SpeechWriter) -> Batch:
    """What the model reads of one row."""
    if given.wave is not None:
        return Batch((name,), "generation", audio=given.wave[None], audio_lengths=torch.tensor([len(given.wave)]))
    ids = torch.cat([given.text, given.text.new_full((int(writer.options.end_symbol),), EOS)])
    return Batch((name,), "generation", text=ids[None], text_lengths=torch.tensor([len(ids)]))


def _reference(manifest: Manifest, row: Utterance, others: Mapping[str, Utterance]) -> np.ndarray:
    """The recording that speech is compared with, float32 (samples,): of the row, or of its target."""
    target = row.extra.get("target") if others else None
    name = row.audio if target is None else others[target].audio if target in others else target
    assert name is not None, "the dataset has refused rows without a clip"
    wave, _ = read_track(manifest.path(name))
    if wave is None:
        raise MediaError(manifest.path(name), "has no audio track.")
    return wave


def _understood(listener: Transcriber, name: str, wave: np.ndarray) -> str:
    if len(wave) < listener.inputs.shortest:
        return ""
    device = next(listener.parameters()).device
    item = Item(name, audio=listener.inputs.audio(to_int16(wave)))
    [result] = listener.transcribe_batch(collate([item], "recognition").to(device), replace(listener.decoding, words=False))
    return result.text
