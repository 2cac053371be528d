"""A model that was exported to ONNX, as a model that writes text: graphs compute, everything else is the code that serves all models.

What is unusual here:
- The model is built without weights from the settings that lie beside the graphs. It says what goes in, which symbols there are and how
  texts are searched for; filter banks are computed by it, too. So searches, times, confidences, long recordings and captions are the same.
- A graph is opened when it is first needed: who transcribes sound never loads the graphs that look at lips.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from avtlm import systems
from avtlm.checkpoint import CONFIG, DECODING, CheckpointError
from avtlm.data.batching import Batch
from avtlm.decoding.search import Heads
from avtlm.decoding.settings import DecodingConfig
from avtlm.export.folder import describe
from avtlm.export.onnx_files import Session, opened
from avtlm.export.parts import features_of
from avtlm.nn.cache import KeyValueCache
from avtlm.nn.transformer import DecoderConfig
from avtlm.plain_yaml import read_yaml
from avtlm.transcriber import Transcriber


def open_exported(folder: str | Path) -> "ExportedModel":
    """The model of a folder that `avtlm.export.write.export` has written, on the CPU.

    Raises:
        CheckpointError: a file is missing or damaged, or the graphs are programs of torch.export.
        ConfigError, VocabularyError: the settings describe something else.
    """
    folder = Path(folder)
    about = describe(folder)
    missing = [name for name in (CONFIG, *(graph["file"] for graph in about["graphs"].values())) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder}: {' and '.join(missing)} is missing; copy the whole folder again.")
    if about["format"] != "onnx":
        raise CheckpointError(
            f"{folder} holds programs of torch.export, which only PyTorch itself opens (torch.export.load); export the model with "
            "--format onnx."
        )
    decoding = read_yaml(folder / DECODING) if (folder / DECODING).exists() else {}
    outline: Transcriber = systems.outline(folder, read_yaml(folder / CONFIG), decoding)
    model = ExportedModel(outline, Graphs(folder, about["graphs"]), about["start"])
    model.folder = folder
    return model.eval()


class Graphs:
    """The graphs of a folder by name; each is opened when it is first run."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._folder, self._about = folder, about
        self._open: dict[str, Session] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._about

    def run(self, name: str, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Tensors in, tensors out.

        Raises:
            CheckpointError: the graph is damaged.
            MissingExtra: ONNX Runtime is not installed.
        """
        if name not in self._open:
            self._open[name] = opened(self._folder / self._about[name]["file"], self._about[name]["outputs"])
        return self._open[name](*inputs)


class ExportedModel(Transcriber):
    """See the module's docstring.

    Args:
        outline: the model without weights (avtlm.systems.outline).
        graphs: what computes.
        start: the labels that a transducer goes by before it has said any.
    """

    def __init__(self, outline: Transcriber, graphs: Graphs, start: list[int]) -> None:
        super().__init__(outline.vocabulary, outline.inputs)
        self.geometry = outline.geometry
        self.graphs = graphs
        self._settings, heads, system = outline.decoding, outline.heads, features_of(outline)
        self._compute_features = None if system is None else system.features
        self._heads = dataclasses.replace(
            heads,
            decoder=None if heads.decoder is None else ExportedDecoder(heads.decoder.config, graphs),
            ctc=None if heads.ctc is None else self._ctc,
            transducer=None if heads.transducer is None else ExportedTransducer(graphs, start),
        )
        # Batches go where a model's first parameter is; graphs run on the CPU.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    @property
    def decoding(self) -> DecodingConfig:
        """That of the model that was exported."""
        return self._settings

    @property
    def heads(self) -> Heads:
        """The graphs, as searches ask for them."""
        return self._heads

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See Transcriber.encode.

        Raises:
            ValueError: the batch holds nothing that this model takes.
        """
        if self._compute_features is not None:
            return self._run("encoder", *self._compute_features(batch))
        name = "".join(letter for letter, part in (("a", batch.audio), ("v", batch.video)) if part is not None)
        if self.inputs.waveform:
            name = "encoder" if batch.audio is not None else ""
        elif name:
            name = f"encoder_{name}"
        if name not in self.graphs:
            takes = "sound" if self.inputs.video_size is None else "sound or lips"
            raise ValueError(f"{batch.ids[0]}: there is nothing that this model takes in, which is {takes}.")
        audio, video = batch.audio, batch.video
        if audio is not None and video is not None and name != "encoder":
            frames = max(audio.shape[1], video.shape[1])
            audio = nn.functional.pad(audio, (0, 0, 0, frames - audio.shape[1]))
            video = nn.functional.pad(video, (0, 0, 0, 0, 0, frames - video.shape[1]))
        parts: list[Tensor | None] = [audio, batch.audio_lengths]
        if name != "encoder":
            parts += [video, batch.video_lengths]
        return self._run(name, *(part for part in parts if part is not None))

    def _run(self, name: str, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        encoded, lengths = self.graphs.run(name, *inputs)
        return encoded, lengths

    def _ctc(self, encoded: Tensor) -> Tensor:
        return self.graphs.run("ctc", encoded)[0]


@dataclass
class ExportedMemory:
    """What a decoder attends to: (2 x layers or one more, utterances, heads, frames, head_dim), of so many valid frames (utterances,)."""

    parts: Tensor
    lengths: Tensor

    def select(self, utterances: Tensor) -> "ExportedMemory":
        """Some of them again."""
        return ExportedMemory(self.parts[:, utterances], self.lengths[utterances])


class ExportedDecoder:
    """Meets the protocol of searches, avtlm.decoding.next_tokens.TextDecoder."""

    def __init__(self, config: DecoderConfig, graphs: Graphs) -> None:
        self.config, self._graphs = config, graphs

    def project_memory(self, encoded: Tensor, lengths: Tensor) -> ExportedMemory:
        """See StepDecoder."""
        return ExportedMemory(self._graphs.run("memory", encoded)[0], lengths)

    def initial_state(self, batch: int) -> KeyValueCache:
        """An empty cache."""
        del batch  # rows are counted by the first step's tokens
        return KeyValueCache(self.config.layers)

    def step(self, tokens: Tensor, memory: ExportedMemory, state: KeyValueCache) -> tuple[Tensor, KeyValueCache]:
        """tokens (rows,) -> logits (rows, vocabulary), and the grown cache; see Decoder.step."""
        config, utterances = self.config, len(memory.lengths)
        wide, past = len(tokens) // utterances, state.contents
        if past is None:
            past = torch.empty(0, 2 * config.layers, len(tokens), config.heads, config.dim // config.heads)
        inputs = tokens.view(utterances, wide), past.unflatten(2, (utterances, wide)), memory.parts, memory.lengths
        logits, new = self._graphs.run("step", *inputs)
        new = new.flatten(1, 2)[:, :, None]  # (2 x layers, rows, 1, heads, head_dim)
        for layer in range(config.layers):
            state.append(layer, new[2 * layer], new[2 * layer + 1])
        state.advance(1)
        return logits.flatten(0, 1), state

    def look(self, tokens: Tensor, encoded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See TextDecoder."""
        weights, logits = self._graphs.run("look", tokens, encoded, lengths)
        return weights, logits


class ExportedTransducer:
    """Meets the protocol of searches, avtlm.decoding.transducer.Transducer."""

    def __init__(self, graphs: Graphs, start: list[int]) -> None:
        self._graphs, self._start = graphs, torch.tensor(start)

    def initial_state(self, rows: int) -> Tensor:
        """The last labels of empty texts, (rows, context)."""
        return self._start.expand(rows, -1).clone()

    def predict(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """See Transducer."""
        predicted, new = self._graphs.run("predict", tokens, state)
        return predicted, new

    def join(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """See Transducer."""
        return self._graphs.run("join", encoded, predicted)[0]
