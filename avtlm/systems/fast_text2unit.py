"""Units for text, all at once: SpeechLM's text-to-unit model, a FastSpeech 2 whose output are classes (arXiv 2209.15329, section III-B).

What is unusual here:
- It reads phones and their end symbol, foretells how many frames each lasts, stretches what it knows of each phone over them, and names a
  unit for every frame: units are not reduced.
- Its layers are FastSpeech's: self-attention, then two convolutions over time, normed behind each residual. Pitch and energy, which the
  official model keeps without use, there are none here.
- Sinusoids are weighed by one learned number before each of the two stacks.
- What a text gives does not depend on its batch. The official code lets convolutions see padding (``compute_padding``), leaves unit 1 out
  of the loss, as if it were padding (``ignored_unit``), and has outputs that no unit belongs to (``spare_outputs``).

Papers: Ren et al. 2021 (FastSpeech 2, arXiv 2006.04558); Zhang et al. 2022 (SpeechLM).
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.data.batching import Batch, fit
from avtlm.data.inputs import InputFormat
from avtlm.nn.attention import padding_mask
from avtlm.nn.dropout import Dropout
from avtlm.nn.norm import LayerNorm
from avtlm.nn.positions import SinusoidalPositions
from avtlm.nn.transformer import Attention
from avtlm.objectives.loss import Loss
from avtlm.objectives.seq2seq import seq2seq_loss
from avtlm.text.vocabulary import EOS, PAD
from avtlm.units.phonemes import PronunciationConfig

NO_UNIT = -1  # in targets, behind the end of a row
PHONES, FRAMES = 4, 16  # that lengths of batches are multiples of in generation


@dataclass(frozen=True)
class FastText2UnitConfig:
    """Sizes and regularisation; the defaults are those of the published small model.

    Attributes:
        vocabulary: phones, the special symbols among them; a training counts them.
        units: clusters, from 0.
        label_rate: units per second.
        layers: of the stack over phones; ``unit_layers`` of that over frames.
        heads: of the stack over phones; ``unit_heads`` of that over frames, 0 for as many.
        kernel: of the convolutions in both.
        duration_dim, duration_kernel, duration_dropout: of what foretells durations.
        duration_weight: of the error of their logarithms.
        spare_outputs: classes behind the units that are never learned.
        ignored_unit: a unit that the loss passes over; null for none.
        compute_padding: let convolutions see what padding holds.
        pronunciation: how words become the phones that it reads.
    """

    vocabulary: int = 0
    units: int = 500
    label_rate: float = 50.0
    dim: int = 256
    layers: int = 4
    unit_layers: int = 4
    heads: int = 2
    unit_heads: int = 0
    feed_forward_dim: int = 1024
    kernel: int = 9
    dropout: float = 0.1
    attention_dropout: float = 0.1
    duration_dim: int = 256
    duration_kernel: int = 3
    duration_dropout: float = 0.5
    duration_weight: float = 1.0
    label_smoothing: float = 0.1
    spare_outputs: int = 0
    ignored_unit: int | None = None
    compute_padding: bool = False
    pronunciation: PronunciationConfig = field(default_factory=PronunciationConfig)

    def __post_init__(self) -> None:
        if self.heads < 1 or self.unit_heads < 0 or self.dim % self.heads or self.dim % (self.unit_heads or 1) or self.dim % 2:
            heads = f"heads: {self.heads}, unit_heads: {self.unit_heads}"
            raise ValueError(f"dim: {self.dim}, {heads}; give an even dim that heads divide.")
        if self.layers < 1 or self.unit_layers < 1 or self.units < 1 or self.spare_outputs < 0 or self.label_rate <= 0:
            counts = f"layers: {self.layers}, unit_layers: {self.unit_layers}, units: {self.units}, spare_outputs: {self.spare_outputs}"
            raise ValueError(f"{counts}, label_rate: {self.label_rate}; give at least 1, 1, 1, 0, and a rate above 0.")
        for name in ("kernel", "duration_kernel"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f"{name}: {getattr(self, name)}; give an odd number, so that a convolution keeps the length.")
        for name in ("dropout", "attention_dropout", "duration_dropout", "label_smoothing"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name}: {getattr(self, name)} is not a probability; give a number from 0 up to, but not including, 1.")


class FeedForwardTransformerLayer(nn.Module):
    """Self-attention, then two convolutions over time, each around a residual and normed behind it (FastSpeech's FFT block)."""

    def __init__(self, config: FastText2UnitConfig, heads: int) -> None:
        super().__init__()
        self.self_attention = Attention(config.dim, heads, config.attention_dropout)
        self.self_attention_norm = LayerNorm(config.dim)
        self.expand = _convolution(config.dim, config.feed_forward_dim, config.kernel)
        self.contract = _convolution(config.feed_forward_dim, config.dim, config.kernel)
        self.convolution_norm = LayerNorm(config.dim)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, lengths: Tensor, hidden: Tensor | None) -> Tensor:
        """(batch, frames, dim) -> the same; convolutions see zeros where ``hidden`` (batch, frames, 1) is true."""
        x = self.self_attention_norm(x + self.self_attention(x, lengths=lengths))
        y = F.relu(_over_time(self.expand, x, hidden))
        return self.convolution_norm(x + self.dropout(_over_time(self.contract, y, hidden)))


