"""Checkpoints of teachers in their public layouts: what is read, and what is refused."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from avtlm.convert.model import ConversionError
from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.teachers import BEATS, WHISPER_HUGGING_FACE, WHISPER_OPENAI
from avtlm.convert.pickles import TorchFileError
from avtlm.convert.teachers import beats_config, ecapa_config, read_beats, read_ecapa, read_whisper
from avtlm.nn.beats import Beats
from avtlm.nn.ecapa import Ecapa, EcapaConfig
from avtlm.nn.whisper_encoder import WhisperConfig, WhisperEncoder
from avtlm.teachers import open_teacher
from tests.nn.test_teachers import SMALL_BEATS

WHISPER = WhisperConfig(dim=16, layers=2, heads=2, feed_forward_dim=64, bands=80, positions=50)
ECAPA = EcapaConfig(channels=(16, 16, 16, 16, 24), dilations=(1, 2, 2, 3, 1), attention_dim=6, squeezed=4, scale=4, dim=7)
WAVE = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))


def same(one: nn.Module, two: nn.Module) -> bool:
    state = two.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())


def whisper() -> WhisperEncoder:
    torch.manual_seed(0)
    model = WhisperEncoder(WHISPER).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("key.bias"):
            nn.init.zeros_(parameter)
    return model


def test_whisper_is_read_from_a_hugging_face_folder_without_its_decoder(tmp_path: Path) -> None:
    model = whisper()
    state = {
        f"model.{find_key(WHISPER_HUGGING_FACE, name)}": tensor for name, tensor in model.state_dict().items() if "key.bias" not in name
    }
    state["model.decoder.embed_tokens.weight"] = torch.zeros(3, 16)
    save_file(state, tmp_path / "model.safetensors")
    values: dict[str, Any] = {
        "model_type": "whisper",
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "num_mel_bins": 80,
        "max_source_positions": 50,
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert same(model, read_whisper(tmp_path))
    teacher = open_teacher("speech", tmp_path)
    assert (teacher.width, teacher.rate) == (16, 50.0)
    assert teacher.answer(WAVE).shape == (25, 16)
    with pytest.raises(ValueError, match="hears 1 s at most"):
        teacher.answer(WAVE.repeat(3))
    (tmp_path / "config.json").write_text(json.dumps(values | {"encoder_layers": 3}))
    with pytest.raises(ConversionError, match="missing"):
        read_whisper(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(values | {"model_type": "bert"}))
    with pytest.raises(ConversionError, match="of the type 'bert', not whisper"):
        read_whisper(tmp_path)


def test_whisper_is_read_from_openais_file(tmp_path: Path) -> None:
    model = whisper()
    state = {f"encoder.{find_key(WHISPER_OPENAI, name)}": tensor for name, tensor in model.state_dict().items() if "key.bias" not in name}
    dims = {"n_mels": 80, "n_audio_ctx": 50, "n_audio_state": 16, "n_audio_head": 2, "n_audio_layer": 2, "n_vocab": 9}
    torch.save({"dims": dims, "model_state_dict": {**state, "decoder.ln.weight": torch.zeros(2)}}, tmp_path / "small.pt")
    assert same(model, read_whisper(tmp_path / "small.pt"))
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(ConversionError, match="no file of OpenAI's Whisper"):
        read_whisper(tmp_path / "other.pt")


def beats_file(path: Path, model: Beats, **changes: Any) -> Path:
    state: dict[str, Tensor] = {find_key(BEATS, name): tensor for name, tensor in model.state_dict().items()}
    state = {key: tensor.reshape(1, -1, 1, 1) if key.endswith("grep_a") else tensor for key, tensor in state.items()}
    table = "encoder.layers.{}.self_attn.relative_attention_bias.weight"
    state[table.format(1)] = state[table.format(0)]
    cfg = {
        "input_patch_size": 16,
        "embed_dim": 12,
        "conv_bias": False,
        "encoder_layers": 2,
        "encoder_embed_dim": 16,
        "encoder_ffn_embed_dim": 24,
        "encoder_attention_heads": 2,
        "activation_fn": "gelu",
        "layer_norm_first": False,
        "deep_norm": True,
        "conv_pos": 8,
        "conv_pos_groups": 2,
        "relative_position_embedding": True,
        "num_buckets": 16,
        "max_distance": 800,
        "gru_rel_pos": True,
        "finetuned_model": True,
        "predictor_class": 5,
        "dropout": 0.1,
    }
    torch.save({"cfg": cfg | changes, "model": state, "label_dict": {place: f"/m/{place}" for place in range(5)}}, path)
    return path


def test_beats_is_read_with_the_identifiers_of_its_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Beats(SMALL_BEATS).eval()
    made, tags = read_beats(beats_file(tmp_path / "beats.pt", model))
    assert same(model, made)
    assert tags == tuple(f"/m/{place}" for place in range(5))
    teacher = open_teacher("sound", tmp_path / "beats.pt")
    said = teacher.answer(WAVE)
    assert said.shape == (5,)
    assert bool(((said > 0) & (said < 1)).all())
    for changes, message in (
        ({"finetuned_model": False}, "BEATs without classes"),
        ({"activation_fn": "swish"}, "activation_fn 'swish'"),
        ({"new_switch": 1}, "options of BEATs that avtlm does not know: new_switch"),
        ({"predictor_class": 6}, "names 5 classes, but predicts 6"),
    ):
        with pytest.raises(ConversionError, match=message):
            read_beats(beats_file(tmp_path / "other.pt", model, **changes))


def test_beats_may_have_gated_feed_forward_parts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Beats(replace(SMALL_BEATS, activation="glu")).eval()
    path = beats_file(tmp_path / "beats.pt", model, activation_fn="glu")
    content = torch.load(path)
    content["model"] = {re.sub(r"fc1\.(weight|bias)", r"fc1.linear.\1", key): tensor for key, tensor in content["model"].items()}
    torch.save(content, path)
    made, _ = read_beats(path)
    assert same(model, made)
    part, x = made.layers[0].feed_forward, torch.randn(2, 3, 16)
    value, gate = torch.nn.functional.linear(x, part.expand.weight, part.expand.bias).chunk(2, -1)
    torch.testing.assert_close(part(x), part.contract(value * gate * gate.sigmoid()))


def test_options_of_beats_are_read_and_what_a_file_does_not_say_is_as_officially() -> None:
    said = {"input_patch_size": 16, "layer_norm_first": True, "relative_position_embedding": True, "activation_fn": "relu"}
    found = beats_config(said, "beats.pt")
    assert (found.norm_first, found.relative, found.gated, found.deep_norm, found.activation) == (True, True, False, False, "relu")
    plain = beats_config({"input_patch_size": 16}, "beats.pt")
    assert (plain.norm_first, plain.relative, plain.gated, plain.deep_norm, plain.activation) == (False, False, False, False, "gelu")
    assert plain.relative_distance == 1280
    with pytest.raises(ConversionError, match="norm_first, deep_norm: a model has one"):
        beats_config({**said, "deep_norm": True}, "beats.pt")


def official_ecapa(model: Ecapa) -> dict[str, Tensor]:
    """Names as SpeechBrain's, whose convolutions and norms are wrapped twice."""
    pairs = (
        ("input.conv.", "blocks.0.conv.conv."),
        ("input.norm.", "blocks.0.norm.norm."),
        ("gather.conv.", "mfa.conv.conv."),
        ("gather.norm.", "mfa.norm.norm."),
        ("pooling.context.conv.", "asp.tdnn.conv.conv."),
        ("pooling.context.norm.", "asp.tdnn.norm.norm."),
        ("pooling.weights.", "asp.conv.conv."),
        ("norm.", "asp_bn.norm."),
        ("output.", "fc.conv."),
    )
    inner = (
        (".first.conv.", ".tdnn1.conv.conv."),
        (".first.norm.", ".tdnn1.norm.norm."),
        (".last.conv.", ".tdnn2.conv.conv."),
        (".last.norm.", ".tdnn2.norm.norm."),
        (".shortcut.", ".shortcut.conv."),
        (".squeeze.", ".se_block.conv1.conv."),
        (".excite.", ".se_block.conv2.conv."),
        (".conv.", ".conv.conv."),
        (".norm.", ".norm.norm."),
    )
    found = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            key = f"blocks.{int(number) + 1}.{rest.replace('parts.', 'res2net_block.blocks.')}"
            ours, theirs = next(pair for pair in inner if pair[0] in key)
            found[key.replace(ours, theirs)] = tensor
        else:
            ours, theirs = next(pair for pair in pairs if name.startswith(pair[0]))
            found[theirs + name.removeprefix(ours)] = tensor
    return found


