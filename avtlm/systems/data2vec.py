"""data2vec for speech: predict what a slowly following teacher makes of the unmasked clip (Baevski et al., arXiv 2202.03555).

What is unusual here:
- The teacher is a moving average of the encoder alone (objectives/regression.py); it hears the student's own features, unmasked and without
  dropout. It is part of the model's weights, so that a resumed run goes on with it. A whole teacher (``teacher.whole``) hears the waveform.
- It moves at the start of a step, on the student of the step before, as the official code's does; without accumulation there is no
  difference to moving after each update.
- Training stops when targets or predictions collapse to a constant (the official guard).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.frontends.multimodal import InputMask
from avtlm.frontends.waveform import WaveformConfig, WaveformFrontEnd
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.loss import Loss
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.objectives.regression import TargetConfig, Teacher, TeacherConfig, regression_loss
from avtlm.systems.speech_encoder import Heard, SpeechEncoder, SpeechEncoderConfig

GUARDED_FROM, GUARDED_EVERY = 5000, 100


@dataclass(frozen=True)
class Data2VecConfig(SpeechEncoderConfig):
    """The defaults are data2vec base (93,754,880 parameters without the teacher).

    Attributes:
        beta: 0 for squared errors, above it of a smooth L1 loss.
        loss_scale: factor on the regression loss; null takes 1 / sqrt(dim).
        min_target_spread, min_prediction_spread: training stops below these, from update 5000 on.
    """

    waveform: WaveformConfig = field(default_factory=lambda: WaveformConfig(norm="layer", normalise=True, dropout=0.0))
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(norm_first=False, position_kernel=95, position_blocks=5))
    mask: SpanMaskConfig = field(default_factory=lambda: SpanMaskConfig(prob=0.65, min_spans=1))
    feature_gradient_scale: float = 1.0
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    targets: TargetConfig = field(default_factory=TargetConfig)
    beta: float = 0.0
    loss_scale: float | None = None
    min_target_spread: float = 0.1
    min_prediction_spread: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targets.layers > self.encoder.layers:
            raise ValueError(f"targets.layers: {self.targets.layers} of {self.encoder.layers} layers; choose at most as many.")
        if self.targets.over_padding and not self.encoder.compute_padding:
            raise ValueError("targets.over_padding: counts padded frames, which only an encoder with compute_padding computes; set both.")


class Data2Vec(SpeechEncoder):
    """Speech encoder with a teacher of its own."""

    config: Data2VecConfig

    def __init__(self, config: Data2VecConfig) -> None:
        super().__init__(config)
        self.regress: nn.Linear | None = nn.Linear(config.encoder.dim, config.encoder.dim)
        self.teacher: Teacher | None = None
        self.make_teacher()
        self._spreads: dict[str, Tensor] = {}

    def make_teacher(self) -> None:
        """A copy of the student as it is, or of its encoder."""
        names = [name for name, _ in self.named_children() if name != "teacher"]
        self.teacher = Teacher(self, (*names, "feature_mask") if self.config.teacher.whole else ("encoder",))

    def drop_heads(self) -> None:
        """Remove the teacher and the head."""
        self.regress = self.teacher = None

    def start_step(self, step: int, steps: int) -> None:
        """Move the teacher (section 3.2), and look now and then whether anything is still learned.

        Raises:
            FloatingPointError: targets or predictions have become constant.
        """
        if self.teacher is not None:
            self.teacher.follow(self, self.config.teacher.decay_at(step, steps), self.config.teacher.copy_positions)
        if step > GUARDED_FROM and step % GUARDED_EVERY == 0:
            config = self.config
            for name, least in (("target_spread", config.min_target_spread), ("prediction_spread", config.min_prediction_spread)):
                if name in self._spreads and self._spreads[name].item() < least:
                    raise FloatingPointError(
                        f"step {step}: {name} is {self._spreads[name].item():.4g}, below {least:g}: training has collapsed; lower optim.lr."
                    )

    # Losses (sections 3.2 and 3.3) ---------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Regression of the teacher's targets at hidden frames."""
        return self.masked_losses(batch, self.draw_masks(batch, generator))

    def masked_losses(self, batch: Batch, mask: InputMask) -> dict[str, Loss]:
        """The same with given masks, so that a stored case can be replayed."""
        heard, hidden, encoded = self.see(batch, mask)
        loss = self.regression(batch, heard, hidden, encoded)
        loss.logs["masked_loss"] = loss.logs["regression_loss"]
        return {"regression": loss}

    def see(self, batch: Batch, mask: InputMask) -> tuple[Heard, Tensor, Tensor]:
        """The front-end's answer, which frames are in the loss, bool (batch, frames), and the student's last layer at them (n, dim)."""
        heard = self.hear(batch)
        hidden = self.hidden_frames(heard, mask)
        return heard, hidden, self.encoder(self.hide(heard.projected, mask), heard.lengths)[hidden]

    def targets(self, batch: Batch, heard: Heard) -> Tensor:
        """What the teacher makes of the unmasked clips: (batch, frames, dim), float32."""
        assert self.teacher is not None, "a model without its teacher cannot be trained further"
        projected = heard.projected
        if self.config.teacher.whole:
            assert batch.audio is not None
            assert batch.audio_lengths is not None
            with torch.no_grad():
                frontend: WaveformFrontEnd = self.teacher.frontend  # type: ignore[assignment]
                projected = frontend(frontend.convolve(batch.audio, batch.audio_lengths))[1]
        return self.teacher.targets(projected, heard.lengths, self.config.targets)

    def regression(self, batch: Batch, heard: Heard, hidden: Tensor, encoded: Tensor) -> Loss:
        """The loss of the student's hidden frames (n, dim) against the teacher."""
        config = self.config
        assert self.regress is not None, "a model without its head cannot be trained further"
        targets = self.targets(batch, heard)[hidden]
        loss = regression_loss(self.regress(encoded), targets, config.beta, config.loss_scale)
        self._spreads = {name: loss.logs[name][0] for name in ("target_spread", "prediction_spread")}
        return loss
