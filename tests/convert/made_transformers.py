"""Models of transformers of a few thousand random weights, in folders as it saves them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from avtlm.convert.huggingface import convert_folder
from avtlm.convert.model import ConversionError
from avtlm.convert.pickles import TorchFileError
from avtlm.convert.tensor_files import WeightsError
from avtlm.data.batching import Batch

transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8] * 7,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": 9,
}
CLASSIC = SIZES | {"num_conv_pos_embeddings": 6}
LARGE = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
QUANTISER = {"num_codevectors_per_group": 5, "codevector_dim": 6, "proj_codevector_dim": 4}
# Kinds of encoders: class, options.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2": ("Wav2Vec2", CLASSIC | QUANTISER),
    "wav2vec2 large": ("Wav2Vec2", CLASSIC | QUANTISER | LARGE),
    "hubert": ("Hubert", CLASSIC),
    "hubert large": ("Hubert", CLASSIC | LARGE | {"feat_proj_layer_norm": False}),
    "wavlm": ("WavLM", CLASSIC | {"num_buckets": 16, "max_bucket_distance": 20}),
    "wavlm large": ("WavLM", CLASSIC | LARGE | {"num_buckets": 16, "max_bucket_distance": 20}),
    "data2vec": ("Data2VecAudio", SIZES | {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 3}),
    "wav2vec2 shortened": ("Wav2Vec2", CLASSIC | QUANTISER | {"add_adapter": True, "num_adapter_layers": 1, "output_hidden_size": 12}),
    "wav2vec2 adapted": ("Wav2Vec2", CLASSIC | QUANTISER | LARGE | {"adapter_attn_dim": 4}),
    "hubert batch norm": ("Hubert", CLASSIC | {"conv_pos_batch_norm": True}),
    "wavlm unusual": ("WavLM", CLASSIC | {"hidden_act": "silu", "feat_extract_activation": "relu", "layer_norm_eps": 1e-3}),
    "data2vec of one block": ("Data2VecAudio", SIZES | {"num_conv_pos_embeddings": 1, "conv_pos_kernel_size": 4}),
}
LETTERS = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6, "A": 7, "'": 8}
PREPROCESSOR = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True, "sampling_rate": 16000}


def make(kind: str, suffix: str = "Model", **options: Any) -> Any:
    """A random model in evaluation mode, with weights off their start values."""
    name, values = KINDS[kind]
    config = getattr(transformers, f"{name}Config")(**values | options)
    torch.manual_seed(0)
    model = getattr(transformers, name + suffix)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def save(model: Any, folder: Path, letters: dict[str, int] | None = None, preprocessor: dict[str, Any] | None = PREPROCESSOR) -> Path:
    """The folder of a model, with the files of a feature extractor and, with ``letters``, of a tokenizer."""
    model.save_pretrained(folder)
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    if letters is not None:
        (folder / "vocab.json").write_text(json.dumps(letters))
    return folder


def change(path: Path, **values: Any) -> Path:
    """Other values in a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return path


def with_config(**values: Any) -> Callable[[Path], Any]:
    """Gives a folder other options."""
    return lambda folder: change(folder / "config.json", **values)


def with_tensors(edit: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], Any]:
    """Gives a folder other tensors."""

    def change(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        edit(state)
        save_file(state, folder / "model.safetensors")

    return change


def clips(lengths: tuple[int, ...] = (5000, 3700, 4400)) -> Batch:
    """Noise."""
    audio = torch.randn(len(lengths), max(lengths), generator=torch.Generator().manual_seed(1))
    for row, length in enumerate(lengths):
        audio[row, length:] = 0.0
    return Batch(tuple("abcdef"[: len(lengths)]), "audio", audio, torch.tensor(lengths))


def attention_mask(batch: Batch) -> Tensor:
    assert batch.audio is not None
    assert batch.audio_lengths is not None
    return (torch.arange(batch.audio.shape[1]) < batch.audio_lengths[:, None]).long()


def error(ours: Tensor, theirs: Tensor, lengths: Tensor) -> float:
    """The largest difference of valid frames, in units of the largest value."""
    valid = torch.arange(ours.shape[1]) < lengths[:, None]
    return float((ours - theirs).abs()[valid].max() / theirs.abs()[valid].max().clamp(min=1))


def letters_of(text: str, *special: str) -> str:
    """What transformers decodes, without the names of special symbols. (It can leave them out itself, but then before it collapses.)"""
    for name in special:
        text = text.replace(name, "")
    return " ".join(text.split())


def assert_refused(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    """Save a folder, damage it, and see that converting it ends with one sentence and writes nothing."""
    folder = save(make("hubert"), tmp_path / "theirs")
    damage(folder)
    with pytest.raises((ConversionError, WeightsError, TorchFileError), match=message) as caught:
        convert_folder(folder, None, tmp_path / "out/ours")
    assert "theirs" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
