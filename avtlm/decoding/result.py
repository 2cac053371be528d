"""What decoding gives back: hypotheses for programs, transcripts for people.

All scores are natural logarithms. Times are seconds from the start of the clip.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from avtlm.decoding import captions
from avtlm.text.vocabulary import Tokenizer

FRAME_SECONDS = 0.04  # every audio-visual encoder here gives 25 frames per second


@dataclass(frozen=True)
class Hypothesis:
    """One reading of one utterance.

    Args:
        tokens: ids without start and end symbols.
        score: what hypotheses are ranked by; its definition belongs to the search that made it.
        components: parts of the score by name, before weighting (``ctc``, ``attention``, ``lm``), summed over the tokens.
        timesteps: for every token the frames it covers, from the first to before the last; empty if the search knows no times.
        token_scores: log-probability of every token; empty if the search knows none.
        text: the tokens as text, once a vocabulary has been applied; of a search over words, its words.
    """

    tokens: tuple[int, ...]
    score: float
    components: Mapping[str, float] = field(default_factory=dict)
    timesteps: tuple[tuple[int, int], ...] = ()
    token_scores: tuple[float, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Word:
    """A word with its start and end in seconds (None if unknown) and a confidence from 0 to 1 (None if unknown).

    The confidence is the geometric mean of the posteriors of the word's tokens. It ranks words by trust; it is no calibrated probability.
    """

    text: str
    start: float | None = None
    end: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Transcript:
    """The text of a clip, its words, the hypotheses behind it (best first), and how long each stage took in seconds.

    ``duration`` is the length of the clip in seconds, None if unknown.
    """

    text: str
    words: tuple[Word, ...] = ()
    hypotheses: tuple[Hypothesis, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    duration: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in the JSON."""
        return {
            "text": self.text,
            "words": [
                {"word": word.text, "start": _rounded(word.start), "end": _rounded(word.end), "confidence": _rounded(word.confidence)}
                for word in self.words
            ],
            "hypotheses": [
                {
                    "text": hypothesis.text,
                    "tokens": list(hypothesis.tokens),
                    "score": _rounded(hypothesis.score, 6),
                    "components": {name: _rounded(value, 6) for name, value in hypothesis.components.items()},
                }
                for hypothesis in self.hypotheses
            ],
            "duration": _rounded(self.duration),
            "timings": {name: _rounded(value) for name, value in self.timings.items()},
        }

    def to_json(self, indent: int | None = 2) -> str:
        """Strict JSON; a score of log 0 is null."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=indent, allow_nan=False)

    def to_srt(self) -> str:
        """SubRip captions, times as ``00:00:01,240``.

        Raises:
            ValueError: neither the times of the words nor the length of the clip are known.
        """
        return captions.srt(self.cues())

    def to_vtt(self) -> str:
        """WebVTT captions, times as ``00:00:01.240``.

        Raises:
            ValueError: neither the times of the words nor the length of the clip are known.
        """
        return captions.vtt(self.cues())

    def cues(self) -> list[captions.Cue]:
        """Captions (start, end, text): a new one after a pause, after six seconds, or when two lines are full.

        Without the times of words there is one for the whole clip, or several that share its time if the text is long.

        Raises:
            ValueError: neither the times of the words nor the length of the clip are known.
        """
        if not self.text:
            return []
        timed = [(word.start, word.end, word.text) for word in self.words if word.start is not None and word.end is not None]
        if len(timed) == len(self.words) and timed:
            return captions.cues_of(timed)
        if self.duration is None:
            raise ValueError("Subtitles need the times of the words or the length of the clip; this transcript has neither.")
        if captions.fits(self.text):
            return [(0.0, self.duration, self.text)]
        return captions.cues_of(captions.spread_words(self.text.split(), 0.0, self.duration))


def transcript(
    hypotheses: Sequence[Hypothesis],
    vocabulary: Tokenizer,
    frame_seconds: float = FRAME_SECONDS,
    timings: Mapping[str, float] | None = None,
    duration: float | None = None,
) -> Transcript:
    """The transcript of one utterance from its n-best list.

    Args:
        hypotheses: best first.
        vocabulary: turns tokens into text and words.
        frame_seconds: length of a frame of the log-probabilities that the hypotheses came from.
        timings: seconds per stage.
        duration: of the clip in seconds.

    Raises:
        ValueError: there is no hypothesis.
    """
    if not hypotheses:
        raise ValueError("A transcript needs at least one hypothesis.")
    named = tuple(each if each.text else replace(each, text=vocabulary.decode(each.tokens)) for each in hypotheses)
    best = named[0]
    words = []
    spans = vocabulary.words(best.tokens)
    known = best.text.split() if hypotheses[0].text else []
    # A word of a lexicon may be spelled with other letters than its own.
    names = known if len(known) == len(spans) else [span.text for span in spans]
    for name, span in zip(names, spans, strict=True):
        frames, scores = best.timesteps[span.first : span.end], best.token_scores[span.first : span.end]
        start, end = (frames[0][0] * frame_seconds, frames[-1][1] * frame_seconds) if frames else (None, None)
        words.append(Word(name, start, end, math.exp(min(0.0, sum(scores) / len(scores))) if scores else None))
    return Transcript(best.text, tuple(words), named, dict(timings or {}), duration)


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return round(value, digits) if value is not None and math.isfinite(value) else None