class DurationPredictor(nn.Module):
    """Two convolutions over phones, each with ReLU and a norm, and a number for each phone: log(frames + 1)."""

    def __init__(self, config: FastText2UnitConfig) -> None:
        super().__init__()
        self.first = _convolution(config.dim, config.duration_dim, config.duration_kernel)
        self.first_norm = LayerNorm(config.duration_dim)
        self.second = _convolution(config.duration_dim, config.duration_dim, config.duration_kernel)
        self.second_norm = LayerNorm(config.duration_dim)
        self.project = nn.Linear(config.duration_dim, 1)
        self.dropout = Dropout(config.duration_dropout)

    def forward(self, x: Tensor, hidden: Tensor | None) -> Tensor:
        """(batch, phones, dim) -> (batch, phones)."""
        x = self.dropout(self.first_norm(F.relu(_over_time(self.first, x, hidden))))
        x = self.dropout(self.second_norm(F.relu(_over_time(self.second, x, hidden))))
        out: Tensor = self.project(x).squeeze(-1)
        return out


class FastText2Unit(nn.Module):
    """Phones to units.

    Initialisation (fairseq's FastSpeech 2): embeddings N(0, 1) with a zero row of padding, convolutions Xavier uniform with the gain of
    ReLU, projections of the attention Xavier uniform (query, key, value with gain 1/sqrt(2)), their biases as PyTorch's, the output's 0.
    """

    def __init__(self, config: FastText2UnitConfig) -> None:
        super().__init__()
        if config.vocabulary <= EOS:
            raise ValueError(f"vocabulary: {config.vocabulary} phones; a model folder and a training know how many there are.")
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.dim, padding_idx=PAD)
        self.positions = SinusoidalPositions(config.dim, offset=PAD + 1)
        self.position_scale = nn.Parameter(torch.ones(1))
        self.encoder = nn.ModuleList(FeedForwardTransformerLayer(config, config.heads) for _ in range(config.layers))
        self.durations = DurationPredictor(config)
        self.unit_position_scale = nn.Parameter(torch.ones(1))
        heads = config.unit_heads or config.heads
        self.unit_decoder = nn.ModuleList(FeedForwardTransformerLayer(config, heads) for _ in range(config.unit_layers))
        self.output = nn.Linear(config.dim, config.units + config.spare_outputs)
        self.dropout = Dropout(config.dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.xavier_uniform_(module.weight, nn.init.calculate_gain("relu"))
            elif isinstance(module, Attention):
                for part in (module.query, module.key, module.value):
                    nn.init.xavier_uniform_(part.weight, 2**-0.5)
                nn.init.xavier_uniform_(module.output.weight)
                nn.init.zeros_(module.output.bias)

    @property
    def input_format(self) -> InputFormat:
        """Neither sound nor picture; frames are those of the units."""
        rate = self.config.label_rate
        return InputFormat(video_size=None, label_rate=rate, frame_rate=rate, phone_durations=True)

    @property
    def inventory(self) -> dict[str, int]:
        """Units that are learned; phones are in the vocabulary."""
        return {"units": self.config.units, "phones": 0}

    # From phones to frames -----------------------------------------------------------------------------------------------------------

    def read(self, text: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        """Phones with their end symbol, int (batch, phones) padded with PAD -> (batch, phones, dim); every layer's output to ``kept``."""
        padding = text == PAD
        x = self.dropout(self.embedding(text) + self.position_scale * self._places(padding))
        return self._run(self.encoder, x, (~padding).sum(1), kept)

    def log_durations(self, states: Tensor, padding: Tensor) -> Tensor:
        """What is foretold of phones (batch, phones, dim): log(frames + 1), (batch, phones)."""
        out: Tensor = self.durations(states, None if self.config.compute_padding else padding[..., None])
        return out

    def stretch(self, states: Tensor, durations: Tensor, multiple: int = 1) -> tuple[Tensor, Tensor]:
        """Repeat states of phones (batch, phones, dim) for int ``durations`` (batch, phones): (batch, frames, dim) and lengths (batch,);
        the batch has a multiple of so many frames."""
        lengths = durations.sum(1)
        ends = durations.cumsum(1)
        frames = torch.arange(_filled_up(max(int(lengths.max()), 1), multiple), device=states.device)
        # A frame belongs to the first phone that ends behind it.
        owner = torch.searchsorted(ends, frames.expand(len(ends), -1).contiguous(), right=True).clamp(max=states.shape[1] - 1)
        out = states.gather(1, owner[..., None].expand(-1, -1, states.shape[2]))
        return out.masked_fill(padding_mask(lengths, len(frames))[..., None], 0.0), lengths

    def write(self, x: Tensor, lengths: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        """Stretched states (batch, frames, dim) -> logits (batch, frames, units and spare outputs)."""
        x = x + self.unit_position_scale * self._places(padding_mask(lengths, x.shape[1]))
        out: Tensor = self.output(self._run(self.unit_decoder, x, lengths, kept))
        return out

    def _places(self, padding: Tensor) -> Tensor:
        """Sinusoids (batch, length, dim), zeros at padding, which is always at the end."""
        vectors = self.positions(torch.arange(padding.shape[1], device=padding.device))
        return vectors * ~padding[..., None]

    def _run(self, layers: nn.ModuleList, x: Tensor, lengths: Tensor, kept: list[Tensor] | None) -> Tensor:
        hidden = None if self.config.compute_padding else padding_mask(lengths, x.shape[1])[..., None]
        for layer in layers:
            x = layer(x, lengths, hidden)
            if kept is not None:
                kept.append(x)
        return x

    # Training and use ----------------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Label-smoothed cross-entropy of the ``units`` of every frame, and the mean squared error of the phones' log durations, each a
        mean; true durations stretch the phones."""
        del generator  # nothing is drawn but dropout
        config, text = self.config, batch.text
        assert text is not None
        durations, units = batch.targets["durations"], batch.targets["units"]
        padding = text == PAD
        states = self.read(text)
        foretold = self.log_durations(states, padding)[~padding].float()
        logits = self.write(*self.stretch(states, durations))
        targets = units if config.ignored_unit is None else units.masked_fill(units == config.ignored_unit, NO_UNIT)
        loss = seq2seq_loss(logits, targets, NO_UNIT, config.label_smoothing)
        error = (foretold - torch.log1p(durations[~padding].float())).square().sum()
        phones = (~padding).sum()
        found = {"units": Loss(loss.value, loss.count, {"nll": loss.logs["nll"], "unit_accuracy": loss.logs["token_accuracy"]})}
        weighed = config.duration_weight * error * loss.count / phones
        found["durations"] = Loss(weighed, torch.zeros_like(loss.count), {"duration_error": (error.detach(), phones)})
        return found

    @torch.no_grad()
    def generate(self, text: Tensor) -> tuple[list[Tensor], Tensor]:
        """Units of phones with their end symbol, int (batch, phones) padded with PAD.

        Returns:
            The units of every row, int (frames,); and the durations of the phones, int (batch, phones).
        """
        # On a CPU a plan of every convolution stays in memory for each shape that it has had: a few lengths are used again and again.
        phones, frames = (1, 1) if self.config.compute_padding else (PHONES, FRAMES)
        given = text.shape[1]
        text = fit(text.T, _filled_up(given, phones), PAD).T
        padding = text == PAD
        states = self.read(text)
        foretold = self.log_durations(states, padding).float()
        durations = torch.round(torch.exp(foretold) - 1.0).long().clamp(min=0).masked_fill(padding, 0)
        x, lengths = self.stretch(states, durations, frames)
        units = self.write(x, lengths)[..., : self.config.units].argmax(-1)
        return [row[:length] for row, length in zip(units, lengths.tolist(), strict=True)], durations[:, :given]


def _filled_up(length: int, multiple: int) -> int:
    """The smallest multiple that is no shorter."""
    return -(-length // multiple) * multiple


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)


def _over_time(convolution: nn.Conv1d, x: Tensor, hidden: Tensor | None) -> Tensor:
    """A convolution of (batch, frames, channels) that sees zeros where ``hidden`` is true."""
    x = x if hidden is None else x.masked_fill(hidden, 0.0)
    out: Tensor = convolution(x.transpose(1, 2)).transpose(1, 2)
    return out
