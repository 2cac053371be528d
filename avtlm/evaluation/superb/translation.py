"""Translation (ST): a small Transformer reads the features and writes the text in another language (CoVoST 2, arXiv 2007.10310).

What is unusual here, as in s3prl's ``speech_translation``, which takes fairseq's ``s2t_transformer``:
- Two convolutions over time, each of which halves the frames, stand before three layers of encoder; three layers of decoder follow.
- Texts are written in characters (of SentencePiece there; here the same without its file), or in word pieces if ``pieces`` says how many.
- Batches hold so many frames, not so many clips; the loss is divided by sentences, the learning rate rises, then falls with the root of
  the updates.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from avtlm.data.seeds import seed_for
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.evaluation.bleu import corpus_bleu
from avtlm.evaluation.superb.data import Clip
from avtlm.evaluation.superb.task import Heard, Metric, Task, TaskConfig
from avtlm.nn.attention import padding_mask
from avtlm.nn.positions import SinusoidalPositions
from avtlm.nn.transformer import Decoder, DecoderConfig, Encoder, EncoderConfig
from avtlm.objectives.loss import Loss
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right
from avtlm.text.vocabulary import EOS, PAD, Tokenizer, Vocabulary

BLEU, CHRF = Metric("BLEU", ""), Metric("chrF2", "")
KERNEL, STRIDE, CONVOLUTIONS = 5, 2, 2


@dataclass(frozen=True)
class TranslationConfig(TaskConfig):
    """The Transformer, how it learns and how it writes.

    Attributes:
        batch: clips of a batch, at most; ``batch_frames`` limits them as well.
        batch_frames: frames of a batch, with padding.
        warmup: updates until the learning rate is reached.
        smoothing: of the labels.
        dim, layers, heads, feed_forward_dim, dropout: of encoder and decoder alike.
        channels: of the first convolution.
        pieces: word pieces of the target language; 0 writes characters.
        beam: hypotheses of the search.
        longest: tokens of a translation.
        tokenize: of the score; see avtlm.evaluation.bleu.
    """

    steps: int = 32_000
    batch: int = 512
    accumulation: int = 8
    lr: float = 1e-3
    clip_norm: float = 10.0
    evaluate_every: int | None = 2000
    batch_frames: int = 10_000
    warmup: int = 10_000
    smoothing: float = 0.1
    dim: int = 512
    layers: int = 3
    heads: int = 8
    feed_forward_dim: int = 2048
    dropout: float = 0.1
    channels: int = 1024
    pieces: int = 0
    beam: int = 20
    longest: int = 400
    tokenize: str = "13a"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("batch_frames", "warmup", "layers", "channels", "beam", "longest"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)}; give at least 1.")
        if not 0 <= self.smoothing < 1 or self.pieces < 0:
            raise ValueError(f"smoothing {self.smoothing}, pieces {self.pieces}; give 0 to below 1, and 0 (characters) or more.")


class Translator(nn.Module):
    """Convolutions, encoder and decoder.

    Initialisation: convolutions PyTorch's, the rest as transformer.py says.
    """

    def __init__(self, width: int, symbols: int, config: TranslationConfig) -> None:
        super().__init__()
        self.dim = config.dim
        ways = (width, config.channels // 2)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, 2 * after, KERNEL, STRIDE, padding=KERNEL // 2)
            for before, after in zip(ways, (config.channels // 2, config.dim), strict=True)
        )
        self.positions = SinusoidalPositions(config.dim)
        self.dropout = nn.Dropout(config.dropout)
        sizes: dict[str, Any] = {
            "dim": config.dim,
            "layers": config.layers,
            "heads": config.heads,
            "feed_forward_dim": config.feed_forward_dim,
        }
        drops: dict[str, Any] = {"dropout": config.dropout, "attention_dropout": config.dropout, "activation_dropout": config.dropout}
        self.encoder = Encoder(EncoderConfig(**sizes, **drops, activation="relu", layer_drop=0.0, position_kernel=0))
        self.decoder = Decoder(DecoderConfig(**sizes, **drops, scale_embedding=True, max_positions=config.longest + 2), symbols)

    def encode(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, width) of valid frames (batch,) -> (batch, a quarter of the frames, dim), and its valid frames."""
        x = features
        for convolution in self.convolutions:
            # What stands behind the end of a clip would be heard by the next convolution, and depend on the batch.
            x = x.masked_fill(padding_mask(lengths, x.shape[1])[..., None], 0.0)
            x = F.glu(convolution(x.transpose(1, 2)), dim=1).transpose(1, 2)
            lengths = torch.div(lengths - 1, STRIDE, rounding_mode="floor") + 1
        x = x * math.sqrt(self.dim) + self.positions(torch.arange(x.shape[1], device=x.device))
        out: Tensor = self.encoder(self.dropout(x), lengths)
        return out, lengths

    def forward(self, features: Tensor, lengths: Tensor, tokens: Tensor) -> Tensor:
        """Teacher forcing: tokens (batch, length) from the start symbol on -> logits (batch, length, symbols)."""
        logits: Tensor = self.decoder(tokens, *self.encode(features, lengths))
        return logits


