"""What is exported of a model that writes text: one graph for each thing that a search asks of it.

    encoder       sound, lips or both -> frames, and how many are valid; a model of lips and sound has three of them, ``encoder_av``,
                  ``encoder_a`` and ``encoder_v``
    ctc           frames -> logits of symbols
    memory        frames -> keys and values that the decoder attends to, of all layers
    step          the last token of every hypothesis, keys and values of those before -> logits of the next one, its keys and values
    look          whole texts -> where the decoder looked in the frames (times of words without CTC), and its logits
    predict       the last label of every hypothesis -> what a transducer expects next, and the labels that it goes by
    join          frames and expectations -> logits of symbols

What is unusual here:
- A graph knows no sizes but those of the model: utterances, frames, hypotheses and tokens are free. Where eager code leaves padding out,
  a graph computes it and sets it to zero; what a clip gives is the same.
- A modality that a whole batch lacks has a graph of its own; one that single rows lack has length 0 there.
- Systems that compute filter banks of waveforms by themselves are exported from these on (avtlm.protocols.ComputesFeatures): features are
  computed by the same code as ever, and have no weights.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from avtlm.data.batching import Batch
from avtlm.export.decoder import Look, Memorise, Step
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.nn.attention import padding_mask
from avtlm.protocols import ComputesFeatures
from avtlm.recognizer import Recognizer
from avtlm.transcriber import Transcriber
from avtlm.whole_model import WholeModel

Sizes = Mapping[str, int]
# At which a graph is traced, and others at which it has to agree. No two are alike, so that none is taken for another, and none is 0 or 1,
# which the tracer would take for a constant.
TRACED: Sizes = {"utterances": 2, "frames": 23, "hypotheses": 3, "past": 5, "tokens": 7, "rows": 4}
CHECKED: tuple[Sizes, ...] = (
    {"utterances": 1, "frames": 61, "hypotheses": 1, "past": 0, "tokens": 1, "rows": 1},
    {"utterances": 3, "frames": 37, "hypotheses": 5, "past": 17, "tokens": 12, "rows": 9},
    {"utterances": 5, "frames": 14, "hypotheses": 2, "past": 1, "tokens": 4, "rows": 2},
)


@dataclass(frozen=True)
class Part:
    """One graph.

    Attributes:
        module: takes tensors, gives a tuple of tensors.
        inputs: names, and for each the names of those dimensions that vary, by their number.
        outputs: names.
        make: inputs of some sizes, from a generator.
        valid: leaves of outputs what means something; the rest is padding.
    """

    name: str
    module: nn.Module
    inputs: Mapping[str, Mapping[int, str]]
    outputs: tuple[str, ...]
    make: Callable[[Sizes, torch.Generator], tuple[Tensor, ...]]
    valid: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] = tuple


def parts_of(model: Transcriber) -> Iterator[Part]:
    """All graphs of a model in evaluation mode, on the CPU."""
    yield from _encoders(model)
    heads, width = model.heads, _width(model)
    if heads.ctc is not None:
        frames = {0: "utterances", 1: "frames"}
        yield Part("ctc", Logits(model), {"encoded": frames}, ("logits",), lambda sizes, draw: (_frames(sizes, width, draw),))
    if heads.decoder is not None:
        yield from _decoder(heads.decoder, width)
    if heads.transducer is not None:
        yield from _transducer(heads.transducer, width)


def for_export(model: Transcriber) -> Transcriber:
    """The model, changed so that its weights are what layers multiply with: norms of weights are computed once. It can learn no more."""
    for module in model.modules():
        for name in list(getattr(module, "parametrizations", {})):
            parametrize.remove_parametrizations(module, name)  # leaves the value
    return model.requires_grad_(False).eval()


def features_of(model: Transcriber) -> ComputesFeatures | None:
    """The system that computes features of its own, if it is one."""
    inner = model.encoder if isinstance(model, Recognizer) else model.model if isinstance(model, WholeModel) else None
    return inner if isinstance(inner, ComputesFeatures) else None


# Encoders ----------------------------------------------------------------------------------------------------------------------------


class Hear(nn.Module):
    """Sound alone, as features or a waveform."""

    def __init__(self, model: Transcriber) -> None:
        super().__init__()
        self.model = model

    def forward(self, audio: Tensor, audio_lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.encode(Batch(_IDS, "recognition", audio=audio, audio_lengths=audio_lengths))


class Watch(nn.Module):
    """Lips alone."""

    def __init__(self, model: Transcriber) -> None:
        super().__init__()
        self.model = model

    def forward(self, video: Tensor, video_lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.encode(Batch(_IDS, "recognition", video=video, video_lengths=video_lengths))


class HearAndWatch(nn.Module):
    """Both, in tensors of equally many frames."""

    def __init__(self, model: Transcriber) -> None:
        super().__init__()
        self.model = model

    def forward(self, audio: Tensor, audio_lengths: Tensor, video: Tensor, video_lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.encode(Batch(_IDS, "recognition", audio, audio_lengths, video, video_lengths))


class HearFeatures(nn.Module):
    """Features that the system computes by itself."""

    def __init__(self, system: Any) -> None:
        super().__init__()
        self.system = system

    def forward(self, features: Tensor, feature_lengths: Tensor) -> tuple[Tensor, Tensor]:
        encoded: tuple[Tensor, Tensor] = self.system.encode_features(features, feature_lengths)
        return encoded


class Logits(nn.Module):
    """CTC's."""

    def __init__(self, model: Transcriber) -> None:
        super().__init__()
        self.model = model

    def forward(self, encoded: Tensor) -> tuple[Tensor]:
        ctc = self.model.heads.ctc
        assert ctc is not None
        return (ctc(encoded),)


