"""What takes the place of the classes and functions that a pickle asks for (pickles.py): it keeps what it is given, or makes a plain value
of it, and does nothing else.
"""

from typing import Any, ClassVar

import numpy as np


class StandIn:
    """Takes the place of a class that a pickle names: keeps what it is given, does nothing.

    Attributes:
        official: module and name in the pickle.
        arguments: of the call that would have made it.
        state: what its ``__setstate__`` would have got.
        entries: what would have been appended or set on it.
    """

    official: ClassVar[str] = ""

    def __new__(cls, *arguments: Any, **named: Any) -> "StandIn":
        made = object.__new__(cls)
        made.arguments, made.state, made.entries = (*arguments, *named.values()), None, []
        return made

    arguments: tuple[Any, ...]
    state: Any
    entries: list[Any]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, entry: Any) -> None:
        self.entries.append(entry)

    def extend(self, entries: Any) -> None:
        self.entries.extend(entries)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries.append((key, value))


class ForeignError(Exception):
    """A pickle asks for this, by module and name, which is not to be given."""


class Harmless:
    """A counterpart of what pickles call: a class, whose attributes no pickle can set, since an unbound __setstate__ lacks an argument."""

    def __setstate__(self, state: Any) -> None:
        pass


class Ordered(Harmless, dict[Any, Any]):
    """collections.OrderedDict; attributes such as a state dictionary's ``_metadata`` are dropped."""


class Encoded(Harmless):
    """_codecs.encode, by which pickles of protocol 2 write bytes."""

    def __new__(cls, text: str, encoding: str = "latin1") -> bytes:  # type: ignore[misc]
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise ValueError("bytes in an unknown encoding")
        return text.encode("latin1")


class Shape(Harmless):
    """torch.Size."""

    def __new__(cls, sizes: Any = ()) -> tuple[Any, ...]:  # type: ignore[misc]
        return tuple(sizes)


class NumpyType(StandIn):
    """numpy.dtype."""

    official = "numpy.dtype"


class NumpyScalar(Harmless):
    """numpy's ``scalar``: a plain number from a type code and bytes."""

    def __new__(cls, kind: Any, data: Any = b"") -> Any:
        code = kind.arguments[0] if isinstance(kind, NumpyType) and kind.arguments else None
        if code not in ("f4", "f8", "i4", "i8", "b1", "u4", "u8") or not isinstance(data, bytes):
            raise ValueError("a number of an unknown kind")
        return np.frombuffer(data, np.dtype(code).newbyteorder("<"), 1)[0].item()


class Reconstructed(Harmless):
    """copyreg._reconstructor: an empty object of a class that stands in."""

    def __new__(cls, kind: Any, *rest: Any) -> StandIn:  # type: ignore[misc]
        if not (isinstance(kind, type) and issubclass(kind, StandIn)):
            raise ValueError("an object without a class")
        return kind()


class Member(Harmless):
    """builtins.getattr, by which early versions of Python 3.11 write a member of an enumeration: the class's stand-in, called with the
    name in place of the value, which is the same in fairseq's. Nothing else is looked up."""

    def __new__(cls, kind: Any, name: Any) -> StandIn:  # type: ignore[misc]
        if not (isinstance(kind, type) and issubclass(kind, StandIn) and isinstance(name, str)):
            raise ForeignError("builtins.getattr")
        return kind(name)