def test_pooling_without_the_context_of_the_clip_is_told_by_its_shapes() -> None:
    model = Ecapa(replace(ECAPA, global_context=False)).eval()
    assert ecapa_config(official_ecapa(model), ECAPA.dilations, "here") == model.config


def test_groups_and_unequal_channels_of_ecapa_are_told_by_its_shapes() -> None:
    widths = (ECAPA.channels[0] // 2, *ECAPA.channels[1:])
    model = Ecapa(replace(ECAPA, channels=widths, groups=(1, 2, 2, 2, 2))).eval()
    assert ecapa_config(official_ecapa(model), ECAPA.dilations, "here") == model.config
    assert [block.first.conv.groups for block in model.blocks] == [2, 2, 2]
    assert [isinstance(block.shortcut, torch.nn.Conv1d) for block in model.blocks] == [True, False, False]
    assert model(torch.randn(1, 40, ECAPA.bands), torch.tensor([40])).shape == (1, ECAPA.dim)
    with pytest.raises(ValueError, match="groups: 3 of"):
        replace(ECAPA, groups=(1, 3, 1, 1, 1))


def test_ecapa_is_read_from_speechbrains_folder_with_the_dilations_of_its_recipe(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Ecapa(ECAPA).eval()
    torch.save(official_ecapa(model), tmp_path / "embedding_model.ckpt")
    (tmp_path / "hyperparams.yaml").write_text("embedding_model: !new:ECAPA_TDNN\n    dilations: [1, 2, 2, 3, 1]\n")
    made = read_ecapa(tmp_path)
    assert made.config == ECAPA
    assert same(model, made)
    teacher = open_teacher("speaker", tmp_path / "embedding_model.ckpt")
    assert (teacher.width, teacher.answer(WAVE).shape) == (7, (7,))
    (tmp_path / "hyperparams.yaml").unlink()
    assert read_ecapa(tmp_path).config.dilations == (1, 2, 3, 4, 1)
    torch.save({"x": torch.zeros(2)}, tmp_path / "embedding_model.ckpt")
    with pytest.raises(ConversionError, match="does not hold the tensors of SpeechBrain's ECAPA-TDNN"):
        read_ecapa(tmp_path)
    (tmp_path / "embedding_model.ckpt").write_bytes(b"nothing")
    with pytest.raises(TorchFileError, match=r"embedding_model\.ckpt"):
        read_ecapa(tmp_path)


def test_clips_that_cannot_be_heard_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = open_teacher("sound", beats_file(tmp_path / "beats.pt", Beats(SMALL_BEATS)))
    with pytest.raises(ValueError, match="3000 samples are too few for a teacher"):
        teacher.answer(WAVE[:3000])
    with pytest.raises(ValueError, match="numbers that are not finite"):
        teacher.answer(WAVE * float("nan"))
