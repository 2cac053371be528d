"""Readings as HTML: transcripts with confidence and downloads, words over time below lips and sound, and where each symbol was found.

Everything is markup with the pictures inside it: nothing is written to disk, and nothing is fetched from anywhere.
"""

import base64
import html
from collections.abc import Mapping
from urllib.parse import quote

import numpy as np

from avtlm.data.container import FPS, SAMPLE_RATE
from avtlm.decoding.result import Transcript
from demos.demo_reading import Reading, Trace
from demos.error_marks import INPUTS, cards, plain_words
from demos.noisy_clip import Outcome

MOMENTS = 12  # pictures of the lips in the strip
MOMENT = 64  # pixels a side
COLUMNS = 400  # of the drawn sound
BLUE, PAPER = np.array([18, 97, 166]), np.array([255, 255, 255])  # ends of the scale of weights; the colours of avtlm.evaluation.plots
LIGHT = 0.5  # confidence below which a word is drawn as doubtful


def comparison(reference: str, outcome: Outcome, remark: str) -> str:
    """The transcripts of all models, one row of cards for each.

    Args:
        reference: what was said; empty if nobody knows.
        remark: below the last of them, already escaped.
    """
    rows = []
    for number, (name, readings) in enumerate(outcome.readings.items(), 1):
        texts = {modality: reading.transcript.text for modality, reading in readings.items()}
        feet = {modality: foot(reading, f"{name}_{modality}") for modality, reading in readings.items()}
        last = number == len(outcome.readings)
        rows.append(cards(reference, texts, remark if last else "", feet, name if len(outcome.readings) > 1 else ""))
    return "".join(rows)


def foot(reading: Reading, name: str) -> str:
    """Confidence, and the transcript to keep as captions or JSON; ``name`` begins the names of the files."""
    sure = reading.confidence
    known = "" if sure is None else f'<p class="sure"><abbr title="mean confidence of the words">Confidence</abbr> {100 * sure:.0f} %</p>'
    files = [("SRT", "srt", reading.transcript.to_srt()), ("JSON", "json", reading.transcript.to_json())]
    stem = "".join(letter if letter.isalnum() else "_" for letter in name)
    what = INPUTS[name.rsplit("_", 1)[-1]][0].lower()
    links = " ".join(
        f'<a download="{html.escape(stem)}.{ending}" href="data:text/plain;charset=utf-8,{quote(text)}" '
        f'aria-label="Download {kind}, {html.escape(what)}">{kind}</a>'
        for kind, ending, text in files
    )
    return f'{known}<p class="keep">Download {links}</p>'


def timeline(outcome: Outcome, crops: np.ndarray) -> str:
    """Lips, sound and the words of every reading over the same time, with tables and pictures of where symbols were found to unfold.

    Args:
        outcome: of `Studio.listen`.
        crops: uint8 (frames, side, side), the lips.
    """
    seconds = len(crops) / FPS
    lanes = [
        _lane("Lips", f'<img class="strip" src="{png(strip(crops))}" alt="The lips at {MOMENTS} moments, evenly spaced">'),
        _lane("Sound", waveform(outcome.wave, seconds)),
    ]
    several = len(outcome.readings) > 1
    details = []
    for name, readings in outcome.readings.items():
        for modality, reading in readings.items():
            title = INPUTS[modality][0]
            lanes.append(_lane(f"{title}, {html.escape(name)}" if several else title, _words(reading.transcript, seconds)))
        heading = f": {html.escape(name)}" if several else ""
        pictures = "".join(found(title_of(modality), reading.trace) for modality, reading in readings.items())
        details.append(f"<details><summary>Where each symbol was found{heading}</summary>{pictures}</details>")
        details.append(f"<details><summary>Words and times as a table{heading}</summary>{table(readings)}</details>")
    ruler = "".join(f'<span style="left:{100 * mark / seconds:.2f}%">{mark:g} s</span>' for mark in _marks(seconds))
    lanes.append(_lane("", f'<div class="ruler" aria-hidden="true">{ruler}</div>'))
    return (
        f'<section class="timeline"><div class="lanes" tabindex="0" role="region" aria-label="Words over time" '
        f'style="--seconds:{seconds:.2f}">{"".join(lanes)}</div>'
        f'<p class="legend">A dashed word is one of which the model is less than {100 * LIGHT:.0f} % sure.</p>{"".join(details)}</section>'
    )


def title_of(modality: str) -> str:
    """What a reading is of."""
    return INPUTS[modality][0]


def _lane(name: str, content: str) -> str:
    return f'<div class="lane"><span class="name">{name}</span><div class="track">{content}</div></div>'


