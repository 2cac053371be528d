"""Weights of Hugging Face folders in every container; damaged ones, and pickles with code, are refused in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from avtlm import checkpoint, cli
from avtlm.convert.huggingface import convert_folder
from avtlm.convert.tensor_files import WeightsError
from tests.convert import made_transformers as made


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load_weights(convert_folder(folder, None, folder.with_name("converted")))


def as_pickle(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")


def as_old_pickle(folder: Path) -> None:
    as_pickle(folder)
    state = torch.load(folder / "pytorch_model.bin")
    for old, new in (("weight_g", "parametrizations.weight.original0"), ("weight_v", "parametrizations.weight.original1")):
        state[f"encoder.pos_conv_embed.conv.{old}"] = state.pop(f"encoder.pos_conv_embed.conv.{new}")
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def in_parts(folder: Path, name: str = "model.safetensors") -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {}
    stem, suffix = name.split(".")
    for part, keys in enumerate((list(state)[::2], list(state)[1::2]), 1):
        file = f"{stem}-{part:05d}-of-00002.{suffix}"
        content = {key: state[key] for key in keys}
        save_file(content, folder / file) if suffix == "safetensors" else torch.save(content, folder / file)
        places |= dict.fromkeys(keys, file)
    (folder / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def as_pickles(folder: Path) -> None:
    in_parts(folder, "pytorch_model.bin")


def in_half_precision(folder: Path) -> None:
    state = {key: tensor.half().float() for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors")


@pytest.mark.parametrize("repack", [as_pickle, as_old_pickle, in_parts, as_pickles])
def test_other_containers_hold_the_same_weights(repack: Callable[[Path], None], tmp_path: Path) -> None:
    folder = made.save(made.make("wav2vec2"), tmp_path / "theirs")
    before = weights(folder)
    repack(folder)
    after = weights(folder)
    assert set(before) == set(after)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_half_precision_becomes_single_precision_of_the_same_values(tmp_path: Path) -> None:
    folder = made.save(made.make("hubert"), tmp_path / "theirs")
    in_half_precision(folder)
    before = weights(folder)
    save_file({key: tensor.half() for key, tensor in load_file(folder / "model.safetensors").items()}, folder / "model.safetensors")
    after = weights(folder)
    assert all(tensor.dtype == torch.float32 for tensor in after.values())
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _lose_a_part(folder: Path) -> None:
    in_parts(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def _lose_a_tensor_of_a_part(folder: Path) -> None:
    in_parts(folder)
    path = folder / "model-00002-of-00002.safetensors"
    state = load_file(path)
    state.pop(next(iter(state)))
    save_file(state, path)


def _reach_outside(folder: Path) -> None:
    in_parts(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))


class Evil:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("echo gotcha",)


def _poison(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a truncated file": (_truncate, r"model\.safetensors is truncated, damaged or no safetensors file"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "has no weights: neither model.safetensors nor"),
    "a missing part": (_lose_a_part, r"model-00002-of-00002\.safetensors of 2 parts of the weights is missing"),
    "a part without a tensor": (_lose_a_tensor_of_a_part, "is not in the part that model.safetensors.index.json names"),
    "an index that leads away": (_reach_outside, "expected 'weight_map' with a file beside it"),
    "a pickle with code": (_poison, r"asks for posix\.system"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    made.assert_refused(*REFUSED[name], tmp_path)


def test_weights_without_their_folder_are_refused_with_a_word_about_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made.save(made.make("hubert"), tmp_path / "theirs")
    as_pickle(made.save(made.make("hubert"), tmp_path / "pickled"))
    for path in (folder / "model.safetensors", tmp_path / "pickled/pytorch_model.bin"):
        assert cli.main(["convert", str(path), "-o", str(tmp_path / "out")]) == 1
        assert "give the folder with its config.json" in capsys.readouterr().err


def test_a_refused_folder_leaves_an_older_model_alone(tmp_path: Path) -> None:
    folder = convert_folder(made.save(made.make("hubert"), tmp_path / "theirs"), None, tmp_path / "ours")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.copytree(tmp_path / "theirs", tmp_path / "damaged")
    _truncate(tmp_path / "damaged")
    with pytest.raises(WeightsError):
        convert_folder(tmp_path / "damaged", None, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
