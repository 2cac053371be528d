"""Cases of CAV-MAE are replayed: against its forward pass written out here, with two joint blocks and with every option, and with what
differs noticed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.replay import replay
from benchmarks.replay.multistage import our_tensors, relative

DIM, HEADS, WIDTH, FRAMES, SIDE, OWN = 8, 2, 4, 32, 32, 10
MODEL = {
    "img_size": SIDE,
    "audio_length": FRAMES,
    "embed_dim": DIM,
    "modality_specific_depth": OWN,
    "num_heads": HEADS,
    "decoder_embed_dim": WIDTH,
    "decoder_depth": 1,
    "decoder_num_heads": 1,
    "mlp_ratio": 2.0,
    "norm_pix_loss": False,
}
MASKED = {"a": 0.75, "v": 0.75}
State = dict[str, Tensor]


def made_state(generator: torch.Generator) -> State:
    """Random weights under the official names."""
    shapes: dict[str, tuple[int, ...]] = {"mask_token": (1, 1, WIDTH)}
    for letter, channels in (("a", 1), ("v", 3)):
        shapes |= {f"patch_embed_{letter}.proj.weight": (DIM, channels, 16, 16), f"patch_embed_{letter}.proj.bias": (DIM,)}
        shapes |= {f"modality_{letter}": (1, 1, DIM), f"decoder_modality_{letter}": (1, 1, WIDTH)}
        shapes |= {f"decoder_pred_{letter}.weight": (256 * channels, WIDTH), f"decoder_pred_{letter}.bias": (256 * channels,)}
    shapes |= {"decoder_embed.weight": (WIDTH, DIM), "decoder_embed.bias": (WIDTH,)}
    for name, size in (("norm", DIM), ("norm_a", DIM), ("norm_v", DIM), ("decoder_norm", WIDTH)):
        shapes |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    stacks = [(f"blocks_{letter}.{n}", DIM) for letter in "av" for n in range(OWN)]
    stacks += [(f"blocks_u.{n}", DIM) for n in range(12 - OWN)] + [("decoder_blocks.0", WIDTH)]
    for block, size in stacks:
        for norm in ("norm1", "norm1_a", "norm1_v", "norm2", "norm2_a", "norm2_v"):
            shapes |= {f"{block}.{norm}.weight": (size,), f"{block}.{norm}.bias": (size,)}
        for part, rows, columns in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 2, 1), ("mlp.fc2", 1, 2)):
            shapes |= {f"{block}.{part}.weight": (rows * size, columns * size), f"{block}.{part}.bias": (rows * size,)}
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def grid(dim: int, rows: int, columns: int) -> Tensor:
    place = torch.arange(rows * columns)
    rate = 1 / 10000 ** (torch.arange(dim // 4) / (dim / 4))
    angles = [each[:, None] * rate for each in (place % columns, place // columns)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], 1)


def block(x: Tensor, state: State, name: str, heads: int, modality: str = "") -> Tensor:
    def norm(y: Tensor, which: str) -> Tensor:
        key = f"{name}.{which}{modality}"
        return F.layer_norm(y, y.shape[-1:], state[f"{key}.weight"], state[f"{key}.bias"])

    def linear(y: Tensor, part: str) -> Tensor:
        return F.linear(y, state[f"{name}.{part}.weight"], state[f"{name}.{part}.bias"])

    split = linear(norm(x, "norm1"), "attn.qkv").unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    weights = (split[0] @ split[1].transpose(-1, -2) / split.shape[-1] ** 0.5).softmax(-1)
    x = x + linear((weights @ split[2]).transpose(1, 2).flatten(2), "attn.proj")
    return x + linear(F.gelu(linear(norm(x, "norm2"), "mlp.fc1")), "mlp.fc2")


PLACES = {"pos_embed_a": (DIM, 8, FRAMES // 16), "pos_embed_v": (DIM, SIDE // 16, SIDE // 16)}
PLACES |= {f"decoder_{name}": (WIDTH, *size) for name, (_, *size) in PLACES.items()}


def official(state: State, inputs: State, removed: dict[str, float] = MASKED, weight: float = 1.0) -> State:
    """What the official forward pass gives; places are sinusoids unless the state holds them."""
    found: State = {}

    def place(name: str) -> Tensor:
        return state[name] if name in state else grid(*PLACES[name])

    audio = inputs["audio"][:, None].transpose(2, 3)
    sizes = {"a": (8, FRAMES // 16), "v": (SIDE // 16, SIDE // 16)}
    rows, streams, restores = len(audio), {}, {}
    for letter, picture in (("a", audio), ("v", inputs["image"])):
        height, width = sizes[letter]
        embedded = F.conv2d(picture, state[f"patch_embed_{letter}.proj.weight"], state[f"patch_embed_{letter}.proj.bias"], stride=16)
        x = embedded.flatten(2).transpose(1, 2) + place(f"pos_embed_{letter}") + state[f"modality_{letter}"]
        shuffle = inputs[f"noise_{letter}"].argsort(1)
        kept = shuffle[:, : int(x.shape[1] * (1 - removed[letter]))]
        restores[letter] = shuffle.argsort(1)
        mask = torch.ones(rows, x.shape[1]).scatter(1, kept, 0.0)
        found |= {f"mask_{letter}": mask, f"ids_restore_{letter}": restores[letter]}
        x = x.gather(1, kept[..., None].expand(-1, -1, DIM))
        for number in range(OWN):
            x = block(x, state, f"blocks_{letter}.{number}", HEADS)
        streams[letter] = x
        patches = picture.reshape(rows, picture.shape[1], height, 16, width, 16)
        found[f"patches_{letter}"] = torch.einsum("nchpwq->nhwpqc", patches).reshape(rows, height * width, -1)

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    joint = torch.cat([streams["a"], streams["v"]], 1)
    for number in range(12 - OWN):
        joint = block(joint, state, f"blocks_u.{number}", HEADS)
    found["latent"] = norm(joint, "norm")
    for letter in "av":  # every block sees the same input
        last = [block(streams[letter], state, f"blocks_u.{number}", HEADS, f"_{letter}") for number in range(12 - OWN)][-1]
        found[f"latent_contrast_{letter}"] = norm(last, f"norm_{letter}")
    x = F.linear(found["latent"], state["decoder_embed.weight"], state["decoder_embed.bias"])
    parts, start = [], 0
    for letter in "av":
        tokens, kept = restores[letter].shape[1], streams[letter].shape[1]
        whole = torch.cat([x[:, start : start + kept], state["mask_token"].expand(rows, tokens - kept, -1)], 1)
        whole = whole.gather(1, restores[letter][..., None].expand(-1, -1, WIDTH))
        parts.append(whole + place(f"decoder_pos_embed_{letter}") + state[f"decoder_modality_{letter}"])
        start += kept
    x = norm(block(torch.cat(parts, 1), state, "decoder_blocks.0", 1), "decoder_norm")
    for letter, part in zip("av", x.split([each.shape[1] for each in parts], 1), strict=True):
        found[f"pred_{letter}"] = F.linear(part, state[f"decoder_pred_{letter}.weight"], state[f"decoder_pred_{letter}.bias"])
        error = (found[f"pred_{letter}"] - found[f"patches_{letter}"]).square().mean(-1)
        found[f"loss_mae_{letter}"] = (error * found[f"mask_{letter}"]).sum() / found[f"mask_{letter}"].sum()
    views = [F.normalize(found[f"latent_contrast_{letter}"].mean(1), dim=-1) for letter in "av"]
    similarity = views[0] @ views[1].t() / 0.05
    one, other = (-similarity.log_softmax(direction).diagonal().mean() for direction in (0, 1))
    found |= {"nce_single": one, "nce_bidirectional": (one + other) / 2}
    found["loss"] = weight * (found["loss_mae_a"] + found["loss_mae_v"]) + 0.01 * one
    return found


def made(learned: tuple[str, ...], places: bool = False, raised: Tensor | None = None, **options: Any) -> tuple[State, State, State]:
    """Weights, inputs, and what the official code makes of them.

    Args:
        learned: tensors whose gradients are kept; zeros for those that have none.
        places: learn them, too.
        raised: noise of sound at which a structured removal has raised it, bool (2, 16), which the inputs do not tell.
    """
    generator = torch.Generator().manual_seed(0)
    state = made_state(generator)
    if places:
        state |= {
            name: grid(*size)[None] + 0.1 * torch.randn(1, size[1] * size[2], size[0], generator=generator) for name, size in PLACES.items()
        }
    state = {name: tensor.requires_grad_() for name, tensor in state.items()}
    inputs = {"audio": torch.randn(2, FRAMES, 128, generator=generator), "image": torch.randn(2, 3, SIDE, SIDE, generator=generator)}
    inputs |= {"noise_a": torch.rand(2, 16, generator=generator), "noise_v": torch.rand(2, 4, generator=generator)}
    noise = inputs["noise_a"] if raised is None else inputs["noise_a"].masked_fill(raised, 1.1)
    outputs = official(state, {**inputs, "noise_a": noise}, **options)
    outputs["loss"].backward()
    for name in learned:
        gradient = state[name].grad
        outputs[f"grad.{name}"] = torch.zeros_like(state[name]) if gradient is None else gradient
    return tuple({name: tensor.detach().contiguous() for name, tensor in part.items()} for part in (state, inputs, outputs))  # type: ignore[return-value]


LEARNED = ("patch_embed_v.proj.weight", "blocks_u.1.norm1_a.weight", "blocks_v.0.attn.qkv.weight", "mask_token", "decoder_modality_a")


@pytest.fixture(scope="module")
def tensors() -> tuple[State, State, State]:
    return made(LEARNED)


def case(folder: Path, parts: tuple[State, State, State], config: dict[str, Any] | None = None, **model: Any) -> Path:
    folder.mkdir()
    for name, values in zip(("state", "inputs", "outputs"), parts, strict=True):
        save_file(values, folder / f"{name}.safetensors")
    told = {"model": MODEL | model, "mask_a": 0.75, "mask_v": 0.75, "contrast_weight": 0.01} | (config or {})
    tolerance = {"forward": 2e-05, "grad": "1e-4 relative"}
    (folder / "case.json").write_text(json.dumps({"official_class": "CAVMAE (made)", "config": told, "tolerance": tolerance}))
    return folder


def matched(folder: Path, skipped: tuple[str, ...] = ()) -> set[str]:
    """What was compared of a case in which everything has to be right."""
    report = replay(folder, "case")
    assert report.failure is None
    assert tuple(report.skipped) == skipped
    assert [(each.name, each.error) for each in report.comparisons if not each.passed] == []
    return {each.name for each in report.comparisons}


def test_the_written_out_forward_pass_and_its_gradients_are_matched(tmp_path: Path, tensors: tuple[State, State, State]) -> None:
    assert matched(case(tmp_path / "case", tensors)) >= set(tensors[2])


def test_modalities_may_be_removed_by_different_shares_and_losses_weighed(tmp_path: Path) -> None:
    parts = made(("patch_embed_a.proj.bias",), removed={"a": 0.5, "v": 0.25}, weight=2.0)
    folder = case(tmp_path / "case", parts, {"mask_a": 0.5, "mask_v": 0.25, "mae_loss_weight": 2.0})
    assert matched(folder) >= set(parts[2])


def test_learned_places_are_weights_with_gradients(tmp_path: Path) -> None:
    parts = made(("pos_embed_v", "decoder_pos_embed_a"), places=True)
    assert matched(case(tmp_path / "case", parts, tr_pos=True)) >= set(parts[2])
    assert not replay(case(tmp_path / "fixed", parts), "case").passed


def test_norms_that_the_shortcut_of_joint_blocks_passes_by_have_no_gradients(tmp_path: Path) -> None:
    parts = made(("blocks_u.0.norm1_a.weight", "blocks_u.0.norm2_v.bias", "blocks_a.0.norm1_v.weight"))
    parts[2]["grad.pos_embed_a"] = torch.zeros(1, 16, DIM)
    assert not parts[2]["grad.blocks_u.0.norm1_a.weight"].any()
    assert matched(case(tmp_path / "case", parts)) >= set(parts[2])
    for name in ("blocks_u.0.norm1_a.weight", "blocks_a.0.norm1_v.weight"):
        wrong = {**parts[2], f"grad.{name}": torch.ones(DIM)}
        assert not replay(case(tmp_path / name, (*parts[:2], wrong)), "case").passed


def test_a_structured_removal_is_read_from_the_case(tmp_path: Path) -> None:
    raised = torch.zeros(2, 8, 2, dtype=torch.bool)
    raised[0, :4], raised[1, 2:6] = True, True  # whole frequencies
    parts = made((), raised=raised.flatten(1))
    compared = matched(case(tmp_path / "case", parts, {"mask_mode": "freq"}), ("ids_restore_a",))
    assert compared >= set(parts[2]) - {"ids_restore_a"}
    assert not replay(case(tmp_path / "plain", parts), "case").passed
    assert "mask_mode" in (replay(case(tmp_path / "other", parts, {"mask_mode": "squares"}), "case").failure or "")


def test_options_that_a_case_does_not_tell_are_the_official_ones(tmp_path: Path, tensors: tuple[State, State, State]) -> None:
    folder = case(tmp_path / "case", tensors, patch_size=16, in_chans=3)
    told = json.loads((folder / "case.json").read_text())
    del told["config"]["model"]["norm_pix_loss"], told["config"]["contrast_weight"], told["config"]["mask_v"]
    (folder / "case.json").write_text(json.dumps(told))
    assert matched(folder) >= set(tensors[2])


def test_what_differs_is_noticed(tmp_path: Path, tensors: tuple[State, State, State]) -> None:
    assert not replay(case(tmp_path / "wrong_option", tensors, norm_pix_loss=True), "case").passed
    state = {**tensors[0], "blocks_u.1.norm2_v.bias": tensors[0]["blocks_u.1.norm2_v.bias"] + 0.1}
    wrong = {each.name for each in replay(case(tmp_path / "wrong_weight", (state, *tensors[1:])), "case").comparisons if not each.passed}
    assert "latent_contrast_v" in wrong
    assert "latent" not in wrong


def test_unknown_options_and_tensors_are_refused(tmp_path: Path, tensors: tuple[State, State, State]) -> None:
    unknown = replay(case(tmp_path / "option", tensors, patch_size=8, tr_pos=False), "case")
    assert unknown.failure == "case.json: config.model: options that avtlm does not know: patch_size."
    more = replay(case(tmp_path / "tensor", ({**tensors[0], "cls_token": torch.zeros(1)}, *tensors[1:])), "case")
    assert more.failure == "state.safetensors: CAV-MAE has no cls_token."
    fewer = {name: tensor for name, tensor in tensors[0].items() if not name.startswith("norm_a")}
    assert "audio.norm.bias" in (replay(case(tmp_path / "fewer", (fewer, *tensors[1:])), "case").failure or "")


def test_norms_of_single_modalities_are_of_use_in_joint_blocks_alone() -> None:
    assert our_tensors("blocks_a.3.norm1_v.weight", torch.zeros(2)) == {}
    assert list(our_tensors("blocks_u.0.norm2_v.weight", torch.zeros(2))) == ["joint.norms.video.0.1.weight"]
    assert relative("1e-4 relative") == 1e-4
