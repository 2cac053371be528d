"""Speaker embeddings: read from either kind of file, found by utterance before speaker, refused with one sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from avtlm.data.voices import read_voices, voice_names


def npz(folder: Path, **vectors: np.ndarray) -> Path:
    np.savez(folder / "voices.npz", **vectors)
    return folder / "voices.npz"


def test_both_kinds_of_files_give_the_same_vectors(tmp_path: Path) -> None:
    vector = np.arange(4, dtype=np.float64)
    first = read_voices(npz(tmp_path, ann=vector, one=vector[None] + 1), 4)
    save_file({"ann": torch.from_numpy(vector).float(), "one": torch.from_numpy(vector[None] + 1).half()}, tmp_path / "voices.safetensors")
    second = read_voices(tmp_path / "voices.safetensors", 4)
    for voices in (first, second):
        assert voices.of("ann").tolist() == [0, 1, 2, 3]
        assert voices.of("one").tolist() == [1, 2, 3, 4]
        assert voices.of("one").dtype == torch.float32


def test_an_utterance_of_its_own_comes_before_its_speaker(tmp_path: Path) -> None:
    voices = read_voices(npz(tmp_path, ann=np.zeros(2), one=np.ones(2)), 2)
    assert voices.of(*voice_names("one", "ann")).tolist() == [1, 1]
    assert voices.of(*voice_names("two", "ann")).tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"voices\.npz: no speaker embedding of 'two' or 'bob'; add it under one of these names"):
        voices.of(*voice_names("two", "bob"))
    with pytest.raises(ValueError, match="no speaker embedding of 'two';"):
        voices.of(*voice_names("two", None))


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.zeros(3), "the speaker embedding of 'ann' has 3 values, but the model takes 4"),
        (np.zeros((2, 2)), "the speaker embedding of 'ann' has 4 values, but the model takes 4"),
        (np.array([0, 1, np.nan, 0]), "the speaker embedding of 'ann' has values that are not finite; leave it out"),
    ],
)
def test_vectors_that_do_not_fit_are_named(tmp_path: Path, vector: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_voices(npz(tmp_path, ann=vector), 4)


@pytest.mark.parametrize("name", ["voices.npz", "voices.safetensors", "voices.npy"])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=rf"voices: there is no file .*{name}; give one of speaker embeddings"):
        read_voices(tmp_path / name, 4)
    (tmp_path / name).write_bytes(b"no vectors")
    with pytest.raises(ValueError, match=rf"voices: .*{name} cannot be read as .npz or .safetensors"):
        read_voices(tmp_path / name, 4)
    if name.endswith(".npy"):
        np.save(tmp_path / name, np.zeros(4))
        with pytest.raises(ValueError, match="cannot be read"):
            read_voices(tmp_path / name, 4)
