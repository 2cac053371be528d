"""wav2vec 2.0: find the quantised truth of a hidden frame among those of other hidden frames (Baevski et al., arXiv 2006.11477).

What is unusual here:
- Targets are the convolutions' frames, normed and unmasked, quantised into code vectors by a Gumbel softmax (section 2).
- Negatives of a frame come from other hidden frames of its own clip (section 3.2); from other clips, from all frames or from random codes
  as options of the official code.
- The diversity loss counts the probabilities before noise; the official one of Hugging Face counts chosen codes in evaluation.
- Frames of a padded row may be hidden in unequal numbers; the official code needs equal ones.
- The context may be made of quantised frames too (``input_quantizer``); they then stand in for the projection of the convolutions.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.quantize import GumbelQuantizer, Quantised, QuantizerConfig
from avtlm.objectives.contrastive import Candidates, contrastive_logits, contrastive_loss, draw_negatives
from avtlm.objectives.loss import Loss
from avtlm.systems.speech_encoder import Heard, SpeechEncoder, SpeechEncoderConfig


@dataclass(frozen=True)
class Wav2Vec2Config(SpeechEncoderConfig):
    """The defaults are wav2vec 2.0 base (95,044,608 parameters).

    Attributes:
        quantizer: null compares with the frames themselves.
        final_dim, temperature: width in which they are compared, and what divides the cosine.
        negatives, batch_negatives, code_negatives: of each hidden frame: from its clip, from the hidden frames of the whole batch, from
            random codes.
        negatives_from: whether those of its clip are other hidden frames or any others.
        target_glu: targets pass a gated linear layer before they are compared.
        target_dropout: of the frames that are quantised.
        diversity_weight, feature_penalty: of these losses, times the hidden frames. Diversity is that of the targets' codes, or of the
            inputs' where targets are not quantised.
        input_quantizer: quantises what the encoder sees; null shows it the frames themselves.
        shared_quantizer: inputs pass the targets' quantiser (and ``input_quantizer`` stays null).
        frame_multiple: leave out the last frames of a batch, so that it has a multiple of so many.
    """

    quantizer: QuantizerConfig | None = field(default_factory=QuantizerConfig)
    final_dim: int = 256
    temperature: float = 0.1
    negatives: int = 100
    batch_negatives: int = 0
    code_negatives: int = 0
    negatives_from: Literal["hidden", "all"] = "hidden"
    target_glu: bool = False
    target_dropout: float = 0.1
    diversity_weight: float = 0.1
    feature_penalty: float = 10.0
    input_quantizer: QuantizerConfig | None = None
    shared_quantizer: bool = False
    frame_multiple: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negatives + self.batch_negatives + self.code_negatives < 1:
            raise ValueError("negatives: there are none of any kind; give at least 1.")
        if self.code_negatives and self.quantizer is None:
            raise ValueError(f"code_negatives: {self.code_negatives}, but there are no codes without a quantizer; set 0.")
        if self.shared_quantizer and (self.quantizer is None or self.input_quantizer is not None):
            raise ValueError("shared_quantizer: inputs pass the targets' quantizer; give a quantizer and no input_quantizer.")
        if self.frame_multiple < 1:
            raise ValueError(f"frame_multiple: {self.frame_multiple}; give 1, which leaves all frames, or more.")


@dataclass(frozen=True)
class Negatives:
    """What hidden frames are compared with; frames are hidden ones row after row, or all of a batch, padding too (``negatives_from: all``).

    Attributes:
        frames: int (hidden frames, number), places among these frames.
        codes: int (hidden frames, number, groups), entries of random code vectors.
    """

    frames: Tensor | None = None
    codes: Tensor | None = None


class Wav2Vec2(SpeechEncoder):
    """Speech encoder with quantised targets."""

    config: Wav2Vec2Config

    def __init__(self, config: Wav2Vec2Config) -> None:
        super().__init__(config)
        width, final = config.waveform.widths[-1], config.final_dim
        self.quantizer = GumbelQuantizer(config.quantizer, width, final) if config.quantizer is not None else None
        self.project_target: nn.Linear | None = nn.Linear(width if self.quantizer is None else self.quantizer.dim, final)
        self.target_glu = nn.Linear(final, 2 * final) if config.target_glu else None
        self.project_context: nn.Linear | None = nn.Linear(config.encoder.dim, final)
        self.target_dropout = nn.Dropout(config.target_dropout)
        self.input_quantizer = self.quantizer if config.shared_quantizer else None
        if config.input_quantizer is not None:
            self.input_quantizer = GumbelQuantizer(config.input_quantizer, width, config.encoder.dim)
        self.project_input: nn.Linear | None = None
        if self.input_quantizer is not None:
            self.project_input = nn.Linear(self.input_quantizer.dim, config.encoder.dim)
            self.frontend.project = nn.Identity()

    def drop_heads(self) -> None:
        """Remove the targets' quantiser and the projections of targets and context."""
        self.quantizer = self.project_target = self.target_glu = self.project_context = None

    def start_step(self, step: int, steps: int) -> None:
        """Cool the quantisers down."""
        del steps
        for quantizer in (self.quantizer, self.input_quantizer):
            if quantizer is not None:
                quantizer.set_updates(step)

    def hear(self, batch: Batch, frames: int | None = None) -> Heard:
        """Run the front-end; inputs are quantised here, after their dropout, where they are to be."""
        heard = super().hear(batch, frames)
        kept = heard.normed.shape[1] // self.config.frame_multiple * self.config.frame_multiple
        heard = replace(heard, normed=heard.normed[:, :kept], projected=heard.projected[:, :kept], lengths=heard.lengths.clamp(max=kept))
        if self.input_quantizer is None or self.project_input is None:
            return heard
        counted = None if self.config.waveform.compute_padding else (~heard.padding).flatten()
        quantised = self.input_quantizer(self.frontend.dropout(heard.normed).flatten(0, 1), counted)
        return replace(heard, projected=self.project_input(quantised.vectors).unflatten(0, heard.normed.shape[:2]), quantised=quantised)

    def hide(self, projected: Tensor, mask: InputMask | None) -> Tensor:
        """As of every speech encoder; quantised inputs have had their dropout."""
        return super().hide(projected, mask) if self.input_quantizer is None else self.cover(projected, mask)

    # Losses (sections 3.2 and 3.3; the penalty is the official code's) ---------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Contrastive loss over hidden frames, the diversity of codes and the penalty on the size of the features."""
        mask = self.draw_masks(batch, generator)
        heard = self.hear(batch)
        return self.masked_losses(heard, mask, self.draw_negatives(heard, self.hidden_frames(heard, mask), generator))

    def draw_negatives(self, heard: Heard, hidden: Tensor, generator: torch.Generator) -> Negatives:
        """Negatives for the ``hidden`` frames (batch, frames), in the order in which the parts of the configuration name them."""
        config, width = self.config, hidden.shape[1]
        device, counts = hidden.device, hidden.sum(1).cpu()
        parts = []
        if config.negatives and config.negatives_from == "hidden":
            parts.append(draw_negatives(counts, config.negatives, generator))
        elif config.negatives:
            lengths = heard.lengths.cpu()
            row, own = torch.nonzero(hidden.cpu(), as_tuple=True)
            others = (lengths[row] - 1)[:, None]
            drawn = (torch.rand(len(row), config.negatives, generator=generator) * others).long().minimum((others - 1).clamp(min=0))
            parts.append(torch.minimum(drawn + (drawn >= own[:, None]), others) + width * row[:, None])
        if config.batch_negatives:
            drawn = draw_negatives(counts, config.batch_negatives, generator, from_batch=True)
            places = torch.nonzero(hidden.cpu().flatten()).flatten()
            parts.append(places[drawn] if config.negatives_from == "all" else drawn)
        codes = None
        if config.code_negatives:
            assert config.quantizer is not None
            size = (int(counts.sum()), config.code_negatives, config.quantizer.groups)
            codes = torch.randint(config.quantizer.entries, size, generator=generator).to(device)
        return Negatives(torch.cat(parts, 1).to(device) if parts else None, codes)

    def masked_losses(self, heard: Heard, mask: InputMask, negatives: Negatives) -> dict[str, Loss]:
        """The same with given masks and negatives, so that a stored case can be replayed."""
        config = self.config
        hidden = self.hidden_frames(heard, mask)
        encoded = self.encoder(self.hide(heard.projected, mask), heard.lengths)
        logits, quantised = self.compare(heard, encoded, hidden, negatives)
        loss = contrastive_loss(logits)
        loss.logs["masked_loss"] = (loss.value.detach(), loss.count)
        found = {"contrastive": loss}
        spread, sizes = (quantised, config.quantizer) if quantised is not None else (heard.quantised, config.input_quantizer)
        if spread is not None and sizes is not None:
            codes, zero = sizes.groups * sizes.entries, torch.zeros_like(loss.count)
            unused = (codes - spread.soft_perplexity) / codes
            logs = {"code_perplexity": (spread.hard_perplexity, zero + 1)}
            found["diversity"] = Loss(config.diversity_weight * unused * loss.count, zero, logs)
        found["feature_penalty"] = self.feature_penalty(heard, config.feature_penalty, loss.count)
        return found

    def compare(self, heard: Heard, encoded: Tensor, hidden: Tensor, negatives: Negatives) -> tuple[Tensor, Quantised | None]:
        """Logits of the hidden frames over the truth and their negatives (frames, 1 + negatives), and what was quantised for them."""
        assert self.project_target is not None
        assert self.project_context is not None
        everywhere = self.config.negatives_from == "all"
        frames = self.target_dropout(heard.normed)
        frames = frames.flatten(0, 1) if everywhere else frames[hidden]
        counted = (~heard.padding).flatten() if everywhere and not self.config.waveform.compute_padding else None
        quantised = None
        if self.quantizer is not None:
            quantised = self.quantizer(frames, counted)
            targets, kinds = quantised.vectors, self._kinds(quantised.codes)
        else:
            targets, kinds = frames, torch.unique(frames, dim=0, return_inverse=True)[1]
        places = torch.nonzero(hidden.flatten()).flatten() if everywhere else torch.arange(len(frames), device=frames.device)
        wrong = [] if negatives.frames is None else [negatives.frames]
        if negatives.codes is not None:
            assert self.quantizer is not None
            each = torch.arange(negatives.codes[..., 0].numel(), device=frames.device) + len(frames)
            wrong.append(each.view(negatives.codes.shape[:2]))
            random = negatives.codes.flatten(0, 1)
            targets, kinds = torch.cat([targets, self.quantizer.look_up(random)]), torch.cat([kinds, self._kinds(random)])
        vectors = self.project_target(targets)
        if self.target_glu is not None:
            vectors = F.glu(self.target_glu(vectors))
        candidates = Candidates(vectors, kinds, places, torch.cat(wrong, 1))
        return contrastive_logits(self.project_context(encoded[hidden]), candidates, self.config.temperature), quantised

    def _kinds(self, codes: Tensor) -> Tensor:
        """One number for each combination of entries, (n, groups) -> (n,)."""
        assert self.config.quantizer is not None
        kinds = torch.zeros_like(codes[:, 0])
        for group in codes.unbind(1):
            kinds = kinds * self.config.quantizer.entries + group
        return kinds
