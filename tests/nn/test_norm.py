"""Under autocast on a CPU, linear layers are in bfloat16, norms and the stream of residuals in float32; the norm over time is PyTorch's."""

import pytest
import torch
from torch import nn

from avtlm.nn.norm import LayerNorm, NormOverTime
from avtlm.nn.transformer import Encoder, EncoderConfig

SMALL = EncoderConfig(dim=16, layers=2, heads=4, feed_forward_dim=24, position_kernel=6, position_groups=4)


def test_a_norm_widens_bfloat16_under_autocast_only() -> None:
    x, norm = torch.randn(3, 8), LayerNorm(8)
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x.bfloat16())
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, nn.LayerNorm(8)(x.bfloat16().float()))
    assert norm.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("lengths", [None, [9, 2]])
def test_an_encoder_under_autocast_keeps_its_residuals_in_single_precision(norm_first: bool, lengths: list[int] | None) -> None:
    torch.manual_seed(0)
    model = Encoder(EncoderConfig(**{**SMALL.__dict__, "norm_first": norm_first, "packing": "always"}))
    kinds: dict[str, set[torch.dtype]] = {}
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.register_forward_hook(lambda module, _, out: kinds.setdefault(type(module).__name__, set()).add(out.dtype))
    x = torch.randn(2, 9, 16)
    counts = None if lengths is None else torch.tensor(lengths)
    with torch.autocast("cpu", torch.bfloat16):
        states = model.hidden_states(x, counts)
    states[-1].square().mean().backward()
    assert kinds == {"Linear": {torch.bfloat16}, "LayerNorm": {torch.float32}}
    assert {state.dtype for state in states} == {torch.float32}
    assert all(parameter.grad is not None and bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


def test_the_norm_over_time_is_a_group_norm_of_single_channels() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weights = (torch.randn(1, 7, 30, generator=generator, dtype=torch.float64) for _ in range(2))
    norm = nn.GroupNorm(7, 7, dtype=torch.float64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    found = []
    for ours in (True, False):
        given = x.clone().requires_grad_()
        out = NormOverTime.apply(given[0].T.contiguous(), norm.weight, norm.bias, norm.eps).T if ours else norm(given)[0]
        found.append([out, *torch.autograd.grad((out * weights[0]).sum(), [given, norm.weight, norm.bias])])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def test_the_norm_over_time_of_a_long_clip_is_exact_to_single_precision() -> None:
    x = 3.0 + torch.randn(200_000, 4, generator=torch.Generator().manual_seed(0))
    out = NormOverTime.apply(x, torch.ones(4), torch.zeros(4), 1e-5)
    wide = x.double()
    expected = (wide - wide.mean(0)) / (wide.var(0, correction=0) + 1e-5).sqrt()
    assert (out - expected).abs().max() < 2e-6
