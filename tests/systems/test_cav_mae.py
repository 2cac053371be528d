"""CAV-MAE's options that no stored case has: several joint layers with and without the official shortcut, and structured removal."""

import dataclasses
from typing import Any

import pytest
import torch

from avtlm.nn.transformer import EncoderConfig
from avtlm.systems.cav_mae import CAVMAE, CAVMAEConfig, JointLayers


def layers(dim: int, count: int) -> EncoderConfig:
    return EncoderConfig(dim, count, 2, 2 * dim, dropout=0.0, attention_dropout=0.0, layer_drop=0.0, position_kernel=0)


def model(**changes: Any) -> CAVMAE:
    torch.manual_seed(0)
    return CAVMAE(CAVMAEConfig(32, 64, 16, layers(16, 1), 2, layers(8, 1), **changes)).eval()


def run(net: CAVMAE, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio, video = net.squares(torch.randn(3, 64, 128, generator=generator), torch.randn(3, 3, 32, 32, generator=generator))
    sound = net.remove(torch.rand(3, 32, generator=generator), generator)
    sight = net.remove(torch.rand(3, 4, generator=generator), generator) if net.config.structure == "unstructured" else None
    kept = sight or dataclasses.replace(sound, index=torch.zeros(3, 1, dtype=torch.long), counts=torch.ones(3, dtype=torch.long), width=4)
    encoded = net.encode(audio, video, sound, kept)
    return net.losses(audio, video, encoded, net.reconstruct(encoded))


def test_joint_layers_alone_see_the_same_input_only_where_it_is_asked_for() -> None:
    torch.manual_seed(0)
    joint, x = JointLayers(layers(16, 0), 2).eval(), torch.randn(2, 5, 16)
    shortcut = joint.alone(x, "audio", same_input=True)
    last = JointLayers(layers(16, 0), 1).eval()
    last.layers[0], last.norms["audio"][0] = joint.layers[1], joint.norms["audio"][1]  # type: ignore[index, operator]
    assert torch.equal(shortcut, last.alone(x, "audio"))
    assert not torch.allclose(shortcut, joint.alone(x, "audio"))
    torch.nn.init.constant_(joint.norms["video"][0][0].weight, 2.0)  # type: ignore[index, union-attr]
    assert not torch.allclose(joint.alone(x, "video"), joint.alone(x, "audio"))


@pytest.mark.parametrize("structure", ["unstructured", "time", "frequency", "both"])
def test_every_removal_gives_losses_and_gradients(structure: str) -> None:
    net = model(structure=structure, both_ways=True, same_input=False)
    losses = run(net)
    assert set(losses) == {"audio", "video", "contrast", "total"}
    losses["total"].backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


def test_options_of_the_losses_change_them() -> None:
    plain, raw, both = run(model()), run(model(normalise_targets=False)), run(model(both_ways=True))
    assert plain["audio"] != raw["audio"]
    assert plain["audio"] == both["audio"]
    assert plain["contrast"] != both["contrast"]
    assert plain["total"].item() == pytest.approx((plain["audio"] + plain["video"] + 0.01 * plain["contrast"]).item())