def _marks(seconds: float) -> list[float]:
    step = next(step for step in (0.5, 1.0, 2.0, 5.0) if seconds / step <= 8 or step == 5.0)
    return [step * number for number in range(int(seconds / step) + 1) if step * number <= 0.97 * seconds]


def _words(transcript: Transcript, seconds: float) -> str:
    """Boxes where the words are; words without times as plain text."""
    if not transcript.words:
        return '<span class="nothing">(nothing recognised)</span>'
    boxes = []
    for word in transcript.words:
        if word.start is None or word.end is None:
            return f"<span>{html.escape(plain_words(transcript.text))} (without times)</span>"
        left, width = 100 * min(word.start / seconds, 1), 100 * max(min(word.end, seconds) - word.start, 0) / seconds
        sure = "" if word.confidence is None else f", {100 * word.confidence:.0f} % sure"
        doubtful = " doubtful" if word.confidence is not None and word.confidence < LIGHT else ""
        boxes.append(
            f'<span class="word{doubtful}" style="left:{left:.2f}%;width:{width:.2f}%" '
            f'title="{html.escape(word.text)}: {word.start:.2f} to {word.end:.2f} s{sure}">{html.escape(word.text)}</span>'
        )
    return "".join(boxes)


def table(readings: Mapping[str, Reading]) -> str:
    """Words, times and confidence of some readings of one model."""
    rows = []
    for modality, reading in readings.items():
        for word in reading.transcript.words:
            start, end = ("" if time is None else f"{time:.2f}" for time in (word.start, word.end))
            sure = "" if word.confidence is None else f"{100 * word.confidence:.0f} %"
            cells = (title_of(modality), html.escape(word.text), start, end, sure)
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Input", "Word", "Start (s)", "End (s)", "Confidence"))
    region = '<div class="scroll" tabindex="0" role="region" aria-label="Words and times">'
    return f"{region}<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"


def found(title: str, trace: Trace | None) -> str:
    """A picture of where the symbols of one reading were found, time from left to right."""
    if trace is None:
        return f'<figure class="trace"><figcaption>{title}: this reading has no places to show.</figcaption></figure>'
    shown = trace.weights.astype(np.float32).clip(0, 1)[..., None]
    picture = np.round(PAPER + shown * (BLUE - PAPER)).astype(np.uint8)
    names = "".join(f"<span>{html.escape(symbol)}</span>" for symbol in trace.symbols)
    return (
        f'<figure class="trace"><figcaption>{title}: {trace.kind}</figcaption><div class="grid" style="--rows:{len(trace.symbols)}">'
        f'<div class="symbols" aria-hidden="true">{names}</div>'
        f'<img src="{png(picture)}" alt="{trace.kind} of {len(trace.symbols)} symbols over time; dark is where a symbol was found">'
        "</div></figure>"
    )


def strip(crops: np.ndarray, moments: int = MOMENTS) -> np.ndarray:
    """uint8 (frames, side, side) -> uint8 (64, 64 moments): pictures from the middles of equal parts of a clip, side by side."""
    import cv2

    chosen = crops[((np.arange(moments) + 0.5) * len(crops) / moments).astype(int)]
    return np.hstack([cv2.resize(crop, (MOMENT, MOMENT), interpolation=cv2.INTER_AREA) for crop in chosen])


def waveform(wave: np.ndarray, seconds: float) -> str:
    """int16 (samples,) as an SVG of its lowest and highest values in equal parts of the time."""
    columns = min(COLUMNS, max(len(wave), 1))
    samples = np.zeros(max(round(seconds * SAMPLE_RATE), columns), np.int16)
    samples[: min(len(wave), len(samples))] = wave[: len(samples)]
    edges = np.linspace(0, len(samples), columns + 1).astype(int)[:-1]
    low, high = (extreme.reduceat(samples, edges) / 32768 for extreme in (np.minimum, np.maximum))
    upper = " ".join(f"{column},{1 - value:.3f}" for column, value in enumerate(high))
    lower = " ".join(f"{column},{1 - value:.3f}" for column, value in reversed(list(enumerate(low - 0.01))))
    loudest = float(np.abs(samples.astype(np.int32)).max()) / 32768
    return (
        f'<svg viewBox="0 0 {columns} 2" preserveAspectRatio="none" role="img" aria-label="Waveform of {seconds:.1f} s; its peak is at '
        f'{100 * loudest:.0f} % of full scale"><polygon points="{upper} {lower}"/></svg>'
    )


def png(picture: np.ndarray) -> str:
    """uint8 (height, width) grey or (height, width, 3) RGB as the address of a PNG that holds it."""
    import cv2

    done, content = cv2.imencode(".png", picture[..., ::-1] if picture.ndim == 3 else picture)
    assert done
    return f"data:image/png;base64,{base64.b64encode(content.tobytes()).decode()}"
