"""How fast are the searches? Attention beams, joint CTC/attention, CTC prefixes and the words of a lexicon, beside other libraries.

    python -m benchmarks.decode [--json FILE] [--quick] [--threads 2] [--repeats 3]

Decoders have random weights; all contestants have the same ones, and the same input. Texts are of a fixed length, so that everybody takes
equally many steps: the best texts are compared, and must be the same. Contestants are timed in turn, round by round, and medians are
compared, so that a busy machine slows all of them alike; seconds are those of the wall. ``joint`` runs on one thread, like the figure it is
measured against: a 4-second clip in auto_avsr's search, 647 ms a step at beam 40.
"""

import argparse
import copy
import functools
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.ctc_prefix import ctc_beam
from avtlm.decoding.flashlight_search import FlashlightDecoder
from avtlm.decoding.joint import JointOptions, joint_beam
from avtlm.decoding.lexicon import LexiconDecoder, LexiconOptions, read_lexicon
from avtlm.decoding.ngram import NGram
from avtlm.decoding.word_search import WordSearch
from avtlm.files import write_text
from avtlm.nn.linear import lay_out
from avtlm.nn.transformer import Decoder, DecoderConfig
from avtlm.origin import processor
from avtlm.text.vocabulary import LETTERS, Vocabulary
from benchmarks.decode_peers import EspnetSearch, PeerError, pyctcdecode_search, torchaudio_search, torchaudio_words, transformers_search

FRAME_RATE = 25.0  # frames per second of audio-visual encoders
PARTS = ("attention", "joint", "ctc", "words")
STEP_OF_AUTO_AVSR = 0.647  # seconds a step at beam 40 on one thread, a 250 M model and a clip of 4 s


@dataclass(frozen=True)
class Size:
    """A decoder and its input."""

    dim: int
    layers: int
    feed_forward: int
    vocabulary: int
    rows: int
    seconds: tuple[float, float]
    tokens: int
    beam: int
    joint_beam: int
    joint_steps: int
    symbols: int  # of CTC alone


# The decoder of the base and of auto_avsr's 250 M model: 6 layers of width 768.
SIZES = {
    "base": Size(768, 6, 3072, 5049, 16, (5.0, 15.0), 30, 10, 40, 20, 32),
    "quick": Size(256, 2, 1024, 500, 4, (2.0, 4.0), 10, 5, 10, 6, 32),
}


def make_decoders(size: Size) -> tuple[Decoder, Decoder]:
    """The same decoder twice: as a model that is opened for use has it, and plain, for the others. It is random, with an output of its own:
    one tied to the embedding would say the same token over and over."""
    config = DecoderConfig(
        dim=size.dim,
        layers=size.layers,
        heads=size.dim // 64,
        feed_forward_dim=size.feed_forward,
        max_positions=512,
        tie_embeddings=False,
    )
    decoder = Decoder(config, size.vocabulary).eval()
    for parameter in decoder.parameters():
        parameter.data.mul_(1.5)  # a decoder that listens, so that hypotheses change places as a trained one's do
    return lay_out(copy.deepcopy(decoder)), decoder


