"""Speech step by step out of a decoder that writes spectrograms (SpeechT5, section 4.2), for a whole batch at once.

What is unusual here:
- Dropout before the decoder stays on. Every utterance draws it from a generator of its own, so that what is said does not depend on the
  batch, and a seed repeats it.
- A step writes several frames, each with a probability that speech ends with it. Two rules say when it does: ``any`` of them reaches the
  threshold (the official code), or their ``sum`` does (Hugging Face).
- Speech that does not end is cut at a multiple of what was read, and marked as such.
- Speech that is enhanced with the noisy spectrogram at hand (``spectrogram.reads``, ``writes``) has as many frames as that.
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
    """When speech ends, and how a text does.

    Attributes:
        threshold: of the probability that speech ends.
        stop: see the module's docstring.
        longest: at most so many frames for each symbol or frame that was read.
        shortest: at least so many.
        end_symbol: text that is read ends with </s>, as tokenizers of Hugging Face write it; the official code reads its symbols alone.
    """

    threshold: float = 0.5
    stop: Literal["any", "sum"] = "any"
    longest: float = LONGEST_OF_TEXT
    shortest: float = 0.0
    end_symbol: bool = False

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
        attention: where each step looked, (layers, heads, steps, symbols or frames that were read); without the heads if their mean was
            asked for, None if nothing was.
        cut: it did not end by itself.
    """

    mel: Tensor
    stop: Tensor
    attention: Tensor | None
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
    attention: Literal["heads", "mean", "none"] = "heads",
    source: Tensor | None = None,
    ends: Tensor | None = None,
) -> list[Speech]:
    """Write speech for every row. Rows that have ended are computed no further.

    Args:
        model: in evaluation mode.
        encoded: (batch, symbols or frames, dim), the encoder's output.
        lengths: valid ones of each row, (batch,), all above 0.
        voice: (batch, voice_dim).
        generators: CPU ones, one for each row, for the dropout before the decoder.
        keep: what dropout keeps instead, bool (steps, layers, batch, width); steps beyond it keep what its last one does.
        attention: keep where each head looked, the mean of each layer's heads, or nothing, which is faster.
        source, ends: frames of what is heard (batch, frames, bands), and how many of each row, for models that relate what they write to
            them; without them such a model goes on from its own frames and writes them as they are, as officially.

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
    read = lengths.tolist()
    most = [max(1, int(length * options.longest / reduction)) for length in read]
    least = [int(length * options.shortest / reduction) for length in read]
    if source is not None and ends is not None:
        most = least = ends.tolist()
    follows = source is not None and prenet.config.reads == "source"
    memory = model.decoder.project_memory(prenet.inform(encoded, voice), lengths).heads_first()
    cache = model.decoder.initial_state(len(encoded))
    frame = encoded.new_zeros(len(encoded), 1, head.config.bands)
    rows = list(range(len(encoded)))  # that still speak
    frames: list[list[Tensor]] = [[] for _ in rows]
    stops: list[list[Tensor]] = [[] for _ in rows]
    looks: list[list[Tensor]] = [[] for _ in rows]
    cut = [False] * len(rows)
    step = 0
    while rows:
        if keep is not None:
            kept = keep[min(step, len(keep) - 1)][:, rows, None]
        else:
            kept = torch.cat([prenet.draw(1, 1, generators[row]) for row in rows], 1)
        weights: list[Tensor] | None = None if attention == "none" else []
        heard = None if source is None else source[rows, step, None]
        if follows and heard is not None:
            frame = heard
        x = model.decoder.decode(prenet(frame, None if follows else voice, step, kept.to(device)), memory, cache, weights=weights)
        written, stop = head.write(x)
        probability = stop.sigmoid()
        frame, step = head.relate(written, heard)[:, -1:], step + 1
        over = probability >= options.threshold if options.stop == "any" else probability.sum(1, keepdim=True) >= options.threshold
        look = None if weights is None else torch.stack([each.mean(1) if attention == "mean" else each for each in weights], 1)
        left = []
        for place, (row, ended) in enumerate(zip(rows, over.any(1).tolist(), strict=True)):
            frames[row].append(written[place])
            stops[row].append(probability[place])
            if look is not None:
                looks[row].append(look[place, ..., : read[row]])
            if (ended or step >= most[row]) and step >= least[row]:
                cut[row] = not ended and source is None
            else:
                left.append(place)
        if len(left) < len(rows):
            rows, chosen = [rows[place] for place in left], torch.tensor(left, dtype=torch.long, device=device)
            frame, memory, voice = frame[chosen], memory.select(chosen), None if voice is None else voice[chosen]
            if rows:
                cache = cache.reorder(chosen)
    found = []
    for row, (mel, probabilities, seen) in enumerate(zip(frames, stops, looks, strict=True)):
        refined = head.refine(torch.cat(mel)[None])
        refined = head.relate(refined, None if source is None else source[row, None, : refined.shape[1]])[0]
        found.append(Speech(refined, torch.cat(probabilities), torch.cat(seen, -2) if seen else None, cut[row]))
    return found
