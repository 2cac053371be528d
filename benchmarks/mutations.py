"""Damage as fuzzers do it: bytes of a whole file flipped, cut, doubled, moved, overwritten; words of a text exchanged for hostile ones."""

from collections.abc import Callable, Sequence

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]

EDGES = (0, 1, 0x7F, 0x80, 0xFF)
WIDE_EDGES = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0x10000)
HOSTILE = (
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"0x7fffffffffffffff",
    b"99999999999999999999999",
    b"true",
    b'""',
    b'"\\u0000"',
    b'"\\ud800"',
    b"[]",
    b"{}",
    b"[" * 5000,
    b'{"a":' * 2000,
    b"../../../../etc/passwd",
    b"/etc/passwd",
    b"x" * 5000,
    b"\xff\xfe",
    b"\x00",
    b"\t\t",
    b"\n\n",
    b"!!python/object/apply:os.system",
    b"&a *a",
    b"%s%n{0}",
    "é́‮𝔘".encode(),
)


def flip(data: bytes, rng: np.random.Generator) -> bytes:
    """One to 40 bits."""
    changed = bytearray(data)
    for place in rng.integers(0, len(data), int(rng.integers(1, 41))):
        changed[int(place)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def overwrite(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes become the edges of their range."""
    changed = bytearray(data)
    for place in rng.integers(0, len(data), int(rng.integers(1, 9))):
        changed[int(place)] = int(rng.choice(EDGES))
    return bytes(changed)


def overwrite_numbers(data: bytes, rng: np.random.Generator) -> bytes:
    """A few numbers of four bytes, of either order, become the edges of theirs; near the front, where headers are, more often."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        reach = len(data) if rng.random() < 0.5 else min(len(data), 256)
        place = int(rng.integers(0, max(1, reach - 4)))
        changed[place : place + 4] = int(rng.choice(WIDE_EDGES)).to_bytes(4, "big" if rng.random() < 0.5 else "little")
    return bytes(changed)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """The file ends early."""
    return data[: int(rng.integers(0, len(data)))]


def drop(data: bytes, rng: np.random.Generator) -> bytes:
    """A stretch is missing."""
    begin, end = sorted(int(place) for place in rng.integers(0, len(data) + 1, 2))
    return data[:begin] + data[min(end, begin + len(data) // 4) :]


def double(data: bytes, rng: np.random.Generator) -> bytes:
    """A stretch stands there twice."""
    begin, end = sorted(int(place) for place in rng.integers(0, len(data) + 1, 2))
    return data[:end] + data[max(begin, end - 4096) :]


def blank(data: bytes, rng: np.random.Generator) -> bytes:
    """A stretch is zero, as after a write that never reached the disk."""
    begin = int(rng.integers(0, len(data)))
    size = min(len(data) - begin, int(rng.integers(1, max(2, len(data) // 3))))
    return data[:begin] + bytes(size) + data[begin + size :]


def insert(data: bytes, rng: np.random.Generator) -> bytes:
    """Random bytes come between."""
    place = int(rng.integers(0, len(data) + 1))
    return data[:place] + rng.bytes(int(rng.integers(1, 200))) + data[place:]


def swap(data: bytes, rng: np.random.Generator) -> bytes:
    """Two stretches change places."""
    a, b, c, d = sorted(int(place) for place in rng.integers(0, len(data) + 1, 4))
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def exchange(data: bytes, rng: np.random.Generator) -> bytes:
    """Words between the marks of JSON, YAML and tables become hostile ones."""
    starts = [place for place in range(len(data)) if data[place : place + 1] in b' :,"\t\n[{']
    for _ in range(int(rng.integers(1, 4))):
        if not starts:
            break
        begin = int(rng.choice(starts)) + 1
        ends = [end for mark in b',}"\t\n ' if (end := data.find(bytes([mark]), begin)) >= 0]
        end = min(ends, default=len(data))
        data = data[:begin] + HOSTILE[int(rng.integers(len(HOSTILE)))] + data[end:]
    return data


BINARY: tuple[Mutation, ...] = (flip, overwrite, overwrite_numbers, cut, drop, double, blank, insert, swap)
TEXTUAL: tuple[Mutation, ...] = (*BINARY, exchange, exchange, exchange)


def mutate(data: bytes, rng: np.random.Generator, mutations: Sequence[Mutation]) -> tuple[bytes, tuple[str, ...]]:
    """One to three of the mutations, one after the other, and their names."""
    names = []
    for _ in range(int(rng.choice((1, 1, 1, 2, 3)))):
        if not data:
            break
        chosen = mutations[int(rng.integers(len(mutations)))]
        data = chosen(data, rng)
        names.append(chosen.__name__)
    return data, tuple(names)
