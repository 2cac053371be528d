"""Under autocast on a CPU, linear layers are in bfloat16, norms and the stream of residuals in float32."""

import pytest
import torch
from torch import nn

from avtlm.nn.norm import LayerNorm
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
