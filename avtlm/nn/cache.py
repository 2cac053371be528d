"""Keys and values of the tokens so far, for decoders that go token by token.

All layers lie in one buffer, tokens first. Sorting the hypotheses of a beam anew copies only what changes: hypotheses of one utterance soon
have all but their last tokens in common, and what they have in common lies in place already. Buffers are kept: a search asks the system for
memory only when it outgrows them, or when rows leave.
"""

import torch
from torch import Tensor

TOKENS = 32  # room for so many at first; doubled whenever it is full


class KeyValueCache:
    """A cache for ``layers`` layers.

    It is used up as it goes: `append`, `advance` and `reorder` change it in place, so that whoever continues two texts from one cache needs
    a row for each of them before. It carries no gradients.
    """

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self.length = 0  # tokens
        self._store: Tensor | None = None  # (room, 2 * layers, rows, heads, head_dim)
        self._spare: Tensor | None = None  # of any size, flat
        self._writers: Tensor | None = None  # (tokens, rows): the row that each was appended in; equal ones are copies

    @property
    def contents(self) -> Tensor | None:
        """Keys and values of all tokens so far, (tokens, 2 * layers, rows, heads, head_dim), a view; None while there are none."""
        return None if self._store is None or not self.length else self._store[: self.length]

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of all tokens so far and of new ones, (rows, new tokens, heads, head_dim) each -> (rows, tokens, ...).

        Every layer takes its turn; `advance` counts the new tokens when all are done.
        """
        end = self.length + key.shape[1]
        if self._store is None or end > len(self._store):
            self._make_room(end, key)
        assert self._store is not None
        for place, part in ((2 * layer, key), (2 * layer + 1, value)):
            self._store[self.length : end, place] = part.detach().transpose(0, 1)
        used = self._store[:end]
        return used[:, 2 * layer].transpose(0, 1), used[:, 2 * layer + 1].transpose(0, 1)

    def advance(self, tokens: int) -> None:
        """Count tokens that every layer has appended."""
        self.length += tokens
        assert self._store is not None
        fresh = torch.arange(self._store.shape[2], device=self._store.device).expand(tokens, -1)
        self._writers = fresh if self._writers is None else torch.cat([self._writers, fresh])

    def reorder(self, rows: Tensor) -> "KeyValueCache":
        """Keep these rows (indices), in this order; a row may come several times."""
        if self._store is None:
            return self
        room, parts, before, *sizes = self._store.shape
        if len(rows) == before:
            self._exchange(rows)
            return self
        self._writers = None if self._writers is None else self._writers[:, rows]
        shape = (room, parts, len(rows), *sizes)
        target = self._take(shape, self._store)
        torch.index_select(self._store[: self.length], 2, rows, out=target[: self.length])
        self._spare, self._store = self._store.flatten(), target
        return self

    def _exchange(self, rows: Tensor) -> None:
        """Let every row hold what another one of ``rows`` does, as far as it does not yet."""
        if self._writers is None or self._store is None:
            return
        wanted = self._writers[:, rows]
        changes = wanted != self._writers
        tokens, places = changes.any(1).nonzero()[:, 0], changes.any(0).nonzero()[:, 0]
        if not len(tokens):
            return
        first = int(tokens[0])
        moved = self._store[first : self.length].index_select(2, rows[places])
        self._store[first : self.length].index_copy_(2, places, moved)
        self._writers = wanted

    def _make_room(self, tokens: int, like: Tensor) -> None:
        room = TOKENS if self._store is None else 2 * len(self._store)
        rows, _, *sizes = like.shape
        grown = like.new_empty((max(room, tokens), 2 * self.layers, rows, *sizes))
        if self._store is not None:
            grown[: self.length] = self._store[: self.length]
        self._store, self._spare = grown, None

    def _take(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A buffer of this shape, from the spare one if that is large enough."""
        size = torch.Size(shape).numel()
        if self._spare is None or len(self._spare) < size:
            self._spare = like.new_empty(size)
        return self._spare[:size].view(shape)
