"""Which documents hold a spoken query (QbE)? Nothing is learned: queries are aligned with documents by dynamic time warping.

Features have mean 0 and variance 1 over all queries and documents. The distance of two frames is exp(1 - cosine) - 1; each query frame's
distances to a document are brought to 0-1. A path takes every query frame once and moves by 0, 1 or 2 frames in the document, begins and
ends anywhere in it (dtw-python's ``asymmetric`` steps, ``open_begin``, ``open_end``); a document's score is minus its cost by query
frame. Scores have mean 0 and variance 1 over the documents of a query. The layer with the best MTWV on dev is measured on test. Source:
s3prl, downstream/quesst14_dtw; MTWV: term_value.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from avtlm.data.batching import pad
from avtlm.evaluation.superb.cache import Piece, States
from avtlm.evaluation.superb.data import Clip, CorpusError
from avtlm.evaluation.superb.task import Metric, Outcome, Search, TaskConfig
from avtlm.evaluation.superb.term_value import FALSE_ALARM_COST, MISS_COST, TARGET_PROB, term_weighted_value
from avtlm.nn.attention import padding_mask
from avtlm.training.progress import bar

MTWV = Metric("MTWV", unit="", digits=4)
SPLITS = ("dev", "test")


@dataclass(frozen=True)
class SearchConfig(TaskConfig):
    """Of the settings of training none matters here.

    Attributes:
        least_frames: shorter queries find nothing.
        threshold: standard deviations above which a document is said to hold a query (the actual TWV; MTWV needs none).
        target_prob, miss_cost, false_alarm_cost: of MTWV; those of QUESST 2014.
        documents: that are aligned at once.
    """

    least_frames: int = 5
    threshold: float = 2.0
    target_prob: float = TARGET_PROB
    miss_cost: float = MISS_COST
    false_alarm_cost: float = FALSE_ALARM_COST
    documents: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.target_prob < 1 or self.miss_cost <= 0 or self.documents < 1:
            raise ValueError("target_prob lies between 0 and 1, miss_cost is above 0, and documents at least 1.")


def frame_distances(query: Tensor, documents: Tensor, lengths: Tensor) -> Tensor:
    """Distances of frames, brought to 0-1 over the frames of a document.

    Args:
        query: (query frames, width). documents: (documents, frames, width) of the given lengths (documents,).

    Returns:
        (documents, query frames, frames); infinite behind the lengths.
    """
    normed = torch.nn.functional.normalize
    cosines = torch.einsum("qw,dfw->dqf", normed(query, dim=-1, eps=1e-9), normed(documents, dim=-1, eps=1e-9))
    padding = padding_mask(lengths, documents.shape[1])[:, None]
    distances = (1.0 - cosines).exp() - 1.0
    lowest = distances.masked_fill(padding, torch.inf).amin(2, keepdim=True)
    highest = distances.masked_fill(padding, -torch.inf).amax(2, keepdim=True)
    return ((distances - lowest) / (highest - lowest).clamp(min=1e-9)).masked_fill(padding, torch.inf)


def subsequence_cost(distances: Tensor) -> Tensor:
    """The cheapest path by query frame, (documents, query frames, frames) -> (documents,).

    A path has one document frame for every query frame, each 0, 1 or 2 behind the last one.
    """
    costs = distances[:, 0]
    for row in range(1, distances.shape[1]):
        one = torch.nn.functional.pad(costs, (1, 0), value=torch.inf)[:, :-1]
        two = torch.nn.functional.pad(costs, (2, 0), value=torch.inf)[:, : costs.shape[1]]
        costs = distances[:, row] + torch.minimum(costs, torch.minimum(one, two))
    return costs.amin(1) / distances.shape[1]


class SpokenTermDetection(Search[SearchConfig]):
    """QbE."""

    metrics: ClassVar[tuple[Metric, ...]] = (MTWV,)

    def run(self, states: States) -> Outcome:
        queries, documents = self.corpus.split("queries"), self.corpus.split("documents")
        by_split = {split: [clip for clip in queries if clip.fields.get("split") == split] for split in SPLITS}
        odd = next((clip for clip in queries if clip.fields.get("split") not in SPLITS), None)
        if odd is not None:
            raise odd.wrong("split", "dev or test")
        empty = next((split for split in SPLITS if not by_split[split]), None)
        if empty is not None:
            raise CorpusError(f"{self.corpus.folder / 'queries.jsonl'}: no query has the split {empty}; QbE needs some of dev and of test.")
        relevant = {split: self._relevant(by_split[split], documents, split) for split in SPLITS}
        states.prepare([*queries, *documents])
        layers = states.upstream.layers
        found = [self._measure(states, layer, by_split["dev"], documents, relevant["dev"]) for layer in range(layers)]
        best = max(range(layers), key=lambda layer: (found[layer]["MTWV"], -layer))
        metrics = self._measure(states, best, by_split["test"], documents, relevant["test"])
        weights = tuple(float(layer == best) for layer in range(layers))
        details = {"layer": best, "dev by layer": [each["MTWV"] for each in found]}
        return Outcome(self.corpus.task, self.corpus.name, metrics, found[best], weights, details)

    def _relevant(self, queries: Sequence[Clip], documents: Sequence[Clip], split: str) -> np.ndarray:
        """Which documents hold which queries, bool (queries, documents)."""
        rows = {clip.id: row for row, clip in enumerate(queries)}
        columns = {clip.id: column for column, clip in enumerate(documents)}
        found = np.zeros((len(rows), len(columns)), dtype=bool)
        for place, row in self.corpus.rows("relevance"):
            if row.get("split") != split:
                continue
            query, document = row.get("query"), row.get("document")
            if query not in rows or document not in columns:
                lacking = f"query {query!r} of {split}" if query not in rows else f"document {document!r}"
                raise CorpusError(f"{place}: there is no {lacking}; add it to its file.")
            found[rows[query], columns[document]] = True
        return found

    @torch.no_grad()
    def _measure(
        self, states: States, layer: int, queries: Sequence[Clip], documents: Sequence[Clip], relevant: np.ndarray
    ) -> dict[str, float]:
        heard = [states.of([Piece(clip)])[0][:, layer].double() for clip in queries]
        searched = [states.of([Piece(clip)])[0][:, layer].double() for clip in documents]
        frames = torch.cat([*heard, *searched])
        mean, deviation = frames.mean(0), frames.std(0).clamp(min=1e-9)
        heard, searched = [(each - mean) / deviation for each in heard], [(each - mean) / deviation for each in searched]
        config, scores = self.config, np.zeros((len(queries), len(documents)))
        order = sorted(range(len(documents)), key=lambda place: len(searched[place]))
        with bar(f"QbE {states.upstream.name}, layer {layer}", len(order)) as progress:
            for start in range(0, len(order), config.documents):
                places = order[start : start + config.documents]
                padded, lengths = pad([searched[place] for place in places])
                for row, query in enumerate(heard):
                    if len(query) >= config.least_frames:
                        scores[row, places] = -subsequence_cost(frame_distances(query, padded, lengths)).numpy()
                progress.advance(len(places))
        deviations = np.maximum(scores.std(axis=1, keepdims=True), 1e-9)
        scores = (scores - scores.mean(axis=1, keepdims=True)) / deviations
        value = term_weighted_value(scores, relevant, config.threshold, config.target_prob, config.miss_cost, config.false_alarm_cost)
        return {MTWV.name: value.most, "TWV": value.actual}
