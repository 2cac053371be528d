"""A speech recogniser: any pre-trained encoder with a CTC head, an attention decoder, or both, and maybe a transducer beside them.

What is unusual here:
- One recogniser serves audio, lip video and both: rows lose a modality at random in training, and at test time a missing one is simply not
  given.
- Light span masks on the inputs regularise fine-tuning on little data (as wav2vec 2.0, section 3.2, does on its features).

Sources: AV-HuBERT section 4 and arXiv 2201.01763 (decoder fine-tuning), VATLM section IV (the same).
"""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.decoding.beam import BeamOptions
from avtlm.decoding.result import Hypothesis, Transcript, transcript
from avtlm.decoding.search import Heads, Search, check_heads
from avtlm.decoding.settings import DecodingConfig
from avtlm.frontends.fusion import keep_modalities
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.transducer import TransducerConfig, TransducerHead
from avtlm.nn.transformer import Decoder, DecoderConfig
from avtlm.objectives.ctc import ctc_loss
from avtlm.objectives.loss import Loss
from avtlm.objectives.masking import SpanMaskConfig, imposters, span_mask
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right
from avtlm.objectives.transducer import transducer_loss
from avtlm.protocols import DropsHeads
from avtlm.text.vocabulary import EOS, PAD, Tokenizer

SEARCHES = 4  # of different settings that stay open; the oldest goes, with its language models


@dataclass(frozen=True)
class RecognizerConfig:
    """Heads and fine-tuning behaviour; ``encoder`` is the configuration of the encoder's system.

    Attributes:
        freeze_encoder_steps: train the heads alone for so many steps.
        audio_mask, video_mask: spans hidden in training: of inputs, or behind the front-end of an encoder of waveforms.
        channel_mask: spans of channels set to zero behind that front-end.
        transducer: a further head, with its share of the loss; ``ctc_weight`` divides what is left.
    """

    encoder: dict[str, Any] = field(default_factory=dict)
    ctc_weight: float = 1.0
    decoder: DecoderConfig | None = None
    label_smoothing: float = 0.1
    dropout: float = 0.1
    freeze_encoder_steps: int = 0
    modality_dropout: float = 0.5
    audio_dropout: float = 0.5
    audio_mask: SpanMaskConfig = field(default_factory=lambda: SpanMaskConfig(prob=0.0))
    video_mask: SpanMaskConfig = field(default_factory=lambda: SpanMaskConfig(prob=0.0))
    channel_mask: SpanMaskConfig = field(default_factory=lambda: SpanMaskConfig(prob=0.0, length=64, min_spans=0))
    transducer: TransducerConfig | None = None
    decoding: DecodingConfig = field(default_factory=DecodingConfig)

    def __post_init__(self) -> None:
        if not 0.0 <= self.ctc_weight <= 1.0:
            raise ValueError(f"ctc_weight: {self.ctc_weight} is not between 0 (attention only) and 1 (CTC only).")
        if self.ctc_weight < 1.0 and self.decoder is None:
            raise ValueError(
                f"ctc_weight: {self.ctc_weight} leaves the rest to an attention decoder, but decoder is null; describe one or set 1.0."
            )
        check_heads(self.decoding, self.ctc_weight > 0, self.decoder is not None, self.transducer is not None)


