"""A model that is used whole to write down what it hears: its own encoder, and its own decoder, CTC or transducer (SpeechT5, SpeechLM,
SpeechUT, MMSpeech, MT2KD).

What is unusual here:
- Its ids are those of a dictionary with more symbols behind: a hole (``<mask>``) and, in SpeechT5, CTC's blank, which is the last one. No
  text holds either, so no search writes them. A vocabulary of SentencePiece may end in front of them.
- Without other settings it is searched as by its official code: SpeechT5 by an attention beam over at most 620 tokens, however long the
  clip is, the others as the ``search`` of their configuration says.

Source: SpeechT5 (arXiv 2110.07205, section 4.1) and its sequence generator; SpeechLM (arXiv 2209.15329).
"""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.decoding.search import Heads, check_heads
from avtlm.decoding.settings import DecodingConfig
from avtlm.text.vocabulary import EOS, Tokenizer
from avtlm.transcriber import Transcriber

LONGEST = 620.0  # tokens


class TextConfig(Protocol):
    """What has to be known of the symbols of such a model: how many ids there are, and which are no text."""

    @property
    def vocabulary(self) -> int: ...
    @property
    def further_symbols(self) -> tuple[str, ...]: ...
    @property
    def mask_id(self) -> int | None: ...
    @property
    def blank(self) -> int: ...
    @property
    def ctc_head(self) -> str:
        """``none`` without CTC."""
        ...


class WritesText(Protocol):
    """A system with an encoder and, over the same symbols of text, a decoder of its own (None without), CTC, or a transducer."""

    config: Any  # a TextConfig
    decoder: Any

    @property
    def input_format(self) -> InputFormat: ...
    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]: ...
    def ctc_logits(self, encoded: Tensor) -> Tensor: ...


def official_decoding() -> DecodingConfig:
    """The search of SpeechT5's code, with fairseq's beam."""
    return DecodingConfig("attention", beam=5, max_length_ratio=0.0, max_length_extra=LONGEST)


class WholeModel(Transcriber):
    """A whole model as a recogniser.

    Args:
        model: a `WritesText`.
        vocabulary: its symbols, all of them or without the further ones behind those of texts.
        decoding: how texts are searched for by default; see `official_decoding`.

    Raises:
        ValueError: a vocabulary of another size, or a search that the model has no head for.
    """

    def __init__(self, model: nn.Module, vocabulary: Tokenizer, decoding: DecodingConfig | None = None) -> None:
        whole: WritesText = model  # type: ignore[assignment]
        config: TextConfig = whole.config
        further = () if config.mask_id is None else tuple(config.further_symbols)
        if len(vocabulary) not in (config.vocabulary, config.vocabulary - len(further)):
            last = f", the last of them {' and '.join(further)}" if further else ""
            raise ValueError(
                f"the vocabulary has {len(vocabulary)} symbols, but the model knows {config.vocabulary}{last}; they do not belong together."
            )
        super().__init__(vocabulary, whole.input_format)
        self.model = model
        search = getattr(whole.config, "search", None)
        self._decoding = decoding or (official_decoding() if search is None else DecodingConfig(**search))
        heads = (config.ctc_head != "none", whole.decoder is not None, getattr(model, "transducer", None) is not None)
        check_heads(self._decoding, *heads, " was asked for, but this model has no {}")

    @property
    def decoding(self) -> DecodingConfig:
        """That of the model folder, or the official one."""
        return self._decoding

    @property
    def heads(self) -> Heads:
        """The model's own decoder, CTC and transducer, those that it has."""
        whole: WritesText = self.model  # type: ignore[assignment]
        config: TextConfig = whole.config
        ctc = None if config.ctc_head == "none" else whole.ctc_logits
        never = tuple(index for index in (config.mask_id, config.blank) if index is not None)
        start, transducer = getattr(config, "start", EOS), getattr(self.model, "transducer", None)
        frames, stride = getattr(self.model, "ctc_frames", None), getattr(self.model, "ctc_stride", 1)
        return Heads(whole.decoder, ctc, self.vocabulary, transducer, config.blank, never, config.vocabulary, start, frames, stride)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the decoder attends to: the encoder's output, see Transcriber.encode, or what the model makes of it (``remember``)."""
        hear: Callable[[Batch], tuple[Tensor, Tensor]] = getattr(self.model, "remember", None) or self.model.encode  # type: ignore[assignment]
        return hear(batch)