def timed(contestants: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of every contestant, in turn, after one round that warms up; and what each of them found."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    found = {}
    for repeat in range(repeats + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            found[name] = run()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in seconds.items()}, found


def agreement(one: Sequence[Any], other: Sequence[Any]) -> float:
    """Share of rows with the same text."""
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def attention(size: Size, repeats: int, generator: torch.Generator, left_out: dict[str, str]) -> list[dict[str, Any]]:
    """A batch of utterances of different lengths."""
    decoder, plain = make_decoders(size)
    low, high = size.seconds
    lengths = (torch.linspace(low, high, size.rows) * FRAME_RATE).long()
    encoded = torch.randn(size.rows, int(lengths.max()), size.dim, generator=generator)

    def ours(beam: int = size.beam, tokens: int = size.tokens) -> list[tuple[int, ...]]:
        # transformers stops at the last token; ours scores an end behind it, which the comparison leaves out.
        options = BeamOptions(beam=beam, nbest=beam, min_len=tokens, max_len_a=0.0, max_len_b=float(tokens))
        found = attention_beam(decoder, encoded, lengths, options)
        return [max(hypotheses, key=lambda hypothesis: sum(hypothesis.token_scores)).tokens for hypotheses in found]

    contestants: dict[str, Callable[[], Any]] = {"avtlm": ours}
    try:
        peer = transformers_search(plain)
        contestants["transformers generate"] = lambda: peer(encoded, lengths, size.beam, size.tokens)
    except PeerError as reason:
        left_out["transformers generate"] = str(reason)
    seconds, found = timed(contestants, repeats)
    setting = f"attention, beam {size.beam}, {size.rows} rows, {size.tokens} tokens"
    lines = [
        line(setting, name, each, seconds["avtlm"], size.tokens, agreement(found["avtlm"], found[name])) for name, each in seconds.items()
    ]
    for beam in sorted({1, max(1, size.beam // 2), 2 * size.beam}):
        each = timed({"avtlm": functools.partial(ours, beam)}, 1)[0]["avtlm"]
        lines.append(line(f"attention, beam {beam}, {size.rows} rows, {size.tokens} tokens", "avtlm", each, None, size.tokens, None))
    each = timed({"avtlm": lambda: ours(tokens=2 * size.tokens)}, 1)[0]["avtlm"]
    lines.append(
        line(f"attention, beam {size.beam}, {size.rows} rows, {2 * size.tokens} tokens", "avtlm", each, None, 2 * size.tokens, None)
    )
    return lines


def joint(size: Size, repeats: int, generator: torch.Generator) -> list[dict[str, Any]]:
    """One clip of 4 s on one thread. Ends are forbidden, so that both searches take the same steps, and their scores are compared."""
    steps = size.joint_steps
    decoder, plain = make_decoders(size)
    frames = int(4 * FRAME_RATE)
    encoded = torch.randn(1, frames, size.dim, generator=generator)
    log_probs = (2 * torch.randn(1, frames, size.vocabulary, generator=generator)).log_softmax(-1)
    lengths = torch.tensor([frames])
    lines = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for beam in (size.joint_beam, size.joint_beam // 4):
        options = JointOptions(beam=beam, nbest=beam, ctc_weight=0.1, max_len_ratio=-float(steps), min_len=steps + 1)
        official = EspnetSearch(plain, options)
        contestants: dict[str, Callable[[], Any]] = {
            "avtlm": functools.partial(joint_beam, decoder, encoded, lengths, log_probs, options),
            "ESPnet's way": functools.partial(official, encoded[0], log_probs[0], steps),
        }
        seconds, found = timed(contestants, repeats)
        ours = [(hypothesis.tokens, hypothesis.score) for hypothesis in found["avtlm"][0]]
        theirs = found["ESPnet's way"]
        same = agreement([text for text, _ in ours], [text for text, _ in theirs])
        apart = max(abs(a - b) for (_, a), (_, b) in zip(ours, theirs, strict=True))
        for name, each in seconds.items():
            made = line(f"joint, beam {beam}, 1 clip of 4 s, 1 thread", name, each, seconds["avtlm"], steps, same)
            lines.append(made | {"scores_apart": apart, "auto_avsr_step": STEP_OF_AUTO_AVSR if beam == 40 else None})
    torch.set_num_threads(threads)
    return lines


def ctc(size: Size, repeats: int, generator: torch.Generator, left_out: dict[str, str]) -> list[dict[str, Any]]:
    """Prefix beams over letters."""
    low, high = size.seconds
    lengths = (torch.linspace(low, high, size.rows) * FRAME_RATE).long()
    logits = 2 * torch.randn(size.rows, int(lengths.max()), size.symbols, generator=generator)
    logits[..., 0] += 4.0  # most frames of a trained model are blanks
    log_probs = logits.log_softmax(-1)
    beam = size.beam
    contestants: dict[str, Callable[[], Any]] = {"avtlm": lambda: [row[0].tokens for row in ctc_beam(log_probs, lengths, beam)]}
    makers = {"torchaudio ctc_decoder (best path)": torchaudio_search, "pyctcdecode": pyctcdecode_search}
    for name, make in makers.items():
        try:
            peer = make(size.symbols)
            contestants[name] = functools.partial(peer, log_probs, lengths, beam)
        except PeerError as reason:
            left_out[name] = str(reason)
    seconds, found = timed(contestants, repeats)
    setting = f"CTC prefixes, beam {beam}, {size.rows} rows, {size.symbols} symbols"
    frames = int(lengths.max())
    return [line(setting, name, each, seconds["avtlm"], frames, agreement(found["avtlm"], found[name])) for name, each in seconds.items()]


def words(size: Size, repeats: int, generator: torch.Generator, left_out: dict[str, str]) -> list[dict[str, Any]]:
    """Words of a lexicon with a bigram: our search in C++ (where flashlight is installed) and in Python, and torchaudio's."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "|", *(chr(ord("A") + number) for number in range(size.symbols - 5))]
    vocabulary = Vocabulary(tuple(names), LETTERS)
    lexicon = _made_words(names[5:], 20 * size.beam * size.rows, generator)
    low, high = size.seconds
    lengths = (torch.linspace(low, high, size.rows) * FRAME_RATE).long()
    logits = 2 * torch.randn(size.rows, int(lengths.max()), len(names), generator=generator)
    for row, length in enumerate(lengths.tolist()):
        place = 0
        while place < length:  # a letter in every other frame, blanks between
            word = lexicon[int(torch.randint(len(lexicon), (), generator=generator))]
            for letter in [*word, "|"][: (length - place + 1) // 2]:
                logits[row, place, names.index(letter)] += 6.0
                logits[row, min(place + 1, length - 1), 0] += 6.0
                place += 2
    log_probs = logits.log_softmax(-1)
    options = LexiconOptions(beam=5 * size.beam, threshold=25.0, lm_weight=1.0, word_score=0.0)
    with tempfile.TemporaryDirectory() as folder:
        spellings, model = Path(folder) / "lexicon.txt", Path(folder) / "lm.arpa"
        spellings.write_text("".join(f"{word}\t{' '.join(word)} |\n" for word in lexicon))
        model.write_text(_made_bigrams(lexicon, generator))
        contestants: dict[str, Callable[[], Any]] = {}
        search = WordSearch.open(spellings, model, options, vocabulary)
        if isinstance(search.decoder, FlashlightDecoder):
            contestants["avtlm, flashlight"] = lambda: [row[0].text for row in search(log_probs, lengths)]
        else:
            left_out["avtlm, flashlight"] = "flashlight-text is not installed (extra lexicon)"
        own = WordSearch(
            LexiconDecoder(read_lexicon(spellings, {name: place for place, name in enumerate(names)}), NGram.read(model), options, 0, 4),
            True,
        )
        contestants["avtlm, in Python"] = lambda: [row[0].text for row in own(log_probs, lengths)]
        try:
            peer = torchaudio_words(names, spellings, model, options)
            contestants["torchaudio ctc_decoder"] = lambda: peer(log_probs, lengths)
        except PeerError as reason:
            left_out["torchaudio ctc_decoder"] = str(reason)
        seconds, found = timed(contestants, repeats)
    first = next(iter(contestants))
    setting = f"words, beam {options.beam}, {size.rows} rows, {len(lexicon)} words, bigram"
    frames = int(lengths.max())
    return [line(setting, name, each, seconds[first], frames, agreement(found[first], found[name])) for name, each in seconds.items()]


def _made_words(letters: Sequence[str], count: int, generator: torch.Generator) -> list[str]:
    """Different words of 2 to 8 letters."""
    found: dict[str, None] = {}
    while len(found) < count:
        length = int(torch.randint(2, 9, (), generator=generator))
        found["".join(letters[place] for place in torch.randint(len(letters), (length,), generator=generator).tolist())] = None
    return sorted(found)


def _made_bigrams(lexicon: Sequence[str], generator: torch.Generator) -> str:
    """An ARPA file in which every word has a probability, and is likely behind one other."""
    scores = (-3.0 - torch.rand(len(lexicon), generator=generator)).tolist()
    before = torch.randperm(len(lexicon), generator=generator).tolist()
    single = [f"{score:.4f}\t{word}\t-0.2" for word, score in zip(lexicon, scores, strict=True)]
    pairs = [f"-1.0\t{lexicon[place]} {word}" for word, place in zip(lexicon, before, strict=True)]
    head = ["\\data\\", f"ngram 1={len(lexicon) + 3}", f"ngram 2={len(pairs)}", "", "\\1-grams:", "-5\t<unk>", "-99\t<s>\t-0.2", "-1\t</s>"]
    return "\n".join([*head, *single, "", "\\2-grams:", *pairs, "", "\\end\\", ""])


def compare(size: Size, parts: Sequence[str], repeats: int, seed: int) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The figures of ``attention``, ``joint``, ``ctc`` and ``words``, and who was left out, with the reason."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    left_out: dict[str, str] = {}
    lines: list[dict[str, Any]] = []
    if "attention" in parts:
        lines += attention(size, repeats, generator, left_out)
    if "joint" in parts:
        lines += joint(size, repeats, generator)
    if "ctc" in parts:
        lines += ctc(size, repeats, generator, left_out)
    if "words" in parts:
        lines += words(size, repeats, generator, left_out)
    return lines, left_out


def line(setting: str, name: str, seconds: float, ours: float | None, steps: int, same: float | None) -> dict[str, Any]:
    ratio = None if ours is None else seconds / ours
    return {
        "setting": setting,
        "contestant": name,
        "seconds": seconds,
        "ms_a_step": 1e3 * seconds / steps,
        "times_ours": ratio,
        "same_texts": same,
    }


def table(lines: Sequence[dict[str, Any]]) -> Table:
    result = Table(title="Searches", title_justify="left")
    for heading in ("setting", "who"):
        result.add_column(heading)
    for heading in ("seconds", "ms a step", "x ours", "same texts"):
        result.add_column(heading, justify="right")
    for each in lines:
        ratio = "" if each["times_ours"] is None else f"{each['times_ours']:.2f}"
        same = "" if each["same_texts"] is None else f"{each['same_texts']:.0%}"
        result.add_row(each["setting"], each["contestant"], f"{each['seconds']:.3f}", f"{each['ms_a_step']:.1f}", ratio, same)
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description="Time the searches, here and in other libraries.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.add_argument("--quick", action="store_true", help="a small decoder and short texts")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    parser.add_argument("--repeats", type=int, default=3, help="counted rounds (default: 3)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    size = SIZES["quick" if options.quick else "base"]
    lines, left_out = compare(size, options.only, options.repeats, options.seed)
    console = Console()
    console.print(table(lines))
    for name, reason in left_out.items():
        console.print(f"{name} is left out: {reason}", markup=False)
    if options.json is not None:
        machine = {
            "processor": processor(),
            "threads": options.threads,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        report = {
            "command": " ".join(["python -m benchmarks.decode", *(sys.argv[1:] if arguments is None else arguments)]),
            "machine": machine,
            "size": vars(size),
            "left_out": left_out,
            "results": lines,
        }
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
