"""Small decoders for tests of searches: tables, and one that truly attends to a memory of several lengths."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class TableMemory:
    tables: torch.Tensor  # (utterances, positions, previous, next): logits

    def select(self, rows):
        return TableMemory(self.tables[rows])


@dataclass
class Position:
    position: int = 0

    def reorder(self, rows):
        return self


class TableDecoder:
    """Logits looked up by the number of previous tokens and the last one; the "encoder's output" is the tables."""

    def project_memory(self, tables, lengths):
        return TableMemory(tables)

    def initial_state(self, batch):
        return Position()

    def step(self, tokens, memory, state):
        position = min(state.position, memory.tables.shape[1] - 1)
        rows = torch.arange(len(tokens)) // (len(tokens) // len(memory.tables))
        return memory.tables[rows, position, tokens], Position(state.position + 1)


class TableLanguageModel:
    def __init__(self, table):
        self.table = table

    def initial_state(self, batch):
        return Position()

    def step(self, tokens, state):
        return self.table[tokens].log_softmax(-1), Position(state.position + 1)


@dataclass
class AttendedMemory:
    keys: torch.Tensor
    lengths: torch.Tensor

    def select(self, rows):
        return AttendedMemory(self.keys[rows], self.lengths[rows])


@dataclass
class Hidden:
    hidden: torch.Tensor | None = None

    def reorder(self, rows):
        return Hidden(self.hidden[rows])


class AttendingDecoder(nn.Module):
    """A recurrent cell that attends to the valid frames of its row: a wrong row, order or padding changes its answers."""

    def __init__(self, symbols, dim=8, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embedding, self.cell, self.output = nn.Embedding(symbols, dim), nn.GRUCell(2 * dim, dim), nn.Linear(2 * dim, symbols)
            for parameter in self.parameters():
                parameter.data.mul_(3)
        self.double()

    def project_memory(self, encoded, lengths):
        return AttendedMemory(encoded.double(), lengths)

    def initial_state(self, batch):
        return Hidden()

    def step(self, tokens, memory, state):
        rows = torch.arange(len(tokens)) // (len(tokens) // len(memory.keys))
        keys, lengths = memory.keys[rows], memory.lengths[rows]
        hidden = torch.zeros(len(tokens), keys.shape[2], dtype=torch.double) if state.hidden is None else state.hidden
        scores = torch.einsum("nd,ntd->nt", hidden + self.embedding(tokens), keys)
        scores = scores.masked_fill(torch.arange(scores.shape[1]) >= lengths[:, None], float("-inf"))
        context = torch.einsum("nt,ntd->nd", scores.softmax(1), keys)
        hidden = self.cell(torch.cat([self.embedding(tokens), context], 1), hidden)
        return self.output(torch.cat([hidden, context], 1)), Hidden(hidden)
