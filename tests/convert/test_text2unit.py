"""SpeechLM's text-to-unit model from its official file: names, sizes, phones, and what is refused."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avtlm import checkpoint, systems
from avtlm.convert.fairseq import convert
from avtlm.convert.model import ConversionError
from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.text2unit import RULES
from avtlm.convert.official_file import container, save
from avtlm.systems.fast_text2unit import FastText2Unit, FastText2UnitConfig
from avtlm.units.phonemes import mono_phones

TINY = FastText2UnitConfig(
    vocabulary=46, units=6, dim=8, layers=1, unit_layers=2, heads=2, feed_forward_dim=12, kernel=3, duration_dim=4, spare_outputs=4
)


def official(folder: Path, config: FastText2UnitConfig = TINY, extra: dict[str, Tensor] | None = None, **options: Any) -> Path:
    """A file as fairseq's trainer writes it, with the predictors that nothing uses."""
    torch.manual_seed(0)
    state = {find_key(RULES, name): tensor for name, tensor in FastText2Unit(config).state_dict().items()}
    adaptor = "encoder.var_adaptor."
    unused = {f"{adaptor}{kind}_predictor.conv1.0.weight": torch.zeros(4, 8, 3) for kind in ("pitch", "energy")}
    unused |= {f"{adaptor}embed_{kind}.weight": torch.zeros(16, 8) for kind in ("pitch", "energy")}
    unused["encoder.embed_positions._float_tensor"] = torch.zeros(1)
    model = argparse.Namespace(_name="fasttext2unit_s", arch="fasttext2unit_s", dropout=0.1, data="/somewhere", **options)
    cfg = {
        "_name": None,
        "model": model,
        "task": {"_name": "fast_text_to_unit"},
        "criterion": {"_name": "fasttext2unit_criterion", "label_smoothing": 0.1},
    }
    return save(container(cfg, {**state, **unused, **(extra or {})}, {}), folder / "official.pt")


def test_a_file_becomes_the_model_with_its_phones_and_quirks(tmp_path: Path) -> None:
    folder = convert(official(tmp_path), None, tmp_path / "model")
    model, vocabulary = systems.load_text2unit(folder)
    assert isinstance(model, FastText2Unit)
    torch.manual_seed(0)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in FastText2Unit(TINY).state_dict().items())
    assert vocabulary.symbols[4:] == mono_phones()
    settings = model.config
    assert (settings.units, settings.spare_outputs, settings.ignored_unit, settings.compute_padding) == (6, 4, 1, True)
    assert (settings.dropout, settings.attention_dropout, settings.label_smoothing, settings.unit_layers) == (0.1, 0.0, 0.1, 2)
    assert settings.pronunciation.silence == "<SIL>"
    assert checkpoint.load_config(folder)["task"] == "text_to_units"
    assert "text2units" in (folder / "README.md").read_text()


def test_each_stack_has_heads_of_its_own(tmp_path: Path) -> None:
    model, _ = systems.load_text2unit(convert(official(tmp_path, decoder_attention_heads=4), None, tmp_path / "model"))
    assert isinstance(model, FastText2Unit)
    assert [stack[0].self_attention.heads for stack in (model.encoder, model.unit_decoder)] == [2, 4]  # type: ignore[index, union-attr]


def test_other_phones_are_named_beside_it(tmp_path: Path) -> None:
    file = official(tmp_path, FastText2UnitConfig(**{**vars(TINY), "vocabulary": 7}))
    with pytest.raises(ConversionError, match=r"the recipe's phones have 46 symbols with the special ones, but the model reads 7"):
        convert(file, None, tmp_path / "model")
    (tmp_path / "dict.txt").write_text("SIL 1\nA 1\nB 1\n")
    folder = convert(file, "fast_text2unit", tmp_path / "model", vocabulary=tmp_path / "dict.txt")
    assert systems.load_text2unit(folder)[1].symbols[4:] == ["SIL", "A", "B"]


@pytest.mark.parametrize(
    ("options", "extra", "reason"),
    [
        ({"use_pitch": True}, {}, "use_pitch is True"),
        ({"decoder_attention_heads": 3}, {}, "heads: 2, unit_heads: 3; give an even dim that heads divide"),
        ({}, {"encoder.other.weight": torch.zeros(1)}, "1 unknown .encoder.other.weight"),
    ],
)
def test_what_cannot_be_honoured_is_refused(options: dict[str, Any], extra: dict[str, Tensor], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=reason):
        convert(official(tmp_path, extra=extra, **options), None, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_another_system_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"holds the text-to-unit model of SpeechLM \(fasttext2unit_s\), not HuBERT"):
        convert(official(tmp_path), "hubert", tmp_path / "model")
