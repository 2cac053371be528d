"""From batches to transcripts: what all models share that write down what they hear or see, whatever they are made of.

A model says how it hears (`Transcriber.encode`), what it writes with (`Transcriber.heads`) and how texts are searched for by default; the
searches, their files and the way to words and times are the same for all of them.
"""

import abc
import functools
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.decoding.beam import BeamOptions
from avtlm.decoding.result import Hypothesis, Transcript, transcript
from avtlm.decoding.search import Heads, Search
from avtlm.decoding.settings import DecodingConfig
from avtlm.text.vocabulary import Tokenizer

SEARCHES = 4  # of different settings that stay open; the oldest goes, with its language models


class Transcriber(nn.Module, abc.ABC):
    """A model that writes text.

    Args:
        vocabulary: symbols of the texts.
        inputs: what its batches hold.

    Attributes:
        geometry: how the lips it was trained on were aligned (avtlm.lips.align); a model folder notes it.
        folder: the model folder, in which files for decoding may lie.
    """

    def __init__(self, vocabulary: Tokenizer, inputs: InputFormat) -> None:
        super().__init__()
        self.vocabulary, self.inputs = vocabulary, inputs
        self.geometry = "avhubert"
        self.folder: Path | None = None
        self._searches: dict[tuple[str, str], Search] = {}

    @property
    @abc.abstractmethod
    def decoding(self) -> DecodingConfig:
        """How texts are searched for where nothing else is asked."""

    @property
    @abc.abstractmethod
    def heads(self) -> Heads:
        """What it writes with."""

    @abc.abstractmethod
    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the heads see: (batch, frames, dim), and the valid frames of each row (batch,)."""

    @torch.inference_mode()
    def search(self, batch: Batch, decoding: DecodingConfig | None = None) -> list[list[Hypothesis]]:
        """The n best hypotheses of every row, best first. The batch is on the model's device and holds what may be used.

        Raises:
            ValueError: settings or files that do not fit this model; see avtlm.decoding.search.
        """
        self.open_search(decoding or self.decoding)  # what does not fit is told before anything is computed
        return self.search_encoded(batch, *self.encode(batch), decoding)

    @torch.inference_mode()
    def search_encoded(
        self, batch: Batch, encoded: Tensor, lengths: Tensor, decoding: DecodingConfig | None = None
    ) -> list[list[Hypothesis]]:
        """`search` for those who look at what `encode` gave as well, so that nothing is encoded twice.

        Args:
            encoded, lengths: of `encode` for this batch.
        """
        decoding = decoding or self.decoding
        return self.open_search(decoding)(encoded, lengths, self._limit(batch, decoding))

    def open_search(self, decoding: DecodingConfig) -> Search:
        """The search that settings describe; its files are read once.

        Raises:
            ValueError: settings or files that do not fit this model; see avtlm.decoding.search.
        """
        device = next(self.parameters()).device
        key = (repr(decoding), str(device))
        if key not in self._searches:
            if len(self._searches) == SEARCHES:
                self._searches.pop(next(iter(self._searches)))
            with torch.inference_mode(False):  # a language model outlives the call that opens it
                self._searches[key] = Search(decoding, self.heads, self.folder, functools.partial(_open_language_model, device))
        return self._searches[key]

    def beam_options(self, batch: Batch, decoding: DecodingConfig) -> BeamOptions:
        """How the attention decoder searches, and up to which length."""
        return self.open_search(decoding).beam_options(self._limit(batch, decoding))

    def _limit(self, batch: Batch, decoding: DecodingConfig) -> tuple[float, float]:
        """How many tokens a frame, and how many more, a search token by token may write."""
        ratio, extra = decoding.max_length_ratio, decoding.max_length_extra
        if not decoding.official_length_limit:
            return ratio, extra
        if self.inputs.waveform:
            raise ValueError(
                "decoding.official_length_limit: AV-HuBERT and VATLM have such a limit, models of waveforms have none; set false."
            )
        size = batch.audio.shape[2] if batch.audio is not None else batch.video.shape[1] if batch.video is not None else 0
        return 0.0, int(ratio * size + extra)

    def transcribe_batch(self, batch: Batch, decoding: DecodingConfig | None = None) -> list[Transcript]:
        """Transcripts with words and times, one per row. The model must be in evaluation mode."""
        start = time.perf_counter()
        nbest = self.search(batch, decoding)
        seconds = time.perf_counter() - start
        frame = 1.0 / self.inputs.frame_rate
        return [transcript(hypotheses, self.vocabulary, frame, {"recognition": seconds / len(nbest)}) for hypotheses in nbest]


def _open_language_model(device: torch.device, folder: Path) -> tuple[nn.Module, Tokenizer]:
    """A language model on the device of a model that writes text, and its vocabulary."""
    from avtlm import systems  # which builds these models, too

    model, vocabulary = systems.load_language_model(folder)
    return systems.for_use(model, device), vocabulary
