"""Translations: corpus BLEU and chrF2 by sacreBLEU, with the signature that makes figures comparable (Post 2018)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from avtlm.errors import MissingExtra


@dataclass(frozen=True)
class TranslationScore:
    """BLEU of a corpus in percent.

    Attributes:
        precisions: of n-grams of 1 to 4 words, in percent, smoothed where there is none.
        brevity_penalty: factor for hypotheses that are shorter than their references.
        chrf: character F-score (chrF2), in percent.
        signature: sacreBLEU's description of how BLEU was counted; report it beside the figure.
    """

    bleu: float
    precisions: tuple[float, ...]
    brevity_penalty: float
    hypothesis_words: int
    reference_words: int
    chrf: float
    signature: str

    def __str__(self) -> str:
        return f"{self.bleu:.1f} ({self.signature})"


def corpus_bleu(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    tokenize: str = "13a",
    lowercase: bool = False,
    smooth_method: str = "exp",
    smooth_value: float | None = None,
    effective_order: bool = False,
) -> TranslationScore:
    """Score detokenised translations.

    Args:
        hypotheses: one sentence each; an empty one is scored as it is.
        references: one or more streams, each as long as ``hypotheses``.
        tokenize: sacreBLEU's tokenizer: ``13a``, ``zh`` for Chinese, ``ja-mecab`` or ``char`` for Japanese.
        lowercase: ignore case; published tables do not.
        smooth_method, smooth_value: what stands for n-grams that never match: ``exp`` in published tables, or ``floor``, ``add-k`` with a
            value, ``none``.
        effective_order: leave out lengths of n-grams that a hypothesis is too short for, as scores of single sentences do.

    Raises:
        ValueError: nothing to score, or a stream of another length.
        MissingExtra: sacreBLEU is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise MissingExtra("metrics", "sacrebleu", "scoring translations") from error
    if not hypotheses or not references:
        raise ValueError("there is no translation to score.")
    for number, stream in enumerate(references):
        if len(stream) != len(hypotheses):
            raise ValueError(f"references {number + 1}: {len(stream)} sentences for {len(hypotheses)} translations; give one for each.")
    streams: Any = [list(stream) for stream in references]
    metric = BLEU(
        lowercase=lowercase, tokenize=tokenize, smooth_method=smooth_method, smooth_value=smooth_value, effective_order=effective_order
    )
    score: Any = metric.corpus_score(list(hypotheses), streams)
    return TranslationScore(
        bleu=score.score,
        precisions=tuple(score.precisions),
        brevity_penalty=score.bp,
        hypothesis_words=score.sys_len,
        reference_words=score.ref_len,
        chrf=CHRF().corpus_score(list(hypotheses), streams).score,
        signature=str(metric.get_signature()),
    )