_IDS = ("one", "two")  # a batch has names, which no encoder looks at
_ENCODED = ("encoded", "lengths")


def _encoders(model: Transcriber) -> Iterator[Part]:
    inputs, system = model.inputs, features_of(model)
    rows, frames = {0: "utterances"}, {0: "utterances", 1: "frames"}
    if system is not None:

        def make_features(sizes: Sizes, draw: torch.Generator) -> tuple[Tensor, ...]:
            audio, lengths = _waves(sizes, draw)
            return system.features(Batch(("clip",) * len(audio), "recognition", audio=audio, audio_lengths=lengths))

        yield Part(
            "encoder", HearFeatures(system), {"features": frames, "feature_lengths": rows}, _ENCODED, make_features, _frames_of_clips
        )
        return
    if inputs.waveform:
        samples = {0: "utterances", 1: "samples"}
        yield Part("encoder", Hear(model), {"audio": samples, "audio_lengths": rows}, _ENCODED, _waves, _frames_of_clips)
        return
    encoder: Any = model.encoder
    size, width = inputs.video_size, int(encoder.config.frontends.audio_dim)

    def make_audio(sizes: Sizes, draw: torch.Generator) -> tuple[Tensor, ...]:
        return _frames(sizes, width, draw), _lengths(sizes, draw)

    def make_video(sizes: Sizes, draw: torch.Generator) -> tuple[Tensor, ...]:
        assert size is not None
        pictures = torch.randint(0, 256, (sizes["utterances"], sizes["frames"], size, size), generator=draw, dtype=torch.uint8)
        return pictures, _lengths(sizes, draw)

    def make_both(sizes: Sizes, draw: torch.Generator) -> tuple[Tensor, ...]:
        audio, heard, video, seen = *make_audio(sizes, draw), *make_video(sizes, draw)
        if len(heard) > 2:  # a row without sound, and one without lips
            heard[1] = 0
            seen[2] = 0
        return audio, heard, video, seen

    audio, video = {"audio": frames, "audio_lengths": rows}, {"video": frames, "video_lengths": rows}
    yield Part("encoder_a", Hear(model), audio, _ENCODED, make_audio, _frames_of_clips)
    if size is not None:
        yield Part("encoder_v", Watch(model), video, _ENCODED, make_video, _frames_of_clips)
        yield Part("encoder_av", HearAndWatch(model), {**audio, **video}, _ENCODED, make_both, _frames_of_clips)


