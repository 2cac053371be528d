"""Folders of tiny text-to-unit models with made weights, which read the words of a tiny lexicon."""

from pathlib import Path
from typing import Any

import torch

from avtlm import config
from avtlm.checkpoint import save_model
from avtlm.systems.fast_text2unit import FastText2Unit, FastText2UnitConfig
from avtlm.systems.text2unit import Text2Unit, Text2UnitConfig
from avtlm.text.vocabulary import SPECIALS, Vocabulary
from avtlm.units.phonemes import PronunciationConfig

LEXICON = "THE DH AH\nCAT K AE T\nSAT S AE T\nON AA N\nMAT M AE T\nA AH\n"
PHONES = ("<SIL>", "AA", "AE", "AH", "DH", "K", "M", "N", "S", "T")
WORDS = ("the", "cat", "sat", "on", "mat", "a")
PRONUNCIATION = PronunciationConfig(lexicon="lexicon.txt", unknown="drop", silence="<SIL>")


def save_fast(folder: Path, pronunciation: PronunciationConfig = PRONUNCIATION) -> Path:
    vocabulary = Vocabulary([*SPECIALS, *PHONES], "tokens")
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"dim": 16, "layers": 1, "unit_layers": 1, "feed_forward_dim": 8, "kernel": 3, "duration_dim": 8, "units": 12}
    model = FastText2Unit(FastText2UnitConfig(vocabulary=len(vocabulary), **sizes, pronunciation=pronunciation))
    with torch.no_grad():
        model.durations.project.bias.fill_(1.4)  # about three frames
    return _save(folder, "fast_text2unit", model, vocabulary)


def save_seq2seq(folder: Path, pronunciation: PronunciationConfig | None = PRONUNCIATION) -> Path:
    vocabulary = Vocabulary.characters(WORDS) if pronunciation is None else Vocabulary([*SPECIALS, *PHONES], "tokens")
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"dim": 16, "layers": 1, "decoder_layers": 1, "heads": 2, "feed_forward_dim": 8, "units": 12, "max_units": 20}
    model = Text2Unit(Text2UnitConfig(vocabulary=len(vocabulary), **sizes, pronunciation=pronunciation))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return _save(folder, "text2unit", model, vocabulary)


def _save(folder: Path, system: str, model: Any, vocabulary: Vocabulary) -> Path:
    card = {"system": system, "task": "text_to_units", "model": config.to_dict(model.config)}
    save_model(folder, model, card, vocabulary, {"lexicon.txt": LEXICON})
    return folder


def lines(count: int) -> list[str]:
    """Sentences of one to nine words, all of which the lexicon has."""
    return [" ".join(WORDS[(number * 7 + place) % 6] for place in range(1 + number % 9)) for number in range(count)]