class Recognizer(nn.Module):
    """Encoder, heads and vocabulary.

    Args:
        config: heads and behaviour.
        encoder: a system with ``encode(batch, mask=, keep=)`` (see VATLM), already built.
        vocabulary: symbols of the transcripts; CTC's blank is its symbol 0.
    """

    def __init__(self, config: RecognizerConfig, encoder: nn.Module, vocabulary: Tokenizer) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.vocabulary = vocabulary
        # What an encoder learned its frames by has no part in recognition.
        if isinstance(encoder, DropsHeads):
            encoder.drop_heads()
        self.inputs: InputFormat = encoder.input_format  # type: ignore[assignment]
        if config.channel_mask.prob > 0 and not self.inputs.waveform:
            raise ValueError(f"channel_mask.prob: {config.channel_mask.prob}; only encoders of waveforms hide channels; set 0.")
        dim: int = encoder.dim  # type: ignore[assignment]
        self.dropout = nn.Dropout(config.dropout)
        self.ctc = nn.Linear(dim, len(vocabulary)) if config.ctc_weight > 0 else None
        self.decoder = Decoder(config.decoder, len(vocabulary), dim, PAD) if config.decoder is not None else None
        self.transducer = TransducerHead(config.transducer, len(vocabulary), dim) if config.transducer is not None else None
        self.step = 0
        # How the lips it was trained on were aligned (avtlm.lips.align); a model folder notes it.
        self.geometry = "avhubert"
        # The model folder, in which files for decoding may lie.
        self.folder: Path | None = None
        self._searches: dict[tuple[str, str], Search] = {}
        if self.ctc is not None:
            nn.init.normal_(self.ctc.weight, 0.0, 0.02)
            nn.init.zeros_(self.ctc.bias)

    # Training ------------------------------------------------------------------------------------------------------------------------

    def start_step(self, step: int, steps: int) -> None:
        """Note the step, by which the encoder is frozen or not."""
        del steps
        self.step = step

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """CTC, attention and transducer losses over ``tokens``, weighted into one."""
        config = self.config
        mask = self._draw_masks(batch, generator)
        keep = keep_modalities(batch, config.modality_dropout, config.audio_dropout, generator)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.step >= config.freeze_encoder_steps):
            encoded, lengths = self.encoder.encode(batch, mask=mask, keep=keep)  # type: ignore[operator]
        tokens, token_lengths = batch.targets["tokens"], batch.target_lengths["tokens"]
        parts: list[tuple[float, Loss]] = []
        if self.ctc is not None:
            parts.append((config.ctc_weight, ctc_loss(self.ctc(self.dropout(encoded)), lengths, tokens, token_lengths)))
        if self.decoder is not None:
            targets = self._with_end(tokens, token_lengths)
            logits = self.decoder(shift_right(targets, EOS, PAD), encoded, lengths)
            parts.append((1.0 - config.ctc_weight, seq2seq_loss(logits, targets, PAD, config.label_smoothing)))
        if self.transducer is not None and config.transducer is not None:
            logits = self.transducer(self.dropout(encoded), tokens.clamp(min=0))
            rest = 1.0 - config.transducer.weight
            parts = [(weight * rest, loss) for weight, loss in parts]
            parts.append((config.transducer.weight, transducer_loss(logits, lengths, tokens, token_lengths)))
        value = torch.stack([weight * loss.value / loss.count.clamp(min=1) for weight, loss in parts]).sum()
        count = parts[0][1].count
        return {"recognition": Loss(value * count, count, {k: v for _, loss in parts for k, v in loss.logs.items()})}

    def _with_end(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        targets = torch.cat([tokens, tokens.new_full((len(tokens), 1), PAD)], 1)
        return targets.scatter(1, lengths[:, None], EOS)

    def _draw_masks(self, batch: Batch, generator: torch.Generator) -> InputMask:
        if self.inputs.waveform:
            masks = (self.config.audio_mask, self.config.channel_mask)
            return self.encoder.draw_masks(batch, generator, *masks, same_count=False)  # type: ignore[operator]
        audio = video = source = None
        device = next(self.parameters()).device
        if batch.video is not None and batch.video_lengths is not None and self.config.video_mask.prob > 0:
            video = span_mask(batch.video_lengths.cpu(), batch.video.shape[1], self.config.video_mask, generator, same_count=False)
            source = imposters(video, generator, batch.video_lengths.cpu()).to(device)
        if batch.audio is not None and batch.audio_lengths is not None and self.config.audio_mask.prob > 0:
            audio = span_mask(batch.audio_lengths.cpu(), batch.audio.shape[1], self.config.audio_mask, generator, same_count=False).to(
                device
            )
        return InputMask(audio=audio, video=None if video is None else video.to(device), video_source=source)

    # Recognition ---------------------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def search(self, batch: Batch, decoding: DecodingConfig | None = None) -> list[list[Hypothesis]]:
        """The n best hypotheses of every row, best first. The batch is on the model's device and holds what may be used.

        Raises:
            ValueError: settings or files that do not fit this model; see avtlm.decoding.search.
        """
        decoding = decoding or self.config.decoding
        find = self.open_search(decoding)
        encoded, lengths = self.encoder.encode(batch)  # type: ignore[operator]
        return find(encoded, lengths, self._limit(batch, decoding))

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
            heads = Heads(self.decoder, self.ctc, self.vocabulary, self.transducer)
            with torch.inference_mode(False):  # a language model outlives the call that opens it
                self._searches[key] = Search(decoding, heads, self.folder, functools.partial(_open_language_model, device))
        return self._searches[key]

    def beam_options(self, batch: Batch, decoding: DecodingConfig) -> BeamOptions:
        """How the attention decoder searches, and up to which length."""
        return self.open_search(decoding).beam_options(self._limit(batch, decoding))

    def _limit(self, batch: Batch, decoding: DecodingConfig) -> tuple[float, float]:
        """How many tokens a frame, and how many more, a search token by token may write."""
        ratio, extra = decoding.max_length_ratio, decoding.max_length_extra
        if not decoding.official_length_limit:
            return ratio, extra
        size = batch.audio.shape[2] if batch.audio is not None else batch.video.shape[1] if batch.video is not None else 0
        return 0.0, int(ratio * size + extra)

    def transcribe_batch(self, batch: Batch, decoding: DecodingConfig | None = None) -> list[Transcript]:
        """Transcripts with words and times, one per row. The model must be in evaluation mode."""
        start = time.perf_counter()
        nbest = self.search(batch, decoding)
        seconds = time.perf_counter() - start
        frame = 1.0 / self.inputs.frame_rate
        return [transcript(hypotheses, self.vocabulary, frame, {"recognition": seconds / len(nbest)}) for hypotheses in nbest]


def transcribe_all(model: Recognizer, batches: Sequence[Batch], modality: str | None = None) -> dict[str, str]:
    """Text by utterance id from one modality or whatever there is (None), with the model in evaluation mode while this runs."""
    training = model.training
    model.eval()
    texts = {}
    decoding = replace(model.config.decoding, words=False)
    for batch in batches:
        seen = batch if modality is None else batch.only(modality)
        for name, result in zip(batch.ids, model.transcribe_batch(seen, decoding), strict=True):
            texts[name] = result.text
    model.train(training)
    return texts


def _open_language_model(device: torch.device, folder: Path) -> tuple[nn.Module, Tokenizer]:
    """A language model on the device of a recogniser, and its vocabulary."""
    from avtlm import systems  # which builds recognisers, too

    model, vocabulary = systems.load_language_model(folder)
    return model.to(device), vocabulary