def _frames_of_clips(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    encoded, lengths = outputs
    return encoded.masked_fill(padding_mask(lengths, encoded.shape[1])[..., None], 0.0), lengths


def _frames(sizes: Sizes, width: int, draw: torch.Generator) -> Tensor:
    return torch.randn(sizes["utterances"], sizes["frames"], width, generator=draw)


def _lengths(sizes: Sizes, draw: torch.Generator) -> Tensor:
    """Of clips, the longest of which is as long as the batch."""
    frames = sizes["frames"]
    lengths = torch.randint(min(frames, 2 + frames // 3), frames + 1, (sizes["utterances"],), generator=draw)
    lengths[0] = frames
    return lengths


def _waves(sizes: Sizes, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Waveforms of ``frames`` x 40 ms, and some samples more."""
    unit = SAMPLE_RATE // 25
    lengths = _lengths(sizes, draw) * unit + 13
    lengths = lengths.clamp(min=6 * unit)
    waves = 0.3 * torch.randn(sizes["utterances"], int(lengths.max()), generator=draw)
    return waves.masked_fill(padding_mask(lengths, waves.shape[1]), 0.0), lengths


def _width(model: Transcriber) -> int:
    """Of what the heads read."""
    draw = torch.Generator().manual_seed(0)
    first = next(_encoders(model))
    with torch.inference_mode():
        encoded: Tensor = first.module(*first.make({**TRACED, "utterances": 1}, draw))[0]
    return encoded.shape[2]


# Decoder, transducer -----------------------------------------------------------------------------------------------------------------


def _decoder(decoder: Any, width: int) -> Iterator[Part]:
    config = decoder.config
    heads, layers, vocabulary = config.heads, config.layers, len(decoder.embedding.weight)
    memorise = Memorise(decoder)
    yield Part(
        "memory",
        memorise,
        {"encoded": {0: "utterances", 1: "frames"}},
        ("memory",),
        lambda sizes, draw: (_frames(sizes, width, draw),),
    )

    def make_step(sizes: Sizes, draw: torch.Generator) -> tuple[Tensor, ...]:
        utterances, wide = sizes["utterances"], sizes["hypotheses"]
        tokens = torch.randint(0, vocabulary, (utterances, wide), generator=draw)
        shape = (sizes["past"], 2 * layers, utterances, wide, heads, config.dim // heads)
        with torch.inference_mode():
            memory = memorise(_frames(sizes, width, draw))[0]
        return tokens, torch.randn(shape, generator=draw), memory.clone(), _lengths(sizes, draw)

    axes = {
        "tokens": {0: "utterances", 1: "hypotheses"},
        "past": {0: "past", 2: "utterances", 3: "hypotheses"},
        "memory": {1: "utterances", 3: "frames"},
        "lengths": {0: "utterances"},
    }
    yield Part("step", Step(decoder), axes, ("logits", "new"), make_step)

    def make_look(sizes: Sizes, draw: torch.Generator) -> tuple[Tensor, ...]:
        tokens = torch.randint(0, vocabulary, (sizes["utterances"], sizes["tokens"]), generator=draw)
        return tokens, _frames(sizes, width, draw), _lengths(sizes, draw)

    axes = {
        "tokens": {0: "utterances", 1: "tokens"},
        "encoded": {0: "utterances", 1: "frames"},
        "lengths": {0: "utterances"},
    }
    yield Part("look", Look(decoder), axes, ("weights", "logits"), make_look)


class Predict(nn.Module):
    """A transducer's prediction network."""

    def __init__(self, transducer: Any) -> None:
        super().__init__()
        self.transducer = transducer

    def forward(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        predicted: tuple[Tensor, Tensor] = self.transducer.predict(tokens, state)
        return predicted


class Join(nn.Module):
    """A transducer's joiner."""

    def __init__(self, transducer: Any) -> None:
        super().__init__()
        self.transducer = transducer

    def forward(self, encoded: Tensor, predicted: Tensor) -> tuple[Tensor]:
        return (self.transducer.join(encoded, predicted),)


def _transducer(transducer: Any, width: int) -> Iterator[Part]:
    vocabulary, rows = len(transducer.embedding.weight), {0: "rows"}

    def make_labels(sizes: Sizes, draw: torch.Generator) -> tuple[Tensor, ...]:
        state: Tensor = transducer.initial_state(sizes["rows"])
        said = torch.randint(0, vocabulary, state.shape, generator=draw)
        some = torch.rand(len(state), 1, generator=draw) < 0.5  # the others are at their beginning
        return torch.randint(0, vocabulary, (sizes["rows"],), generator=draw), torch.where(some, said, state)

    def make_pairs(sizes: Sizes, draw: torch.Generator) -> tuple[Tensor, ...]:
        joint = transducer.config.joint_dim
        return torch.randn(sizes["rows"], width, generator=draw), torch.randn(sizes["rows"], joint, generator=draw)

    yield Part("predict", Predict(transducer), {"tokens": rows, "state": rows}, ("predicted", "new_state"), make_labels)
    yield Part("join", Join(transducer), {"encoded": rows, "predicted": rows}, ("logits",), make_pairs)