class Translation(Task[TranslationConfig]):
    """ST."""

    metrics: ClassVar[tuple[Metric, ...]] = (BLEU, CHRF)

    @cached_property
    def vocabulary(self) -> Tokenizer:
        """Of the translations of training."""
        texts = [clip.text("translation") for clip in self.clips("train")]
        if not self.config.pieces:
            return Vocabulary.characters(texts)
        from avtlm.text.subwords import Subwords

        return Subwords.train(texts, self.config.pieces)

    def head(self, width: int, frame_rate: float) -> nn.Module:
        return Translator(width, len(self.vocabulary), self.config)

    def loss(self, head: nn.Module, heard: Heard, generator: torch.Generator) -> Loss:
        """Label-smoothed cross-entropy, a sum over tokens for each sentence."""
        del generator  # nothing is drawn but dropout
        targets = self._targets(heard.clips).to(heard.features.device)
        # Moving the end symbol to the front is how fairseq starts a sentence.
        logits = head(heard.features, heard.lengths, shift_right(targets, EOS, PAD))
        loss = seq2seq_loss(logits, targets, PAD, self.config.smoothing)
        return Loss(loss.value, torch.tensor(len(targets), device=targets.device), loss.logs)

    def evaluate(self, head: nn.Module, batches: Iterable[Heard], split: str) -> dict[str, float]:
        """BLEU with case, of detokenised texts."""
        assert isinstance(head, Translator)
        options = BeamOptions(beam=self.config.beam, max_len_a=0.0, max_len_b=self.config.longest)
        written, wanted = [], []
        for heard in batches:
            encoded, lengths = head.encode(heard.features, heard.lengths)
            for clip, found in zip(heard.clips, attention_beam(head.decoder, encoded, lengths, options), strict=True):
                written.append(self.vocabulary.decode(found[0].tokens))
                wanted.append(clip.text("translation"))
        score = corpus_bleu(written, [wanted], self.config.tokenize)
        return {BLEU.name: score.bleu, CHRF.name: score.chrf}

    def plan(self, frames: Sequence[int], epoch: int) -> list[list[int]]:
        """Clips of similar lengths in batches of at most so many frames with their padding, the batches in a drawn order."""
        generator = torch.Generator().manual_seed(seed_for(self.config.seed, "order", epoch))
        shuffled = torch.randperm(len(frames), generator=generator).tolist()
        batches: list[list[int]] = []
        for row in sorted(shuffled, key=lambda row: frames[row]):  # clips of the same length in the drawn order
            full = not batches or len(batches[-1]) == self.config.batch or frames[row] * (len(batches[-1]) + 1) > self.config.batch_frames
            if full:
                batches.append([])
            batches[-1].append(row)
        return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]

    def rate(self, step: int) -> float:
        """A straight rise, then the root of the warm-up over the updates."""
        return min((step + 1) / self.config.warmup, math.sqrt(self.config.warmup / (step + 1)))

    def _targets(self, clips: Sequence[Clip]) -> Tensor:
        """(batch, length), each ending with ``</s>``; longer texts are cut."""
        rows = [self.vocabulary.encode(clip.text("translation"))[: self.config.longest] for clip in clips]
        return pad_sequence([torch.tensor([*row, EOS]) for row in rows], batch_first=True, padding_value=PAD)
