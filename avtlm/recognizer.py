"""A speech recogniser: any pre-trained encoder with a CTC head, an attention decoder, or both.

What is unusual here:
- One recogniser serves audio, lip video and both: rows lose a modality at random in training, and at test time a missing one is simply not
  given.
- Light span masks on the inputs regularise fine-tuning on little data (as wav2vec 2.0, section 3.2, does on its features).

Sources: AV-HuBERT section 4 and arXiv 2201.01763 (decoder fine-tuning), VATLM section IV (the same).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.ctc_prefix import ctc_beam
from avtlm.decoding.greedy import ctc_greedy
from avtlm.decoding.lexicon import LexiconOptions
from avtlm.decoding.rescoring import rescore_with_ctc
from avtlm.decoding.result import Hypothesis, Transcript, transcript
from avtlm.decoding.word_search import WordSearch
from avtlm.frontends.fusion import keep_modalities
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.transformer import Decoder, DecoderConfig
from avtlm.objectives.ctc import ctc_loss
from avtlm.objectives.loss import Loss
from avtlm.objectives.masking import SpanMaskConfig, imposters, span_mask
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right
from avtlm.protocols import DropsHeads
from avtlm.text.vocabulary import EOS, PAD, Tokenizer


@dataclass(frozen=True)
class DecodingConfig:
    """How transcripts are searched for; travels with the checkpoint.

    Attributes:
        ctc_weight: rank the hypotheses that the attention decoder ends with by this share of CTC (see avtlm.decoding.rescoring); 0 leaves
            its own ranking.
        max_length_ratio, max_length_extra: an attention decoder writes at most int(ratio * frames + extra) tokens.
        official_length_limit: take for the frames what AV-HuBERT's and VATLM's generators take: the width of the audio features (104)
            where there is audio, and the longest clip of the batch for video alone.
        lexicon: for ``ctc_lexicon``: file with a word, a tab and its letters, then ``|``, in every line. A path of a file in the model's
            folder, or any other.
        language_model: n-grams over these words in ARPA format; without them any word may follow any other. As ``lexicon``.
        lm_weight, word_score, silence_score, threshold: of ``ctc_lexicon``; see avtlm.decoding.lexicon. Published for 4-grams of
            LibriSpeech: beam 1500, lm_weight 2, word_score -1.
    """

    method: Literal["ctc_greedy", "ctc_beam", "ctc_lexicon", "attention"] = "ctc_greedy"
    beam: int = 10
    length_penalty: float = 1.0
    ctc_weight: float = 0.0
    max_length_ratio: float = 1.0
    max_length_extra: float = 0.0
    official_length_limit: bool = False
    lexicon: str | None = None
    language_model: str | None = None
    lm_weight: float = 2.0
    word_score: float = -1.0
    silence_score: float = 0.0
    threshold: float = 50.0

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise ValueError(f"beam: {self.beam}; give at least 1.")
        if (self.method == "ctc_lexicon") != (self.lexicon is not None):
            raise ValueError(f"lexicon: {self.lexicon or 'none'} for {self.method}; a lexicon and the method ctc_lexicon belong together.")
        if self.language_model is not None and self.lexicon is None:
            raise ValueError(f"language_model: {self.language_model} for {self.method}; only ctc_lexicon takes one; set lexicon as well.")
        if self.threshold <= 0:
            raise ValueError(f"threshold: {self.threshold}; give a number above 0.")
        if not 0.0 <= self.ctc_weight <= 1.0 or (self.ctc_weight and self.method != "attention"):
            raise ValueError(f"ctc_weight: {self.ctc_weight} for {self.method}; give a share from 0 to 1, above 0 for attention only.")


@dataclass(frozen=True)
class RecognizerConfig:
    """Heads and fine-tuning behaviour; ``encoder`` is the configuration of the encoder's system.

    Attributes:
        freeze_encoder_steps: train the heads alone for so many steps.
        audio_mask, video_mask: spans hidden in training: of inputs, or behind the front-end of an encoder of waveforms.
        channel_mask: spans of channels set to zero behind that front-end.
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
    decoding: DecodingConfig = field(default_factory=DecodingConfig)

    def __post_init__(self) -> None:
        if not 0.0 <= self.ctc_weight <= 1.0:
            raise ValueError(f"ctc_weight: {self.ctc_weight} is not between 0 (attention only) and 1 (CTC only).")
        if self.ctc_weight < 1.0 and self.decoder is None:
            raise ValueError(
                f"ctc_weight: {self.ctc_weight} leaves the rest to an attention decoder, but decoder is null; describe one or set 1.0."
            )
        if self.decoding.method == "attention" and self.decoder is None:
            raise ValueError("decoding.method: attention needs a decoder; describe one or choose ctc_greedy or ctc_beam.")
        if self.decoding.method != "attention" and self.ctc_weight == 0.0:
            raise ValueError(f"decoding.method: {self.decoding.method} needs a CTC head; set ctc_weight above 0 or choose attention.")
        if self.decoding.ctc_weight and self.ctc_weight == 0.0:
            raise ValueError(f"decoding.ctc_weight: {self.decoding.ctc_weight} needs a CTC head; set ctc_weight above 0 as well.")


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
        self.step = 0
        # How the lips it was trained on were aligned (avtlm.lips.align); a model folder notes it.
        self.geometry = "avhubert"
        # The model folder, in which files for decoding may lie.
        self.folder: Path | None = None
        self._word_searches: dict[DecodingConfig, WordSearch] = {}
        if self.ctc is not None:
            nn.init.normal_(self.ctc.weight, 0.0, 0.02)
            nn.init.zeros_(self.ctc.bias)

    # Training ------------------------------------------------------------------------------------------------------------------------

    def start_step(self, step: int, steps: int) -> None:
        """Note the step, by which the encoder is frozen or not."""
        del steps
        self.step = step

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """CTC and attention losses over ``tokens``, weighted into one."""
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
        """The n best token sequences of every row, best first. The batch is on the model's device and holds what may be used."""
        decoding = decoding or self.config.decoding
        encoded, lengths = self.encoder.encode(batch)  # type: ignore[operator]
        if decoding.method == "attention":
            if self.decoder is None:
                raise ValueError("decoding.method: attention was asked for, but this model has no decoder; choose ctc_greedy or ctc_beam.")
            found = attention_beam(self.decoder, encoded, lengths, self.beam_options(batch, decoding))
            if decoding.ctc_weight:
                if self.ctc is None:
                    raise ValueError(f"decoding.ctc_weight: {decoding.ctc_weight}, but this model has no CTC head; set it to 0.")
                found = rescore_with_ctc(found, self.ctc(encoded).float().log_softmax(-1), lengths, decoding.ctc_weight)
            return found
        if self.ctc is None:
            raise ValueError(f"decoding.method: {decoding.method} was asked for, but this model has no CTC head; choose attention.")
        log_probs = self.ctc(encoded).float().log_softmax(-1)
        if decoding.method == "ctc_beam":
            return ctc_beam(log_probs, lengths, beam=decoding.beam)
        if decoding.method == "ctc_lexicon":
            return self.word_search(decoding)(log_probs, lengths)
        return [[best] for best in ctc_greedy(log_probs, lengths)]

    def word_search(self, decoding: DecodingConfig) -> WordSearch:
        """The search of ``ctc_lexicon``; its files are read once.

        Raises:
            ValueError: a file is missing or damaged, or does not fit this model.
        """
        if decoding not in self._word_searches:
            assert decoding.lexicon is not None
            weights = (decoding.lm_weight, decoding.word_score, decoding.silence_score)
            options = LexiconOptions(decoding.beam, decoding.threshold, *weights)
            model = None if decoding.language_model is None else self._file(decoding.language_model)
            self._word_searches[decoding] = WordSearch.open(self._file(decoding.lexicon), model, options, self.vocabulary)
        return self._word_searches[decoding]

    def _file(self, name: str) -> Path:
        """A file in the model's folder, or where the name says."""
        own = None if self.folder is None else self.folder / name
        return own if own is not None and own.is_file() else Path(name)

    def beam_options(self, batch: Batch, decoding: DecodingConfig) -> BeamOptions:
        """How the attention decoder searches, and up to which length."""
        assert self.decoder is not None
        ratio, extra = decoding.max_length_ratio, decoding.max_length_extra
        if decoding.official_length_limit:
            size = batch.audio.shape[2] if batch.audio is not None else batch.video.shape[1] if batch.video is not None else 0
            ratio, extra = 0.0, int(ratio * size + extra)
        most = self.decoder.config.max_positions - 1
        kept = decoding.beam if decoding.ctc_weight else 1
        return BeamOptions(decoding.beam, kept, decoding.length_penalty, max_len_a=ratio, max_len_b=extra, max_len=most)

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
    for batch in batches:
        seen = batch if modality is None else batch.only(modality)
        for name, result in zip(batch.ids, model.transcribe_batch(seen), strict=True):
            texts[name] = result.text
    model.train(training)
    return texts
