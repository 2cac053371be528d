"""Model folders of speech encoders go back to official files: the same weights, keys, options and dictionaries."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import checkpoint, cli
from avtlm.convert.container import Container, read_container
from avtlm.convert.export import to_fairseq
from avtlm.convert.fairseq import convert
from avtlm.convert.model import ConversionError
from avtlm.convert.pickles import TorchFile
from avtlm.nn.quantize import QuantizerConfig
from avtlm.objectives.regression import TeacherConfig
from tests.convert.made_checkpoints import write
from tests.convert.made_speech import CONFIGS, SYSTEMS, fine_tuned, options, pretrained, same, save_pretrained, save_recogniser

CTC_SYSTEMS = ("wav2vec2", "hubert", "data2vec", "mt4ssl")


def tensors(file: Container) -> dict[str, torch.Tensor]:
    return {key: tensor.read() for key, tensor in file.weights.items()}


@pytest.mark.parametrize("kind", [*SYSTEMS, *(f"{system} fine-tuned" for system in CTC_SYSTEMS)])
def test_an_official_file_comes_back_with_the_same_weights_and_dictionaries(kind: str, tmp_path: Path) -> None:
    system: Any = kind.split()[0]
    content, _ = fine_tuned(system) if "fine-tuned" in kind else pretrained(system)
    path = write(tmp_path / "official.pt", content)
    there, back = read_container(path), read_container(to_fairseq(convert(path, None, tmp_path / "model"), tmp_path / "back.pt"))
    assert same(tensors(there), tensors(back))
    assert (back.name, back.target) == (there.name, there.target)
    assert back.units == there.units or (system == "hubert" and "fine-tuned" in kind)  # the symbols of units that nobody predicts are lost


@pytest.mark.parametrize("kind", [*SYSTEMS, *(f"{system} fine-tuned" for system in CTC_SYSTEMS)])
def test_a_folder_that_came_back_becomes_the_same_folder(kind: str, tmp_path: Path) -> None:
    system: Any = kind.split()[0]
    content, _ = fine_tuned(system) if "fine-tuned" in kind else pretrained(system)
    first = convert(write(tmp_path / "official.pt", content), None, tmp_path / "first")
    second = convert(to_fairseq(first, tmp_path / "back.pt"), None, tmp_path / "second")
    assert {file.name for file in first.iterdir()} == {file.name for file in second.iterdir()}
    # To be loaded without files of its pre-training, a fine-tuned MT4SSL is written with its classifier switched off.
    changed = {checkpoint.CARD, *([checkpoint.CONFIG] if kind == "mt4ssl fine-tuned" else [])}
    for file in first.iterdir():
        if file.name not in changed:
            assert file.read_bytes() == (second / file.name).read_bytes(), file.name


@pytest.mark.parametrize("system", SYSTEMS)
def test_options_are_those_that_the_official_classes_have(system: Any, tmp_path: Path) -> None:
    """An option that a class lacks would stop its strict configuration."""
    folders = [save_pretrained(tmp_path / "ours", system)]
    if system != "wavlm":
        folders.append(save_recogniser(tmp_path / "fine", system))
    for number, folder in enumerate(folders):
        cfg = read_container(to_fairseq(folder, tmp_path / f"{number}.pt")).cfg
        model = cfg["model"]
        groups = [model] if number == 0 else [model, model["w2v_args"]["model"]]
        for group in groups:
            name = group.pop("_name")
            assert set(group) <= set(options(name)), name


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "two inventories": ("hubert", {"further_units": (5, 6), "separate_projections": True, "unit_glu": True}),
    "a deep quantiser": ("wav2vec2", {"quantizer": QuantizerConfig(2, 5, depth=3, factor=2), "target_glu": True}),
    "quantised inputs": ("wav2vec2", {"input_quantizer": QuantizerConfig(2, 5), "negatives_from": "all", "frame_multiple": 2}),
    "a shared quantiser": ("wav2vec2", {"shared_quantizer": True, "batch_negatives": 2, "code_negatives": 3}),
    "no quantiser": ("wav2vec2", {"quantizer": None, "diversity_weight": 0.0}),
    "a whole teacher": ("data2vec", {"teacher": TeacherConfig(0.9, 0.99, None, copy_positions=False, whole=True)}),
    "one loss": ("mt4ssl", {"classification_weight": 0.0}),
    "other weights": ("mt4ssl", {"classification_weight": 0.5, "regression_weight": 2.0, "beta": 0.5, "loss_scale": 0.1}),
    "large": (
        "wavlm",
        {
            "waveform": replace(CONFIGS["wavlm"].waveform, norm="layer", normalise=True),
            "encoder": replace(CONFIGS["wavlm"].encoder, norm_first=True, relative_distance=100),
        },
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_models_trained_here_survive_the_way_there_and_back(kind: str, tmp_path: Path) -> None:
    system, changes = OTHERS[kind]
    if kind == "a whole teacher":
        changes = changes | {"targets": replace(CONFIGS["data2vec"].targets, layers=2)}
    folder = save_pretrained(tmp_path / "ours", system, **changes)  # type: ignore[arg-type]
    back = convert(to_fairseq(folder, tmp_path / "official.pt"), None, tmp_path / "back")
    before, after = checkpoint.load_weights(folder), checkpoint.load_weights(back)
    if system == "wavlm":
        before = {name: tensor for name, tensor in before.items() if not name.startswith("predictor.")}
    assert same(before, after)
    ours, theirs = checkpoint.load_config(folder)["model"], checkpoint.load_config(back)["model"]
    for part in ("encoder", "quantizer", "input_quantizer", "teacher", "targets", "units", "further_units", "loss_scale", "beta"):
        if (system != "wavlm" or part == "encoder") and (kind != "one loss" or part != "units"):
            assert ours.get(part) == theirs.get(part), part


def test_a_teacher_is_a_dictionary_of_its_own(tmp_path: Path) -> None:
    path = to_fairseq(save_pretrained(tmp_path / "ours", "mt4ssl"), tmp_path / "official.pt")
    content = TorchFile(path).content
    state = content["model"]
    assert "layers.0.fc1.weight" in state["_ema"]
    assert "discrete_dictionary" in content["task_state"]
    assert not [key for key in state if key.startswith("_ema.")]
    assert "final_proj_hubert.weight" in state


def test_wavlm_is_written_in_its_own_container(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = to_fairseq(save_pretrained(tmp_path / "ours", "wavlm"), tmp_path / "official.pt")
    content = torch.load(path, weights_only=True)
    assert set(content) == {"cfg", "model"}
    assert content["cfg"]["relative_position_embedding"] is True
    assert content["model"]["encoder.layers.1.self_attn.grep_a"].shape == (1, 2, 1, 1)
    assert "the head over units is left out" in caplog.text


def test_an_encoder_alone_is_written_with_a_word_about_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content, _ = pretrained("hubert")
    for key in ("label_embs_concat", "final_proj.weight", "final_proj.bias"):
        del content["model"][key]
    folder = convert(write(tmp_path / "official.pt", content), None, tmp_path / "model")
    back = read_container(to_fairseq(folder, tmp_path / "back.pt"))
    assert same(tensors(back), content["model"])
    assert "the model has no heads" in caplog.text


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a batch norm in WavLM": (
        lambda folder: save_pretrained(folder, "wavlm", encoder=replace(CONFIGS["wavlm"].encoder, position_norm="batch")),
        r"no counterpart of encoder\.position_norm = batch",
    ),
    "a model of letters over WavLM": (lambda folder: save_recogniser(folder, "wavlm"), "no model that transcribes"),
    "frames without a norm": (
        lambda folder: save_pretrained(folder, "wav2vec2", waveform=replace(CONFIGS["wav2vec2"].waveform, feature_norm=False)),
        r"no counterpart of waveform\.feature_norm = False",
    ),
    "another activation of the convolutions": (
        lambda folder: save_pretrained(folder, "hubert", waveform=replace(CONFIGS["hubert"].waveform, activation="relu")),
        r"no counterpart of waveform\.activation = relu",
    ),
    "dot products": (lambda folder: save_pretrained(folder, "hubert", similarity="dot"), "no counterpart of similarity = dot"),
    "codes of one book": (
        lambda folder: save_pretrained(folder, "wav2vec2", quantizer=QuantizerConfig(2, 5, shared=True)),
        r"no counterpart of quantizer\.shared = True",
    ),
    "experts": (
        lambda folder: save_recogniser(folder, "hubert", encoder=replace(CONFIGS["hubert"].encoder, experts=("audio", "joint"))),
        r"no counterpart of encoder\.experts",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_official_code_has_not_got_is_refused_and_nothing_is_written(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build, message = REFUSED[kind]
    folder = build(tmp_path / "ours")
    with pytest.raises(ConversionError, match=message):
        to_fairseq(folder, tmp_path / "out/official.pt")
    assert not (tmp_path / "out").exists()
    assert cli.main(["convert", str(folder), "--to", "fairseq", "-o", str(tmp_path / "out/official.pt")]) == 1
    assert "cannot become an official checkpoint" in capsys.readouterr().err


def test_arguments_of_old_files_are_plain_text_here_too(tmp_path: Path) -> None:
    """What is written is a configuration of today, whatever was read."""
    content, _ = pretrained("wav2vec2")
    cfg = content.pop("cfg")
    old = argparse.Namespace(**{**cfg["model"], **cfg["task"], "arch": "wav2vec2", "criterion": "wav2vec", "loss_weights": "[0.1, 10]"})
    folder = convert(write(tmp_path / "official.pt", content | {"args": old}), None, tmp_path / "model")
    assert read_container(to_fairseq(folder, tmp_path / "back.pt")).cfg["criterion"]["loss_weights"] == [0.1, 10.0]
