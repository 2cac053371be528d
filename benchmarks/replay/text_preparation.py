"""Cases of SpeechLM's text side: phones, silences and durations of a text; and its text-to-unit model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avtlm.convert.names.text2unit import RULES, UNUSED
from avtlm.convert.names.transformer import find_name
from avtlm.convert.options import Options
from avtlm.convert.text2unit import official_settings
from avtlm.data.batching import Batch
from avtlm.nn.attention import padding_mask
from avtlm.systems.fast_text2unit import NO_UNIT, FastText2Unit
from avtlm.text.vocabulary import EOS, PAD, SPECIALS, Vocabulary
from avtlm.units.phonemes import Lexicon, Phonemizer, PronunciationConfig, add_silences, kaldi_phones, letters, upsample
from benchmarks.replay.case import Case, Check
from benchmarks.replay.speech_encoders import load

LETTERS = ("|", *"ETAONIHSRDLUMCWFGYPBVK'XJQZ", "<mask>")  # dict.ltr.txt of SpeechLM
# What the case says in words: relative 1e-4 and absolute 1e-5; 1e-5 of losses, 1e-3 of gradients' largest value.
FORWARD, LOSS, GRADIENT = 2e-5, 1e-5, 1e-3


def preparation_case(case: Case, check: Check) -> None:
    """Letters, phones with silences, durations and ids of some lines; draws are those of NumPy's old generator."""
    told = case.description
    seeds, lines = told["seeds"], told["input_lines"]

    def phones(words: str, unknown: Any, silence: str, seed: int, lines: Sequence[str]) -> list[list[str]]:
        lexicon = Lexicon({word: tuple(found) for word, found in told[words].items()})
        phonemizer = Phonemizer(PronunciationConfig(unknown=unknown, silence=silence), lexicon)
        rng = np.random.RandomState(seed)
        return [add_silences(each, rng, silence) for each in phonemizer(lines) if each is not None]

    def same(name: str, ours: Sequence[Any], theirs: Sequence[Any]) -> None:
        wrong = abs(len(ours) - len(theirs)) + sum(mine != other for mine, other in zip(ours, theirs))
        check.value(name, wrong, 0.0, 0.0)

    same("letters", [letters(line) for line in lines], told["letters"])
    # Kaldi's phones are those of the letters, which hold no mark of unknown words.
    marked = [line.replace("<unk>", "") for line in lines]
    spoken = phones("lexicon_word_position", "spn", "SIL", seeds["silence_word_position_phones"], marked)
    same("phones_with_silence", [" ".join(line) for line in spoken], told["phones_with_silence"])
    rng = np.random.RandomState(seeds["upsample"])
    lasting = [upsample(line, rng) for line in spoken]
    runs = [[phone for phone, count in line for _ in range(count)] for line in told["upsampled_run_lengths"]]
    same("upsampled_run_lengths", lasting, runs)
    same("upsampled_frames", [len(line) for line in lasting], told["upsampled_frames"])
    for name, symbols, written in (
        ("phone_ids_with_eos", kaldi_phones(), [" ".join(line) for line in lasting]),
        ("letter_ids_with_eos", LETTERS, told["letters"]),
    ):
        dictionary = Vocabulary([*SPECIALS, *symbols], "tokens")
        same(name, [[*dictionary.encode(line), EOS] for line in written], told[name])
    mono = phones("lexicon_mono", "drop", "<SIL>", seeds["silence_mono_phones"], lines)
    same("mono_phones_with_silence", [" ".join(line) for line in mono], told["mono_phones_with_silence"])


def text2unit_case(case: Case, check: Check) -> None:
    """The text-to-unit model with true durations, with its own, and in training."""
    weights = {"label_smoothing": 0.1, **case.config.get("criterion", {})}  # what cases without a criterion were made with
    options = Options({**weights, **case.config["args"]}, "config.args")
    settings = official_settings(options, {key: tuple(tensor.shape) for key, tensor in case.state.items()})
    # Generation chooses among all outputs there, those that no unit belongs to as well.
    settings = replace(settings, units=settings.units + settings.spare_outputs, spare_outputs=0)
    model = FastText2Unit(settings).eval()
    names = {key: find_name(RULES, key, "the text-to-unit model") for key in case.state if not UNUSED.fullmatch(key)}
    load(model, {name: case.state[key] for key, name in names.items()})
    inputs = case.inputs
    text, durations = inputs["src_tokens"], inputs["durations"]
    padding = text == PAD

    def valid(name: str, ours: Tensor, padded: Tensor) -> None:
        """Compare where there is no padding."""
        theirs = case.outputs.get(name)
        if theirs is not None and theirs.shape == ours.shape:
            hidden = padded if ours.dim() == 2 else padded[..., None]
            ours = torch.where(hidden, theirs, ours)
        check.close(name, ours, FORWARD)

    def stages(prefix: str, lasting: Tensor | None) -> Tensor:
        kept: list[Tensor] = []
        states = model.read(text, kept)
        for index, state in enumerate(kept):
            valid(f"{prefix}.enc_layer_{index}", state, padding)
        foretold = model.log_durations(states, padding)
        valid(f"{prefix}.log_dur", foretold, padding)
        if lasting is None:
            lasting = model.generate(text)[1]
        stretched, lengths = model.stretch(states, lasting)
        silent = padding_mask(lengths, stretched.shape[1])
        valid(f"{prefix}.regulated", stretched, silent)
        check.equal(f"{prefix}.out_lens", lengths)
        kept = []
        logits = model.write(stretched, lengths, kept)
        for index, state in enumerate(kept):
            valid(f"{prefix}.dec_layer_{index}", state, silent)
        valid(f"{prefix}.logits", logits, silent)
        return logits

    with torch.no_grad():
        stages("free", None)
        units, lasting = model.generate(text)
    for row, found in enumerate(units):
        count = int((~padding[row]).sum())
        check.equal(f"gen.utt{row}.unit", found)
        check.equal(f"gen.utt{row}.duration", lasting[row, :count])
        check.equal(f"gen.utt{row}.fa_src", text[row].repeat_interleave(lasting[row]))
    logits = stages("forced", durations)
    lengths = inputs["target_lengths"]
    silent = padding_mask(lengths, inputs["target"].shape[1])
    target = inputs["target"].masked_fill(silent, NO_UNIT)
    rows, targets = tuple(map(str, range(len(text)))), {"units": target, "durations": durations}
    batch = Batch(rows, "text_to_units", text=text, targets=targets, target_lengths={"units": lengths})
    losses = model.losses(batch, torch.Generator())
    entropy, error = (losses[name].value / losses["units"].count for name in ("units", "durations"))
    check.close("loss", entropy + error, LOSS * float((entropy + error).detach()))
    check.close("log.ce_loss", entropy, LOSS * float(entropy.detach()))
    check.close("log.dur_loss", error, LOSS * float(error.detach()))
    check.equal("log.pitch_loss", 0.0)  # nothing foretells pitch, there or here
    check.equal("log.n_correct", ((logits.argmax(-1) == inputs["target"]) & ~silent).sum())
    (entropy + error).backward()
    parameters = dict(model.named_parameters())
    for key in case.config["grad"]:
        gradient = parameters[names[key]].grad
        assert gradient is not None
        check.close(f"grad.{key}", gradient, GRADIENT * float(case.outputs[f"grad.{key}"].abs().max()))


ADAPTERS = [
    (lambda case: "phoneme_tokenizer" in str(case.description.get("official", "")), preparation_case),
    (lambda case: "fasttext2unit.py:FastText2UnitModel" in case.official, text2unit_case),
]
