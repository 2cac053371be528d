"""One sequence of words out of those of two windows that overlap: no word doubled, none lost.

Words near the edge of a window lack context, and the one at the edge is cut. So the seam is sought in the middle of the overlap: both
windows' words there are aligned (the longest common subsequence of equal words whose times agree; of equally long ones the one with the
best times), and of the pairs the one nearest to the middle becomes the seam: left of it the earlier window is believed, right of it the
later one. If no word is common, times decide alone. Words without times get them by sharing out their window by letters. These times need
agree only roughly, so that a word said twice has many partners; there a pair counts the less the further its times are apart, and not the
longest sequence wins but the one whose pairs sum up to most.
"""

from collections.abc import Sequence
from dataclasses import replace

from avtlm.decoding.captions import spread_words
from avtlm.decoding.result import Word

AGREE = 0.4  # seconds: times of the same word in two windows differ by less
AGREE_GUESSED = 2.0  # the same, of times that are only shared out
ROUNDING = 1e-6  # seconds: a difference of AGREE is none less, however it is rounded
TIE = 1e-4  # of a pair whose times differ by all they may; so little that only equally long sequences are told apart by it


def timed(words: Sequence[Word], start: float, end: float) -> list[tuple[float, float]]:
    """Start and end of every word: its own, or else its share of the time from ``start`` to ``end`` by letters."""
    guesses = spread_words([word.text for word in words], start, end)
    return [
        (begin, stop) if word.start is None or word.end is None else (word.start, word.end)
        for word, (begin, stop, _) in zip(words, guesses, strict=True)
    ]


def shifted(words: Sequence[Word], seconds: float) -> tuple[Word, ...]:
    """Words of a segment on the clock of the recording."""
    return tuple(
        word if word.start is None or word.end is None else replace(word, start=word.start + seconds, end=word.end + seconds)
        for word in words
    )


def merge_windows(
    left: Sequence[Word], right: Sequence[Word], left_span: tuple[float, float], right_span: tuple[float, float]
) -> tuple[list[Word], list[Word]]:
    """What each of two windows contributes.

    Args:
        left, right: words in order, on one clock.
        left_span, right_span: seconds from start to end of the windows; the left one ends after the right one starts.

    Returns:
        The words of the left window up to the seam, and those of the right window behind it.
    """
    known = all(word.start is not None for word in (*left, *right))
    agree, discount = (AGREE, TIE) if known else (AGREE_GUESSED, 1.0)
    begin, end = right_span[0], left_span[1]
    middle = (begin + end) / 2
    left_middles = [(a + b) / 2 for a, b in timed(left, *left_span)]
    right_middles = [(a + b) / 2 for a, b in timed(right, *right_span)]
    first = next((i for i, time in enumerate(left_middles) if time >= begin - agree), len(left))
    stop = next((j for j, time in enumerate(right_middles) if time > end + agree), len(right))
    pairs = _common(left[first:], right[:stop], left_middles[first:], right_middles[:stop], agree, discount)
    if pairs:
        i, j = min(pairs, key=lambda pair: abs((left_middles[first + pair[0]] + right_middles[pair[1]]) / 2 - middle))
        return list(left[: first + i + 1]), list(right[j + 1 :])
    kept = sum(time < middle for time in left_middles)
    skipped = sum(time < middle for time in right_middles)
    return list(left[:kept]), list(right[skipped:])


def _common(
    left: Sequence[Word], right: Sequence[Word], left_times: Sequence[float], right_times: Sequence[float], agree: float, discount: float
) -> list[tuple[int, int]]:
    """Pairs of the common subsequence that is worth most, by words whose times differ by less than ``agree``.

    A pair of equal times is worth 1, and one that differs by ``agree`` is worth 1 - ``discount``."""
    worth = [[0.0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in range(len(left) - 1, -1, -1):
        for j in range(len(right) - 1, -1, -1):
            worth[i][j] = max(worth[i + 1][j], worth[i][j + 1])
            distance = abs(left_times[i] - right_times[j])
            if left[i].text == right[j].text and distance < agree - ROUNDING:
                worth[i][j] = max(worth[i][j], worth[i + 1][j + 1] + 1 - discount * distance / agree)
    pairs, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if worth[i][j] == worth[i + 1][j]:
            i += 1
        elif worth[i][j] == worth[i][j + 1]:
            j += 1
        else:
            pairs.append((i, j))
            i, j = i + 1, j + 1
    return pairs
