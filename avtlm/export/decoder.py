"""An attention decoder as three graphs: its memory, one step for all hypotheses, and where it looked.

What is unusual here:
- Keys and values of the memory lie in one tensor (2 x layers, utterances, heads, frames, head_dim), key and value of every layer by turns,
  those of tokens in another (tokens, 2 x layers, utterances, hypotheses, heads, head_dim), as avtlm.nn.cache lays them out. OFA's decoder
  (biased_decoder.py) has one more in its memory, the positions of the frames.
- A step gives only the keys and values of the new token; whoever runs it keeps them. Hypotheses of an utterance share its memory.
- Projected positions of OFA's decoder are numbers of the graph, computed once.
"""

from typing import Any

import torch
from torch import Tensor, nn

from avtlm.nn.biased_decoder import BiasedDecoder, Placed, PlacedMemory
from avtlm.nn.cache import KeyValueCache
from avtlm.nn.transformer import Decoder, Memory


class Memorise(nn.Module):
    """What the decoder attends to, projected once: (utterances, frames, dim) -> (2 x layers, utterances, heads, frames, head_dim)."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, encoded: Tensor) -> tuple[Tensor]:
        unused = torch.zeros(encoded.shape[:1], dtype=torch.long, device=encoded.device)
        memory = self.decoder.project_memory(encoded, unused)
        parts = [part for pair in zip(memory.keys, memory.values, strict=True) for part in pair]
        if isinstance(memory, PlacedMemory):
            parts.append(memory.places)
        return (torch.stack(parts).transpose(2, 3).contiguous(),)


class GivenPast(KeyValueCache):
    """A cache whose past is a tensor (tokens, 2 x layers, rows, heads, head_dim), and which keeps what is new apart."""

    def __init__(self, past: Tensor) -> None:
        super().__init__(past.shape[1] // 2)
        self.past, self.length = past, past.shape[0]
        self.new: list[Tensor] = []

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Past and new keys and values, (rows, tokens, heads, head_dim)."""
        self.new += [key, value]
        before = self.past[:, 2 * layer].transpose(0, 1), self.past[:, 2 * layer + 1].transpose(0, 1)
        return torch.cat([before[0], key], 1), torch.cat([before[1], value], 1)

    def advance(self, tokens: int) -> None:
        """Nothing: a graph is for one step."""


class Step(nn.Module):
    """One token for every hypothesis, see Decoder.step."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self.layers = decoder.config.layers
        self.places: nn.ParameterList | None = None
        if isinstance(decoder, BiasedDecoder):
            with torch.no_grad():
                placed = _all_places(decoder)
            self.places = nn.ParameterList(nn.Parameter(each, requires_grad=False) for each in placed)

    def forward(self, tokens: Tensor, past: Tensor, memory: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (utterances, hypotheses), past (tokens, 2 x layers, utterances, hypotheses, heads, head_dim), memory see Memorise, its
        lengths (utterances,) -> logits (utterances, hypotheses, vocabulary), and keys and values of the new token (2 x layers, utterances,
        hypotheses, heads, head_dim)."""
        for other, size in ((past.shape[2], 0), (past.shape[3], 1), (memory.shape[1], 0), (lengths.shape[0], 0)):
            torch._check(other == tokens.shape[size])  # the tracer would take them for different sizes at first
        cache = GivenPast(past.flatten(2, 3))
        logits, _ = self.decoder.step(tokens.flatten(), self._memory(memory.transpose(2, 3), lengths), cache)
        new = torch.stack(cache.new)[:, :, 0]  # (2 x layers, rows, heads, head_dim)
        return logits.unflatten(0, tokens.shape), new.unflatten(1, tokens.shape)

    def _memory(self, parts: Tensor, lengths: Tensor) -> Memory:
        keys, values = list(parts[0 : 2 * self.layers : 2]), list(parts[1 : 2 * self.layers : 2])
        if self.places is None:
            return Memory(keys, values, lengths)
        queries, known, looks = self.places
        return PlacedMemory(keys, values, lengths, parts[2 * self.layers], Placed(queries, known, looks))


class Look(nn.Module):
    """Where the decoder looks, see Decoder.look."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens: Tensor, encoded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        torch._check(encoded.shape[0] == tokens.shape[0])
        torch._check(lengths.shape[0] == tokens.shape[0])
        look: tuple[Tensor, Tensor] = self.decoder.look(tokens, encoded, lengths)
        return look


def _all_places(decoder: BiasedDecoder) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and looks of every position that there is, (positions, heads, head_dim) each."""
    placed = decoder.placed(len(decoder.places.weight))
    return placed.queries, placed.keys, placed.looks
