"""Transcripts as HTML: wrong, missing and extra words are marked by colour, by a sign and, for screen readers, by words."""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

from avtlm.evaluation.report.differences import marked_words
from avtlm.evaluation.wer import word_errors

INPUTS = {
    "a": ("Sound only", "what a microphone hears"),
    "v": ("Lips only", "what a camera sees"),
    "av": ("Sound and lips", "both together"),
}
LEGEND = (
    '<p class="legend"><span class="wrong">≠ heard <small>(said)</small></span> wrong word &ensp;'
    '<span class="missing">− said</span> missing word &ensp;<span class="extra">+ heard</span> extra word</p>'
)


@dataclass(frozen=True)
class Score:
    """Wrong words of one sentence."""

    errors: int
    words: int

    @property
    def percent(self) -> float:
        return 100 * self.errors / max(self.words, 1)

    def __str__(self) -> str:
        return f"{self.percent:.0f} %"


def plain_words(text: str) -> str:
    """A sentence as it is compared: lower case, no punctuation but apostrophes, single spaces."""
    return " ".join(re.sub(r"[^\w\s']|_", " ", text.lower().replace("’", "'")).split())


def score(reference: str, heard: str) -> Score | None:
    """Word errors; None without a reference."""
    reference = plain_words(reference)
    return Score(*word_errors(reference, plain_words(heard))) if reference else None


def marked(reference: str, heard: str) -> str:
    """A transcript with its errors marked; without a reference, the words as they are; escaped."""
    reference, heard = plain_words(reference), plain_words(heard)
    if not reference:
        return html.escape(heard) or '<span class="nothing">(nothing recognised)</span>'
    return marked_words(reference, heard)


def cards(reference: str, texts: Mapping[str, str], line: str = "", feet: Mapping[str, str] | None = None, name: str = "") -> str:
    """The transcripts of one model side by side.

    Args:
        reference: what was said; empty if nobody knows.
        texts: by modality ``a``, ``v``, ``av``; a model that hears only has the first.
        line: a remark below, already escaped.
        feet: what stands at the foot of a card, by modality, already escaped.
        name: of the model, where there are several.
    """
    feet = feet or {}
    boxes = [
        _card(
            modality, marked(reference, texts[modality]), score(reference, texts[modality]), feet.get(modality, ""), "h4" if name else "h3"
        )
        for modality in INPUTS
        if modality in texts
    ]
    said = plain_words(reference)
    top = f'<h3 class="model">{html.escape(name)}</h3>' if name else ""
    top += f'<p class="said"><span>Said</span> {html.escape(said)}</p>' if said else ""
    below = LEGEND if said else '<p class="legend">Type what was said to see the word errors.</p>'
    remark = f'<p class="remark">{line}</p>' if line else ""
    return f'<div class="transcripts" aria-live="polite">{top}<div class="cards">{"".join(boxes)}</div>{below}{remark}</div>'


def _card(modality: str, text: str, errors: Score | None, foot: str, heading: str) -> str:
    title, what = INPUTS[modality]
    rate = ""
    if errors is not None:
        grade = "good" if errors.errors == 0 else "fair" if errors.percent <= 34 else "poor"
        rate = (
            f'<div class="wer {grade}"><abbr title="word error rate">WER</abbr> <b>{errors}</b>'
            f"<span>{errors.errors} of {errors.words} words</span></div>"
        )
    return (
        f'<section class="card {modality}" data-modality="{modality}"><{heading}>{title}<small>{what}</small></{heading}>'
        f'<p class="text">{text}</p>{rate}{foot}</section>'
    )


def problem(sentence: str) -> str:
    """A message that something cannot be used."""
    return f'<div class="problem" role="alert">{html.escape(sentence)}</div>'


def notice(sentence: str) -> str:
    """A message that nothing is wrong, but something is to be done."""
    return f'<div class="notice" role="status">{html.escape(sentence)}</div>'


def hint(sentence: str) -> str:
    """What stands where transcripts will be."""
    return f'<div class="transcripts"><p class="hint">{html.escape(sentence)}</p></div>'
