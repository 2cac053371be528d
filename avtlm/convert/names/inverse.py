"""The way back of a table of key names: rules from ours to theirs, so that each table is written once."""

import functools
import re
from collections.abc import Iterable

_GROUP = re.compile(r"\((?:\\d\+|\.\+|weight\|bias)\)")


def inverse(rules: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rules (a pattern of our names, their name), in the same order.

    A pattern of a table is plain text with groups of digits or of anything, and its counterpart names all of them in their order.
    """
    turned = []
    for pattern, ours in rules:
        groups = _GROUP.findall(pattern)
        parts = re.split(r"\\(\d)", ours)
        assert [int(number) for number in parts[1::2]] == list(range(1, len(groups) + 1)), pattern
        ours = "".join(groups[int(part) - 1] if place % 2 else re.escape(part) for place, part in enumerate(parts))
        theirs = "".join(
            re.sub(r"\\(.)", r"\1", text) + (rf"\{place + 1}" if place < len(groups) else "")
            for place, text in enumerate(_GROUP.split(pattern))
        )
        turned.append((ours, theirs))
    return turned


def find_key(rules: Iterable[tuple[str, str]], name: str) -> str:
    """What the first fitting rule of a table turns one of our names back into.

    Raises:
        ValueError: the official model has no such tensor.
    """
    for ours, theirs in _turned(tuple(rules)):
        match = re.fullmatch(ours, name)
        if match:
            return match.expand(theirs)
    raise ValueError(f"{name!r}: the official model has no such tensor.")


@functools.lru_cache(maxsize=64)
def _turned(rules: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
    return inverse(rules)
