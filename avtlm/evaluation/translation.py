"""BLEU of a model that writes in another language than it hears, over a manifest (SpeechT5, section 4.4: MuST-C)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avtlm.data.dataset import Source, written
from avtlm.data.spoken_clips import open_source
from avtlm.evaluation.bleu import TranslationScore, corpus_bleu
from avtlm.evaluation.evaluate import transcribe_rows
from avtlm.evaluation.tables import figures
from avtlm.transcribe import changed_decoding, load_recognizer
from avtlm.transcriber import Transcriber

COLUMN = "translation"


@dataclass(frozen=True)
class Translation:
    """What `evaluate_translation` measured, and on what.

    Attributes:
        column: of the manifest that holds the references.
        texts: translations by utterance id.
    """

    model: str
    manifest: str
    split: str | None
    column: str
    score: TranslationScore
    texts: Mapping[str, str] = field(repr=False)
    decoding: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        score = self.score
        origin: dict[str, Any] = {"model": self.model, "manifest": self.manifest, "split": self.split, "references": self.column}
        origin |= {"decoding": list(self.decoding)} if self.decoding else {}
        figures = {"bleu": round(score.bleu, 2), "chrf": round(score.chrf, 2), "signature": score.signature}
        lengths = {"hypothesis_words": score.hypothesis_words, "reference_words": score.reference_words}
        return {**origin, "utterances": len(self.texts), **lengths, **figures}

    def table(self) -> str:
        """The figures as text."""
        score = self.score
        title = f"Translation: {len(self.texts)} utterances, {score.reference_words} words in {self.column}"
        columns = {"BLEU": f"{score.bleu:.1f}", "chrF2": f"{score.chrf:.1f}", "words written": str(score.hypothesis_words)}
        return figures(title, columns, score.signature)


def evaluate_translation(
    manifest: str | Path,
    model: str | Path | Transcriber,
    column: str = COLUMN,
    split: str | None = "test",
    limit: int | None = None,
    decoding: Sequence[str] = (),
    tokenize: str = "13a",
) -> Translation:
    """Let a model write down every clip, and score that as a translation. Case counts, as in published tables.

    Args:
        manifest: clips with references.
        model: a model folder for transcription or recognition that was trained to translate, or one that is loaded already.
        column: of the manifest: ``transcript``, or a key of ``extra``.
        split: None takes all rows.
        limit: only the first rows.
        decoding: changes to the model's decoding settings: ``("beam=10",)``.
        tokenize: see avtlm.evaluation.bleu.corpus_bleu.

    Raises:
        ManifestError, MediaError, CheckpointError: something cannot be read.
        MissingExtra: sacreBLEU is not installed.
        ValueError: no rows, or rows without references.
    """
    recognizer = load_recognizer(model)
    searched = replace(changed_decoding(recognizer, decoding), words=False)
    source = Source(str(manifest), "recognition", split=split, max_seconds=float("inf"), min_seconds=0.0, written=column)
    dataset = open_source(source, inputs=recognizer.inputs, vocabulary=recognizer.vocabulary, training=False)
    rows = list(range(len(dataset) if limit is None else min(limit, len(dataset))))
    references = {}
    for index in rows:
        row = dataset.manifest[index]
        text = written(row, column)
        if text is None:
            raise ValueError(f"{manifest}: utterance {row.id!r} has no {column} to compare with.")
        references[row.id] = text
    texts = transcribe_rows(recognizer, dataset, rows, "a" if recognizer.inputs.video_size is None else "av", searched)
    score = corpus_bleu([texts[name] for name in references], [list(references.values())], tokenize)
    name = "loaded model" if isinstance(model, Transcriber) else str(model)
    return Translation(name, str(manifest), split, column, score, texts, tuple(decoding))
