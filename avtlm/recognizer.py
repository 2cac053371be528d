"""A speech recogniser: any pre-trained encoder with a CTC head, an attention decoder, or both, and maybe a transducer beside them.

What is unusual here:
- One recogniser serves audio, lip video and both: rows lose a modality at random in training, and at test time a missing one is simply not
  given.
- Light span masks on the inputs regularise fine-tuning on little data (as wav2vec 2.0, section 3.2, does on its features).

Sources: AV-HuBERT section 4 and arXiv 2201.01763 (decoder fine-tuning), VATLM section IV (the same).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.decoding.search import Heads, check_heads
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
from avtlm.transcriber import Transcriber


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


class Recognizer(Transcriber):
    """Encoder, heads and vocabulary.

    Args:
        config: heads and behaviour.
        encoder: a system with ``encode(batch, mask=, keep=)`` (see VATLM), already built.
        vocabulary: symbols of the transcripts; CTC's blank is its symbol 0.
    """

    def __init__(self, config: RecognizerConfig, encoder: nn.Module, vocabulary: Tokenizer) -> None:
        # What an encoder learned its frames by has no part in recognition, nor has what only that looks at.
        if isinstance(encoder, DropsHeads):
            encoder.drop_heads()
        super().__init__(vocabulary, encoder.input_format)  # type: ignore[arg-type]
        self.config = config
        self.encoder = encoder
        if config.channel_mask.prob > 0 and not self.inputs.waveform:
            raise ValueError(f"channel_mask.prob: {config.channel_mask.prob}; only encoders of waveforms hide channels; set 0.")
        dim: int = encoder.dim  # type: ignore[assignment]
        self.dropout = nn.Dropout(config.dropout)
        self.ctc = nn.Linear(dim, len(vocabulary)) if config.ctc_weight > 0 else None
        self.decoder = Decoder(config.decoder, len(vocabulary), dim, PAD) if config.decoder is not None else None
        self.transducer = TransducerHead(config.transducer, len(vocabulary), dim) if config.transducer is not None else None
        self.step = 0
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

    @property
    def decoding(self) -> DecodingConfig:
        """That of the configuration."""
        return self.config.decoding

    @property
    def heads(self) -> Heads:
        """Whatever there is of CTC, decoder and transducer."""
        return Heads(self.decoder, self.ctc, self.vocabulary, self.transducer)

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The encoder's output, see Transcriber.encode."""
        encoded: tuple[Tensor, Tensor] = self.encoder.encode(batch)  # type: ignore[operator]
        return encoded


def transcribe_all(model: Transcriber, batches: Sequence[Batch], modality: str | None = None) -> dict[str, str]:
    """Text by utterance id from one modality or whatever there is (None), with the model in evaluation mode while this runs."""
    training = model.training
    model.eval()
    texts = {}
    decoding = replace(model.decoding, words=False)
    for batch in batches:
        seen = batch if modality is None else batch.only(modality)
        for name, result in zip(batch.ids, model.transcribe_batch(seen, decoding), strict=True):
            texts[name] = result.text
    model.train(training)
    return texts
