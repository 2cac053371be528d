"""Options of official code in the words of ours and back, one file per system; and the reading of such options without losing any."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


class OptionError(ValueError):
    """An option of an official model that cannot be honoured; the message names it and where it stands."""


class Options:
    """Official options by key. Every key is honoured, known to change nothing, or refused.

    Args:
        values: keys that start with an underscore are fairseq's own notes and left out; ``???`` stands for a missing value.
        where: what the options belong to, for errors.
        without_effect: keys that the official code never reads, or that concern something else.
    """

    def __init__(self, values: Mapping[str, Any], where: str, without_effect: Iterable[str] = ()) -> None:
        spare = set(without_effect)
        self.where = where
        self._left = {key: value for key, value in values.items() if not key.startswith("_") and key not in spare and value != "???"}

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, or ``default`` where it is missing or null; a key without a default has to be there."""
        value = self._left.pop(key, None)
        if value is None and default is None:
            raise OptionError(f"{self.where}: {key} is missing.")
        return default if value is None else value

    def choose(self, key: str, default: str | int, known: Mapping[Any, Any]) -> Any:
        """Our word for the value of a key."""
        value = self.take(key, default)
        if value not in known:
            raise OptionError(f"{self.where}: {key} is {value!r}; avtlm knows {', '.join(map(str, known))}.")
        return known[value]

    def require(self, key: str, *values: Any) -> None:
        """Refuse a key with any other value; the first one is the default."""
        value = self._left.pop(key, values[0])
        if value not in values:
            raise OptionError(f"{self.where}: {key} is {value!r}; avtlm knows only {' or '.join(map(repr, values))}.")

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Say where the options stand when a configuration is not made of good values."""
        try:
            yield
        except OptionError:
            raise
        except (TypeError, ValueError) as error:
            raise OptionError(f"{self.where}: {error}") from error

    def left(self) -> list[str]:
        """What nobody asked for yet."""
        return sorted(self._left)

    def finish(self) -> None:
        """Refuse what nobody asked for."""
        if self._left:
            raise OptionError(f"{self.where}: options that avtlm does not know: {', '.join(sorted(self._left))}.")
