"""SentencePiece models of icefall (``<blk>``, ``<sos/eos>``, ``<unk>`` first) to the special symbols that vocabularies have here.

A model is a protocol buffer; its pieces are its first field, in the order of their ids. The first ones are replaced, one is put in, and the
ids of special symbols are written behind the trainer's settings, where later values win. Nothing else of the file is touched.
"""

import struct
from collections.abc import Iterator

from avtlm.convert.options import OptionError
from avtlm.text.vocabulary import BOS, EOS, PAD, SPECIALS, UNKNOWN

PIECES, TRAINER = 1, 2  # fields of a model
PIECE, SCORE, KIND = 1, 2, 3  # fields of a piece
NORMAL, UNKNOWN_KIND, CONTROL = 1, 2, 3
# Fields of the trainer's settings: ids, and what the symbols are called.
IDS = {40: UNKNOWN, 41: BOS, 42: EOS, 43: PAD}
NAMES = {45: SPECIALS[UNKNOWN], 46: SPECIALS[BOS], 47: SPECIALS[EOS], 48: SPECIALS[PAD]}
ICEFALL = ("<blk>", "<sos/eos>", "<unk>")


def with_own_specials(model: bytes) -> bytes:
    """A model of icefall with ``<s>``, ``<pad>``, ``</s>``, ``<unk>`` in place of its three first pieces; all others are one further.

    Raises:
        OptionError: no SentencePiece model, or one whose first pieces are others.
    """
    try:
        fields = list(_fields(model))
        pieces = [content for number, content in fields if number == PIECES and isinstance(content, bytes)]
        names = [next(value for number, value in _fields(piece) if number == PIECE) for piece in pieces]
    except (IndexError, StopIteration, struct.error, ValueError) as error:
        raise OptionError("the vocabulary is no SentencePiece model; name the bpe.model of the recipe with --vocabulary.") from error
    if tuple(name.decode(errors="replace") for name in names[:3] if isinstance(name, bytes)) != ICEFALL:
        raise OptionError(
            f"the vocabulary begins with {b', '.join(n for n in names[:3] if isinstance(n, bytes))!r}, not with {', '.join(ICEFALL)}."
        )
    kinds = (CONTROL, CONTROL, CONTROL, UNKNOWN_KIND)
    own = [_piece(name, kind) for name, kind in zip(SPECIALS, kinds, strict=True)]
    rest = [(number, content) for number, content in fields if number != PIECES]
    trainer = b"".join(_written(number, value) for number, value in IDS.items())
    trainer += b"".join(_written(number, name.encode()) for number, name in NAMES.items())
    everything = [*((PIECES, piece) for piece in (*own, *pieces[len(ICEFALL) :])), *rest, (TRAINER, trainer)]
    return b"".join(_written(number, content) for number, content in everything)


def _piece(name: str, kind: int) -> bytes:
    return _written(PIECE, name.encode()) + _written(SCORE, 0.0) + _written(KIND, kind)


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int | float]]:
    """Number and content of every field, in order."""
    place = 0
    while place < len(message):
        tag, place = _number(message, place)
        kind = tag & 7
        if kind == 0:
            value, place = _number(message, place)
            yield tag >> 3, value
        elif kind == 5:
            yield tag >> 3, struct.unpack_from("<f", message, place)[0]
            place += 4
        elif kind == 2:
            length, place = _number(message, place)
            if place + length > len(message):
                raise ValueError("a field is longer than the file")
            yield tag >> 3, message[place : place + length]
            place += length
        else:
            raise ValueError(f"fields of kind {kind} do not occur in SentencePiece models")


def _number(message: bytes, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, and where it ends."""
    value = shift = 0
    while True:
        byte = message[place]
        value, place, shift = value | (byte & 127) << shift, place + 1, shift + 7
        if byte < 128:
            return value, place


def _written(number: int, content: bytes | int | float) -> bytes:
    """One field."""
    if isinstance(content, float):
        return _packed(number << 3 | 5) + struct.pack("<f", content)
    if isinstance(content, int):
        return _packed(number << 3) + _packed(content)
    return _packed(number << 3 | 2) + _packed(len(content)) + content


def _packed(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
