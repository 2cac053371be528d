"""Speech step by step out of a decoder that writes spectrograms (SpeechT5, section 4.2), for a whole batch at once.

What is unusual here:
- Dropout before the decoder stays on. Every utterance draws it from a generator of its own, so that what is said does not depend on the
  batch, and a seed repeats it.
- A step writes several frames, each with a probability that speech ends with it. Two rules say when it does: ``any`` of them reaches the
  threshold (the official code), or their ``sum`` does (Hugging Face).
- Speech that does not end is cut at a multiple of what was read, and marked as such.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from avtlm.nn.spectrogram import SpectrogramHead, SpectrogramPrenet

LONGEST_OF_TEXT, LONGEST_OF_SPEECH = 20.0, 10.0  # steps x reduction for each symbol or frame that was read, in the official code


class Synthesizer(Protocol):
    """A model that writes spectrograms; its decoder is over vectors (avtlm.nn.transformer.DecoderStack)."""

    decoder: Any
    speech_prenet: SpectrogramPrenet | None
    spectrogram: SpectrogramHead | None


@dataclass(frozen=True)
class SynthesisOptions:
    """When speech ends.

    Attributes:
        threshold: of the probability that it does.
        stop: see the module's docstring.
        longest: at most so many frames for each symbol or frame that was read.
        shortest: at least so many.
    """

    threshold: float = 0.5
    stop: Literal["any", "sum"] = "any"
    longest: float = LONGEST_OF_TEXT
    shortest: float = 0.0

    def __post_init__(self) -> None:
        if not self.threshold > 0.0 or not 0.0 <= self.shortest <= self.longest or self.stop not in ("any", "sum"):
            raise ValueError(
                f"synthesis: threshold {self.threshold}, stop {self.stop!r}, shortest {self.shortest}, longest {self.longest}; give a "
                "threshold above 0, any or sum, and 0 <= shortest <= longest."
            )


@dataclass(frozen=True)
class Speech:
    """One utterance that was synthesised.

    Attributes:
        mel: (frames, bands), refined.
        stop: probability that speech ends with each frame, (frames,).
        attention: where each step looked, (layers, heads, steps, symbols or frames that were read).
        cut: it did not end by itself.
    """

    mel: Tensor
    stop: Tensor
    attention: Tensor
    cut: bool


@torch.no_grad()
def synthesize(
    model: Synthesizer,
    encoded: Tensor,
    lengths: Tensor,
    voice: Tensor | None,
    generators: Sequence[torch.Generator] = (),
    options: SynthesisOptions | None = None,
    keep: Tensor | None = None,
) -> list[Speech]:
    """Write speech for every row.

    Args:
        model: in evaluation mode.
        encoded: (batch, symbols or frames, dim), the encoder's output.
        lengths: valid ones of each row, (batch,), all above 0.
        voice: (batch, voice_dim).
        generators: CPU ones, one for each row, for the dropout before the decoder.
        keep: what dropout keeps instead, bool (steps, layers, batch, width); steps beyond it keep what its last one does.

    Raises:
        ValueError: a row without anything to say, neither generators nor ``keep`` for all rows, or a voice that does not fit.
    """
    options = options or SynthesisOptions()
    prenet, head = model.speech_prenet, model.spectrogram
    if prenet is None or head is None or not isinstance(model, nn.Module):
        raise ValueError("synthesis: this model writes no speech; take one that was trained to, such as SpeechT5 fine-tuned for synthesis.")
    if keep is None and len(generators) != len(encoded):
        raise ValueError(f"synthesis: {len(generators)} generators for {len(encoded)} utterances; give each its own.")
    if bool((lengths < 1).any()):
        raise ValueError(f"synthesis: utterance {int((lengths < 1).nonzero()[0])} has nothing to say; leave empty texts out.")
    reduction, device = head.config.reduction, encoded.device
    most = [max(1, int(length * options.longest / reduction)) for length in lengths.tolist()]
    least = [int(length * options.shortest / reduction) for length in lengths.tolist()]
    memory, cache = model.decoder.project_memory(encoded, lengths), model.decoder.initial_state(len(encoded))
    frame = encoded.new_zeros(len(encoded), 1, head.config.bands)
    frames: list[Tensor] = []
    stops: list[Tensor] = []
    looks: list[Tensor] = []
    ends: list[int | None] = [None] * len(encoded)
    cut = [False] * len(encoded)
    while None in ends:
        step = len(frames)
        if keep is not None:
            kept = keep[min(step, len(keep) - 1)][:, :, None]
        else:
            kept = torch.cat([prenet.draw(1, 1, generator) for generator in generators], 1)
        weights: list[Tensor] = []
        x = model.decoder.decode(prenet(frame, voice, step, kept.to(device)), memory, cache, weights=weights)
        written, stop = head.write(x)
        frames.append(written)
        stops.append(stop.sigmoid())
        looks.append(torch.stack(weights, 1))
        frame = written[:, -1:]
        over = stops[-1] >= options.threshold if options.stop == "any" else stops[-1].sum(1, keepdim=True) >= options.threshold
        for row, ended in enumerate(over.any(1).tolist()):
            if ends[row] is None and (ended or step + 1 >= most[row]) and step + 1 >= least[row]:
                ends[row], cut[row] = step + 1, not ended
    mel, probability, look = torch.cat(frames, 1), torch.cat(stops, 1), torch.cat(looks, 3)
    found = []
    for row, end in enumerate(ends):
        assert end is not None
        refined = head.refine(mel[row : row + 1, : end * reduction])[0]
        attention = look[row, :, :, :end, : int(lengths[row])]
        found.append(Speech(refined, probability[row, : end * reduction], attention, cut[row]))
    return found
