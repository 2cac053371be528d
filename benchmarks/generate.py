"""How fast does SpeechT5 write? Text by greedy search and by a beam, and speech, beside the classes of `transformers`.

    python -m benchmarks.generate [--json FILE] [--size base|tiny] [--threads 2] [--repeats 3] [--only text speech]

Both have the same random weights, by way of the folder that `avtlm convert --to huggingface` writes, and the same clips, texts and voices.
Lengths are forced, so that both write equally much; what they write is compared, and must be the same. Text is timed from the sound on,
encoder and all, and behind an encoder's output that both are given. Before the decoder of speech, both drop what a stored mask says, since
numbers drawn would not agree. Contestants are timed in turn, round by round, and medians are compared, so that a busy machine slows both
alike.
"""

import argparse
import importlib
import json
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from avtlm import config
from avtlm.checkpoint import save_model
from avtlm.convert.export_huggingface import to_huggingface
from avtlm.convert.options import Options
from avtlm.convert.options.speecht5 import CLASSES, Kind, hugging_face
from avtlm.convert.speecht5 import TASKS
from avtlm.data.batching import Batch
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.synthesis import SynthesisOptions, synthesize
from avtlm.files import write_text
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.nn.attention import padding_mask
from avtlm.nn.linear import lay_out
from avtlm.origin import processor
from avtlm.systems.speecht5 import SpeechT5
from avtlm.text.vocabulary import PAD
from benchmarks.decode import agreement, timed

SURENESS = 4.0  # times the start values of embeddings, so that one token is much likelier than the others, as for a trained decoder
NEVER = 1e9  # a probability of the end that no frame has
SAME = 1e-3  # largest difference of spectrograms that are the same


@dataclass(frozen=True)
class Size:
    """A model, and what it reads and writes.

    Attributes:
        options: of the config.json of transformers, where they are not those of the base model.
        seconds: of the shortest and the longest clip.
        tokens: written for each clip.
        symbols, steps: read and written for each sentence that is spoken; a step writes two frames.
    """

    options: dict[str, Any] = field(default_factory=dict)
    rows: int = 8
    beam: int = 5
    seconds: tuple[float, float] = (3.0, 8.0)
    tokens: int = 40
    symbols: int = 40
    steps: int = 60


