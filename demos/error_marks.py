"""Transcripts as HTML: wrong, missing and extra words are marked by colour, by a sign and, for screen readers, by words."""

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass

from avtlm.evaluation.wer import align_words, word_errors

INPUTS = {
    "a": ("Sound only", "what a microphone hears"),
    "v": ("Lips only", "what a camera sees"),
    "av": ("Sound and lips", "both together"),
}
LEGEND = (
    '<p class="legend"><span class="wrong">≠ heard <small>(said)</small></span> wrong word &ensp;'
    '<span class="missing">− said</span> missing word &ensp;<span class="extra">+ heard</span> extra word</p>'
)
# Sign, words for screen readers, CSS class.
MARKS = {"substitute": ("≠", "wrong word:", "wrong"), "delete": ("−", "missing word:", "missing"), "insert": ("+", "extra word:", "extra")}


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
    pieces = []
    for pair in align_words(reference, heard):
        said, got = html.escape(pair.reference), html.escape(pair.hypothesis)
        if pair.kind == "equal":
            pieces.append(got)
            continue
        sign, words, kind = MARKS[pair.kind]
        shown = {"wrong": f'{got} <small>(<span class="unseen">instead of </span>{said})</small>', "missing": said, "extra": got}[kind]
        pieces.append(f'<span class="{kind}"><span aria-hidden="true">{sign}</span> <span class="unseen">{words} </span>{shown}</span>')
    return " ".join(pieces)


def cards(reference: str, texts: Mapping[str, str], line: str = "") -> str:
    """The three transcripts side by side.

    Args:
        reference: what was said; empty if nobody knows.
        texts: by modality ``a``, ``v``, ``av``.
        line: a remark below, already escaped.
    """
    boxes = [_card(modality, marked(reference, texts[modality]), score(reference, texts[modality])) for modality in INPUTS]
    said = plain_words(reference)
    top = f'<p class="said"><span>Said</span> {html.escape(said)}</p>' if said else ""
    below = LEGEND if said else '<p class="legend">Type what was said to see the word errors.</p>'
    remark = f'<p class="remark">{line}</p>' if line else ""
    return f'<div class="transcripts" aria-live="polite">{top}<div class="cards">{"".join(boxes)}</div>{below}{remark}</div>'


def _card(modality: str, text: str, errors: Score | None) -> str:
    title, what = INPUTS[modality]
    rate = ""
    if errors is not None:
        grade = "good" if errors.errors == 0 else "fair" if errors.percent <= 34 else "poor"
        rate = (
            f'<div class="wer {grade}"><abbr title="word error rate">WER</abbr> <b>{errors}</b>'
            f"<span>{errors.errors} of {errors.words} words</span></div>"
        )
    return (
        f'<section class="card {modality}" data-modality="{modality}"><h3>{title}<small>{what}</small></h3>'
        f'<p class="text">{text}</p>{rate}</section>'
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
