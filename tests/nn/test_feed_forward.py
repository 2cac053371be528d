"""Modality experts: equal experts are a plain layer, rows go where they belong, plain weights load into all of them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from avtlm.nn.feed_forward import EXPERTS, JOINT, ExpertFeedForward, FeedForward, Routing, route, spread
from avtlm.nn.transformer import Encoder, EncoderConfig
from avtlm.training.initial import load_except

PLAIN = EncoderConfig(dim=16, layers=3, heads=4, feed_forward_dim=24, position_kernel=6, position_groups=4)
MULTIPATH = replace(PLAIN, experts=EXPERTS)


def frames(rows: int = 4) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 7, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([7, 3, 5, 2][:rows])


def encoder(config: EncoderConfig, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    model = Encoder(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    return model.eval()


def present(**rows: list[int]) -> dict[str, Tensor]:
    return {name: torch.tensor(values, dtype=torch.bool) for name, values in rows.items()}


def test_rows_with_one_modality_go_to_its_expert_and_all_others_to_the_joint_one() -> None:
    routing = route(present(audio=[1, 1, 0, 0, 1], video=[1, 0, 1, 0, 0]))
    assert [(name, [] if rows is None else rows.tolist()) for name, rows in routing.parts] == [
        ("audio", [1, 4]),
        ("video", [2]),
        (JOINT, [0, 3]),
    ]
    assert route(present(audio=[1, 1], video=[1, 1])) == Routing(((JOINT, None),))
    assert route(present(text=[1, 1])) == Routing((("text", None),))


@pytest.mark.parametrize("config", [MULTIPATH, replace(MULTIPATH, joint_layers=1), replace(MULTIPATH, norm_first=False)])
@pytest.mark.parametrize("name", EXPERTS)
def test_equal_experts_are_the_plain_encoder_to_the_last_bit(config: EncoderConfig, name: str) -> None:
    plain = encoder(replace(config, experts=(), joint_layers=0))
    multipath = encoder(config, seed=1)
    multipath.load_state_dict(plain.state_dict())  # strictly: plain weights are all there is
    x, lengths = frames()
    assert torch.equal(multipath(x, lengths, routing=Routing(((name, None),))), plain(x, lengths))


def test_equal_experts_are_the_plain_encoder_for_a_mixed_batch_too() -> None:
    plain, multipath = encoder(PLAIN), encoder(MULTIPATH, seed=1)
    multipath.load_state_dict(plain.state_dict())
    x, lengths = frames()
    routing = route(present(audio=[1, 1, 0, 0], video=[1, 0, 1, 0], text=[0, 0, 0, 1]))
    torch.testing.assert_close(multipath(x, lengths, routing=routing), plain(x, lengths), atol=1e-6, rtol=1e-6)


def test_a_row_gives_the_same_in_a_mixed_batch_and_among_its_own_kind() -> None:
    model = encoder(MULTIPATH)
    x, lengths = frames()
    mixed = model(x, lengths, routing=route(present(audio=[1, 1, 0, 0], video=[1, 0, 1, 0], text=[0, 0, 0, 1])))
    seen = []
    for row, name in enumerate((JOINT, "audio", "video", "text")):
        alone = model(x[row : row + 1], lengths[row : row + 1], routing=Routing(((name, None),)))
        torch.testing.assert_close(mixed[row : row + 1], alone, atol=1e-6, rtol=1e-6)
        seen.append(model(x, lengths, routing=Routing(((name, None),))))
    assert all(not torch.allclose(one, two) for index, one in enumerate(seen) for two in seen[:index])


def test_each_expert_learns_from_its_own_rows_alone() -> None:
    model = encoder(MULTIPATH)
    x, lengths = frames(2)
    model(x, lengths, routing=route(present(audio=[1, 0], video=[0, 1]))).square().sum().backward()
    learned = {name: [p.grad is not None for key, p in model.named_parameters() if f"experts.{name}." in key] for name in EXPERTS}
    assert {name for name, has in learned.items() if all(has)} == {"audio", "video"}
    assert not any(learned["text"] + learned[JOINT])


def test_the_last_layers_may_be_joint_and_the_attention_is_shared() -> None:
    model = encoder(replace(MULTIPATH, joint_layers=2))
    names = [set(layer.feed_forward.experts) for layer in model.layers]  # type: ignore[union-attr, operator]
    assert names == [set(EXPERTS), {JOINT}, {JOINT}]
    plain, one = (sum(p.numel() for p in encoder(config).parameters()) for config in (PLAIN, replace(MULTIPATH, joint_layers=2)))
    assert one == plain + 3 * sum(p.numel() for p in FeedForward(16, 24, "gelu", 0.0).parameters())


def test_inputs_without_an_expert_of_their_own_share_the_joint_one() -> None:
    module = ExpertFeedForward(("audio", JOINT), lambda: FeedForward(4, 8, "gelu", 0.0))
    x = torch.randn(2, 3, 4)
    assert torch.equal(module(x, Routing((("text", None),))), module.experts[JOINT](x))
    assert not torch.allclose(module(x, Routing((("audio", None),))), module.experts[JOINT](x))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"experts": ("audio", "video")}, "joint has to be among them"),
        ({"experts": ("smell", JOINT)}, "choose among audio, video, text, joint"),
        ({"experts": (JOINT,), "joint_layers": 4}, "at most all 3 layers"),
        ({"joint_layers": 1}, "joint_layers: 1"),
    ],
)
def test_impossible_experts_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PLAIN, **wrong)  # type: ignore[arg-type]


def test_a_run_may_give_experts_to_a_plain_model() -> None:
    plain, multipath = encoder(PLAIN), encoder(replace(MULTIPATH, joint_layers=1), seed=1)
    load_except(multipath, plain.state_dict(), ())
    x, lengths = frames()
    assert torch.equal(multipath(x, lengths, routing=Routing((("audio", None),))), plain(x, lengths))
    weights = encoder(MULTIPATH, seed=2).state_dict()
    assert spread(encoder(MULTIPATH), weights).keys() == weights.keys()
