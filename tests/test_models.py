"""What `load` opens, `save` writes again, whatever kind of model it is: the same weights, settings and files, and a card."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import avtlm
from avtlm import checkpoint, config, systems
from avtlm.checkpoint import CheckpointError, save_model
from avtlm.frontends.waveform import WaveformConfig
from avtlm.model_card import licence_of
from avtlm.nn.transformer import EncoderConfig
from avtlm.systems.hubert import HubertConfig
from avtlm.systems.language_model import LanguageModelConfig
from avtlm.text.vocabulary import SPACE, SPECIALS, Vocabulary
from avtlm.whole_model import WholeModel
from tests import made_media
from tests.made_model import save_tiny_recognizer, tiny_recognizer
from tests.made_voice import save_vocoder, save_writer
from tests.systems.sequence_models import speecht5

SYMBOLS = (*SPECIALS, SPACE, *"abcde", "<mask>", "<ctc_blank>")


def save_encoder(folder: Path) -> Path:
    model: Any = tiny_recognizer().encoder
    whole = systems.find("vatlm").build(model.config)
    save_model(folder, whole, {"system": "vatlm", "task": "pretrain", "model": config.to_dict(model.config)})
    return folder


def save_transcriber(folder: Path) -> Path:
    model = speecht5(task="recognition")
    card = {"system": "speecht5", "task": "transcription", "model": config.to_dict(model.config)}
    save_model(folder, model, card, Vocabulary(SYMBOLS))
    return folder


def save_language_model(folder: Path) -> Path:
    settings = config.load(LanguageModelConfig, {"vocabulary": 10, "dim": 8, "layers": 1, "heads": 2, "feed_forward_dim": 8})
    card = {"system": "language_model", "task": "language_model", "model": config.to_dict(settings)}
    save_model(folder, systems.find("language_model").build(settings), card, Vocabulary((*SPECIALS, SPACE, *"abcde")))
    return folder


KINDS = {
    "recognition": save_tiny_recognizer,
    "pretrain": save_encoder,
    "transcription": save_transcriber,
    "generation": save_writer,
    "language_model": save_language_model,
    "vocoder": save_vocoder,
}


@pytest.mark.parametrize("task", KINDS)
def test_every_kind_of_model_is_loaded_and_saved_again(task: str, tmp_path: Path) -> None:
    folder = KINDS[task](tmp_path / "model")
    model = avtlm.load(folder)
    assert not model.training
    saved = avtlm.save(model, tmp_path / "again")
    assert checkpoint.load_config(saved) == {**checkpoint.load_config(folder), **checkpoint.load_config(saved)}
    assert checkpoint.load_config(saved)["task"] == task
    before, after = checkpoint.load_weights(folder), checkpoint.load_weights(saved)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    ours = {path.name for path in folder.iterdir()}
    assert ours <= {path.name for path in saved.iterdir()}
    assert type(avtlm.load(saved)) is type(model)


def test_a_model_that_was_trained_is_saved_as_it_is_now_wherever_its_folder_has_gone(tmp_path: Path) -> None:
    folder = save_tiny_recognizer(tmp_path / "model")
    model = avtlm.load(str(folder), device="cpu")
    folder.rename(tmp_path / "elsewhere")
    with torch.no_grad():
        model.ctc.bias.add_(torch.arange(len(model.ctc.bias)))
    again = avtlm.load(avtlm.save(model, tmp_path / "new"))
    assert torch.equal(again.ctc.bias, model.ctc.bias)
    sound = made_media.chirps(0.6)
    expected = avtlm.transcribe(sound, model=model, rate=16000)
    assert avtlm.transcribe(sound, model=tmp_path / "new", rate=16000).text == expected.text


def test_models_that_were_built_in_python_are_saved(tmp_path: Path) -> None:
    made = tiny_recognizer()
    made.geometry = "auto_avsr"
    again = avtlm.load(avtlm.save(made, tmp_path / "recogniser"))
    assert (again.geometry, again.vocabulary.symbols) == ("auto_avsr", made.vocabulary.symbols)
    layers = EncoderConfig(dim=8, layers=1, heads=2, feed_forward_dim=8, position_kernel=4, position_groups=2)
    waveform = WaveformConfig(widths=(8, 8), kernels=(10, 64), strides=(5, 64))
    encoder: Any = systems.find("hubert").build(HubertConfig(waveform=waveform, encoder=layers, units=9))
    assert "heads" not in checkpoint.load_config(avtlm.save(encoder, tmp_path / "encoder"))
    encoder.drop_heads()  # what it learned by
    assert checkpoint.load_config(avtlm.save(encoder, tmp_path / "encoder"))["heads"] is False
    assert avtlm.load(tmp_path / "encoder").config == encoder.config
    whole = WholeModel(speecht5(task="recognition"), Vocabulary(SYMBOLS))
    assert isinstance(avtlm.load(avtlm.save(whole, tmp_path / "whole")), WholeModel)


def test_a_licence_goes_from_card_to_card(tmp_path: Path) -> None:
    avtlm.save(tiny_recognizer(), tmp_path / "first", licence="cc-by-4.0")
    avtlm.save(avtlm.load(tmp_path / "first"), tmp_path / "second")
    card = (tmp_path / "second" / "README.md").read_text()
    assert licence_of(card) == "cc-by-4.0"
    assert "opened from first" in card


def test_something_else_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"save: torch\.nn\.modules\.linear\.Linear is no model of avtlm"):
        avtlm.save(nn.Linear(2, 2), tmp_path / "model")
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "thesis.tex").write_text("")
    with pytest.raises(CheckpointError, match="is not a model folder"):
        avtlm.save(tiny_recognizer(), tmp_path / "documents")
    assert (tmp_path / "documents" / "thesis.tex").exists()


def test_the_public_names_are_there_and_nothing_else_is_promised() -> None:
    assert {name: getattr(avtlm, name) for name in avtlm.__all__}.keys() <= set(dir(avtlm))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        avtlm.nothing  # noqa: B018


def test_the_module_transcribe_and_the_function_live_under_one_name() -> None:
    script = (
        "import avtlm, avtlm.transcribe as module\nfrom avtlm.transcribe import transcribe_each\nfrom avtlm import transcribe\n"
        "assert avtlm.transcribe is module is transcribe and module.transcribe_each is transcribe_each\n"
        "try:\n    avtlm.transcribe('clip.wav', modality='x')\nexcept ValueError as error:\n    print(error)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("modality: 'x' is unknown")