TINY: dict[str, Any] = {
    **{"hidden_size": 64, "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
    **{"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 128, "encoder_max_relative_position": 20},
    **{"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 128},
    **{"speaker_embedding_dim": 16, "speech_decoder_prenet_units": 32, "speech_decoder_postnet_units": 32},
}
SIZES = {"base": Size(), "tiny": Size(TINY, seconds=(0.5, 1.2), tokens=12, symbols=10, steps=15)}


class PeerError(Exception):
    """Why transformers cannot be measured here."""


@dataclass(frozen=True)
class Pair:
    """The same weights here and there."""

    ours: SpeechT5
    theirs: Any


def make_pair(kind: Kind, size: Size) -> Pair:
    """A random model, and what transformers makes of the folder it is written to.

    Raises:
        PeerError: it cannot be imported.
    """
    try:
        library: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise PeerError(f"it cannot be imported ({error})") from error
    library.utils.logging.disable_progress_bar()
    library.utils.logging.set_verbosity_error()
    settings = hugging_face(Options(dict(size.options), "config.json"), kind)
    model = SpeechT5(settings).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("embedding.weight"):
                parameter.mul_(SURENESS)
    with tempfile.TemporaryDirectory() as folder:
        here, there = Path(folder) / "here", Path(folder) / "there"
        save_model(here, model, {"system": "speecht5", "task": TASKS[settings.task], "model": config.to_dict(settings)})
        to_huggingface(here, there)
        return Pair(lay_out(model), getattr(library, CLASSES[kind]).from_pretrained(there).eval())


# Text -----------------------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def text(size: Size, repeats: int, generator: torch.Generator) -> list[dict[str, Any]]:
    """Recognition of a batch of clips of different lengths."""
    pair = make_pair("s2t", size)
    low, high = size.seconds
    lengths = (torch.linspace(low, high, size.rows) * SAMPLE_RATE).long()
    mask = (~padding_mask(lengths, int(lengths.max()))).long()
    waves = 0.1 * torch.randn(mask.shape, generator=generator) * mask
    batch = Batch(tuple(map(str, range(size.rows))), "recognition", waves, lengths)
    encoded, frames = pair.ours.encode(batch)
    outputs: Any = importlib.import_module("transformers.modeling_outputs")

    def ours(beam: int, whole: bool) -> list[tuple[int, ...]]:
        # transformers stops at the last token; ours scores an end behind it, which the comparison leaves out.
        options = BeamOptions(beam=beam, nbest=beam, min_len=size.tokens, max_len_a=0.0, max_len_b=float(size.tokens))
        read = pair.ours.encode(batch) if whole else (encoded, frames)
        found = attention_beam(pair.ours.decoder, *read, options)
        return [max(hypotheses, key=lambda hypothesis: sum(hypothesis.token_scores)).tokens for hypotheses in found]

    def theirs(beam: int, whole: bool) -> list[tuple[int, ...]]:
        read = {"input_values": waves} if whole else {"encoder_outputs": outputs.BaseModelOutput(last_hidden_state=encoded)}
        found = pair.theirs.generate(
            **read,
            attention_mask=mask,
            num_beams=beam,
            min_new_tokens=size.tokens,
            max_new_tokens=size.tokens,
            do_sample=False,
            early_stopping=beam > 1,
            length_penalty=1.0,
            bad_words_ids=[[PAD]],
        )
        return [tuple(row[1 : 1 + size.tokens]) for row in found.tolist()]

    lines = []
    for whole in (False, True):
        for beam in (1, size.beam):
            seconds, found = timed({"avtlm": partial(ours, beam, whole), "transformers": partial(theirs, beam, whole)}, repeats)
            search = "greedy" if beam == 1 else f"beam {beam}"
            setting = f"text, {search}, {size.rows} clips, {'with' if whole else 'without'} the encoder"
            same = agreement(found["avtlm"], found["transformers"])
            lines += _lines(setting, "tokens", size.rows * size.tokens, seconds, same)
    return lines


# Speech ---------------------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def speech(size: Size, repeats: int, generator: torch.Generator) -> list[dict[str, Any]]:
    """Synthesis, for one sentence and for a batch."""
    pair = make_pair("t2s", size)
    settings = pair.ours.config
    reduction, prenet = settings.spectrogram.reduction, pair.theirs.speecht5.decoder.prenet
    ids = torch.randint(4, settings.vocabulary - 2, (size.rows, size.symbols), generator=generator)
    voices = torch.randn(size.rows, settings.spectrogram.voice_dim, generator=generator)
    shape = (size.steps, settings.spectrogram.prenet_layers, settings.spectrogram.prenet_width)
    keep = torch.rand(shape, generator=generator) >= settings.spectrogram.prenet_dropout
    longest = size.steps * reduction / size.symbols
    drop = _Dropout(keep)
    prenet._consistent_dropout = drop

    def ours(rows: int) -> Tensor:
        counts = torch.full((rows,), size.symbols)
        encoded, lengths = pair.ours.encode(Batch(tuple(map(str, range(rows))), "generation", text=ids[:rows], text_lengths=counts))
        options = SynthesisOptions(threshold=NEVER, stop="sum", longest=longest)
        kept = keep[:, :, None].expand(-1, -1, rows, -1)
        found = synthesize(pair.ours, encoded, lengths, voices[:rows], options=options, keep=kept, attention="none")
        return torch.stack([each.mel for each in found])

    def theirs(rows: int) -> Tensor:
        found: Tensor = pair.theirs.generate_speech(ids[:rows], voices[:rows], threshold=NEVER, maxlenratio=longest)
        return found if rows > 1 else found[None]

    lines = []
    for rows in (1, size.rows):
        seconds, found = timed({"avtlm": partial(ours, rows), "transformers": partial(theirs, rows)}, repeats)
        apart = float((found["avtlm"] - found["transformers"]).abs().max())
        setting = f"speech, {rows} sentence{'s' if rows > 1 else ''} of {size.symbols} symbols"
        made = _lines(setting, "frames", rows * size.steps * reduction, seconds, float(apart <= SAME))
        lines += [line | {"apart": apart} for line in made]
    return lines


class _Dropout:
    """What stands for the dropout before transformers' decoder: frames so far, layer after layer, keep what ``keep`` (steps, layers,
    width) says."""

    def __init__(self, keep: Tensor) -> None:
        self.keep, self._calls = keep, 0

    def __call__(self, x: Tensor, share: float) -> Tensor:
        layer = self._calls % self.keep.shape[1]
        self._calls += 1
        return torch.where(self.keep[: x.shape[1], layer], x, 0.0) / (1.0 - share)


# Report ---------------------------------------------------------------------------------------------------------------------------------


def _lines(setting: str, unit: str, count: int, seconds: dict[str, float], same: float) -> list[dict[str, Any]]:
    """A line for each contestant; ``same`` is the share of rows that both write alike."""
    return [
        {
            "setting": setting,
            "contestant": name,
            "seconds": each,
            "unit": unit,
            "per_second": count / each,
            "times_ours": each / seconds["avtlm"],
            "same": same,
        }
        for name, each in seconds.items()
    ]


def compare(size: Size, parts: Sequence[str], repeats: int, seed: int) -> list[dict[str, Any]]:
    """The figures of ``text`` and ``speech``.

    Raises:
        PeerError: transformers cannot be imported.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    found = {"text": text, "speech": speech}
    return [line for part in parts for line in found[part](size, repeats, generator)]


def table(lines: Sequence[dict[str, Any]]) -> Table:
    result = Table(title="Generation", title_justify="left")
    for heading in ("setting", "who"):
        result.add_column(heading)
    for heading in ("seconds", "per second", "x ours", "same"):
        result.add_column(heading, justify="right")
    for each in lines:
        rate = f"{each['per_second']:.1f} {each['unit']}"
        result.add_row(
            each["setting"], each["contestant"], f"{each['seconds']:.3f}", rate, f"{each['times_ours']:.2f}", f"{each['same']:.0%}"
        )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    summary = "Time how fast SpeechT5 writes, here and in transformers."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=summary)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.add_argument("--size", choices=tuple(SIZES), default="base")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    parser.add_argument("--repeats", type=int, default=3, help="counted rounds (default: 3)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=("text", "speech"), default=["text", "speech"])
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    size, console = SIZES[options.size], Console()
    try:
        lines = compare(size, options.only, options.repeats, options.seed)
    except PeerError as reason:
        console.print(f"transformers cannot be measured: {reason}", markup=False)
        return 1
    console.print(table(lines))
    if options.json is not None:
        machine = {
            "processor": processor(),
            "threads": options.threads,
            "torch": torch.__version__,
            "transformers": importlib.import_module("transformers").__version__,
            "python": platform.python_version(),
        }
        command = " ".join(["python -m benchmarks.generate", *sys.argv[1:]])
        report = {"command": command, "machine": machine, "size": vars(size), "results": lines}
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
