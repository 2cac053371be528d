"""Packed encoding: outputs, states and gradients as padded, whatever the lengths and the kind of encoder, and no work on padding."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avtlm.nn import packing as module
from avtlm.nn.attention import padding_mask
from avtlm.nn.feed_forward import EXPERTS, Routing, route
from avtlm.nn.packing import choose_packing, pack_rows
from avtlm.nn.transformer import Encoder, EncoderConfig, EncoderLayer

SMALL = EncoderConfig(
    dim=16, layers=3, heads=4, feed_forward_dim=24, dropout=0.0, attention_dropout=0.0, position_kernel=6, position_groups=4, layer_drop=0.0
)
KINDS = {
    "pre-norm": SMALL,
    "post-norm": replace(SMALL, norm_first=False),
    "odd kernel": replace(SMALL, position_kernel=7),
    "stacked positions": replace(SMALL, norm_first=False, position_blocks=3, position_kernel=15),
    "positions that see padding": replace(SMALL, position_blocks=3, position_kernel=15, compute_padding=True),
    "relative positions": replace(SMALL, norm_first=False, relative_buckets=8, relative_distance=6),
    "experts": replace(SMALL, experts=EXPERTS, joint_layers=1),
    "dropped layers": replace(SMALL, layer_drop=0.5),
}
CPU = torch.device("cpu")
lengths_of_batches = st.lists(st.integers(0, 11), min_size=1, max_size=5).filter(any)
each_kind = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


def encoder(config: EncoderConfig, dtype: torch.dtype = torch.float64) -> Encoder:
    torch.manual_seed(0)
    model = Encoder(config).to(dtype)
    for parameter in model.parameters():  # off their start values, so that leaving one out shows
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    return model.train()


def experts_of(config: EncoderConfig, rows: int) -> Routing | None:
    """Every kind of row in turn."""
    turn = torch.arange(rows) % 4
    return route({"audio": (turn == 0) | (turn == 3), "video": (turn == 1) | (turn == 3), "text": turn == 2}) if config.experts else None


def compare(config: EncoderConfig, compute: Callable[[Encoder, Tensor], Tensor], x: Tensor, tolerance: float) -> None:
    """Outputs, gradients of the input and of all parameters, packed and padded."""
    found: dict[str, dict[str, Tensor | None]] = {}
    for mode in ("always", "never"):
        model, given_x = encoder(replace(config, packing=mode), x.dtype), x.clone().requires_grad_()  # type: ignore[arg-type]
        torch.manual_seed(1)  # for dropped layers
        out = compute(model, given_x)
        (out * torch.linspace(-1, 1, out.numel(), dtype=x.dtype).view_as(out)).sum().backward()
        found[mode] = {"output": out, "input": given_x.grad, **{name: parameter.grad for name, parameter in model.named_parameters()}}
    for name, padded in found["never"].items():
        packed = found["always"][name]
        if packed is None or padded is None:  # what no frame went through has no gradient, or one of zeros
            assert all(each is None or not each.any() for each in (packed, padded)), name
            continue
        torch.testing.assert_close(packed, padded, atol=tolerance, rtol=tolerance, msg=lambda text, name=name: f"{name}: {text}")


@each_kind
@settings(max_examples=12, deadline=None)
@given(counts=lengths_of_batches, extra=st.integers(0, 3))
def test_packed_equals_padded_in_outputs_and_gradients(config: EncoderConfig, counts: list[int], extra: int) -> None:
    lengths, width = torch.tensor(counts), max(counts) + extra
    valid = ~padding_mask(lengths, width)
    x = torch.randn(len(counts), width, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    routing = experts_of(config, len(counts))
    compare(config, lambda model, x: model(x, lengths, routing=routing)[valid], x, 1e-9)


@each_kind
def test_packed_equals_padded_in_single_precision(config: EncoderConfig) -> None:
    lengths = torch.tensor([9, 0, 4, 1, 7])
    valid = ~padding_mask(lengths, 9)
    x = torch.randn(5, 9, 16, generator=torch.Generator().manual_seed(0))
    compare(config, lambda model, x: model(x, lengths, routing=experts_of(config, 5))[valid] / 30, x, 1e-5)


@each_kind
def test_all_states_single_layers_and_what_is_kept_are_those_of_padded_encoding(config: EncoderConfig) -> None:
    lengths = torch.tensor([9, 0, 4])
    valid = ~padding_mask(lengths, 9)
    x = torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    routing, found = experts_of(config, 3), {}
    for mode in ("always", "never"):
        model, kept = encoder(replace(config, packing=mode)).eval(), [torch.zeros(1)]  # type: ignore[arg-type]
        states = model.hidden_states(x, lengths, kept=kept, routing=routing)
        early = [model(x, lengths, layer, routing) for layer in (1, 2, 3)]
        assert (len(states), len(kept)) == (4, 4)
        found[mode] = [each[valid] for each in (*states, *kept[1:], *early)]
    for packed, padded in zip(found["always"], found["never"], strict=True):
        torch.testing.assert_close(packed, padded, atol=1e-9, rtol=1e-9)


def test_no_layer_sees_a_padded_frame() -> None:
    model, seen = encoder(replace(SMALL, packing="always")), []
    for layer in model.layers:
        assert isinstance(layer, EncoderLayer)
        for part in (layer, layer.feed_forward, layer.self_attention, layer.self_attention_norm):
            part.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    out = model(torch.randn(3, 9, 16, dtype=torch.float64), torch.tensor([9, 0, 4]))
    assert seen == [(13, 16)] * 12
    assert out.shape == (3, 9, 16)
    assert not out[padding_mask(torch.tensor([9, 0, 4]), 9)].any()


def test_a_batch_without_any_frame_is_left_padded() -> None:
    model = encoder(replace(SMALL, packing="always"))
    x = torch.randn(2, 3, 16, dtype=torch.float64, requires_grad=True)
    out = model(x, torch.tensor([0, 0]))
    out.sum().backward()
    assert out.isfinite().all()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_auto_packs_where_there_is_padding_enough_to_leave_out() -> None:
    x, much, little = torch.zeros(2, 100, 64), torch.tensor([100, 60]), torch.tensor([100, 99])
    assert choose_packing("auto", much, x) is not None
    assert choose_packing("auto", much, x[..., :16]) is None, "narrow layers gain nothing"
    assert choose_packing("auto", little, x) is None
    assert choose_packing("always", little, x) is not None
    assert choose_packing("never", much, x) is None
    assert choose_packing("always", None, x) is None


class OnGPU:
    """What is asked of a tensor before its batch is packed."""

    shape = (2, 100, 64)
    device = torch.device("cuda")


def test_auto_packs_on_a_gpu_only_where_xformers_runs_and_attention_has_no_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "pack_rows", lambda counts, width, device: pack_rows(counts, width, CPU))
    lengths, x = torch.tensor([100, 60]), OnGPU()
    for ready in (True, False):
        monkeypatch.setattr(module, "xformers_ready", lambda ready=ready: ready)
        assert (choose_packing("auto", lengths, x) is not None) == ready  # type: ignore[arg-type]
        assert choose_packing("auto", lengths, x, biased=True) is None  # type: ignore[arg-type]
        assert choose_packing("always", lengths, x, biased=True) is not None  # type: ignore[arg-type]


def test_an_encoder_that_computes_padding_is_packed_on_demand_only() -> None:
    x, lengths = torch.randn(2, 120, 16), torch.tensor([120, 2])
    beyond = padding_mask(lengths, 120)
    plain, official, asked = (
        encoder(replace(SMALL, **changes), torch.float32)  # type: ignore[arg-type]
        for changes in ({}, {"compute_padding": True}, {"compute_padding": True, "packing": "always"})
    )
    assert not plain(x, lengths)[beyond].any()
    assert official(x, lengths)[beyond].any(-1).all()
    assert not asked(x, lengths)[beyond].any()


def test_what_is_packed_and_unpacked_comes_back_and_sequences_keep_apart() -> None:
    packing = pack_rows((2, 0, 3), 4, CPU)
    x = torch.arange(1, 13).view(3, 4, 1)
    packed = packing.pack(x)
    assert packed.flatten().tolist() == [1, 2, 9, 10, 11]
    assert packing.sequence.tolist() == [0, 0, 2, 2, 2]
    assert packing.padding.tolist() == padding_mask(torch.tensor([2, 0, 3]), 4).tolist()
    assert packing.unpack(packed)[..., 0].tolist() == [[1, 2, 0, 0], [0, 0, 0, 0], [9, 10, 11, 0]]
    laid = packing.end_to_end(2)
    assert laid.unpack(packed)[..., 0].tolist() == [[1, 2, 0, 0, 0, 0, 9, 10, 11, 0, 0]]
    assert laid.padding.tolist() == [[False, False, True, True, True, True, False, False, False, True, True]]


def test_an_unknown_way_of_packing_is_refused() -> None:
    from avtlm import config

    with pytest.raises(ValueError, match="packing"):
        config.load(EncoderConfig, {"packing": "sometimes"})
