"""Attention of one sequence in matrix products, for dropout and for bfloat16 on a CPU (one of the backends of attention.py).

What is unusual here:
- PyTorch's own attention with dropout keeps three matrices of weights for the backward pass, draws a random number for each weight and, in
  bfloat16, computes in float32; without dropout its kernel is no faster in bfloat16 than in float32. This keeps the weights and which are
  dropped, draws 16 bits for each (dropout.py) and multiplies in the precision of its input. In bfloat16, scores and weights are rounded to
  it; softmax and the sums over keys are in float32.
- One sequence at a time, so that its weights stay near the processor.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from avtlm.nn.dropout import draw_kept


class AttentionProducts(torch.autograd.Function):
    """query (heads, queries, head_dim), key and value (heads, keys, head_dim), mask or bias broadcastable to (heads, queries, keys)."""

    @staticmethod
    def forward(ctx: FunctionCtx, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
        scores = torch.bmm(query * query.shape[-1] ** -0.5, key.transpose(1, 2))
        if mask is not None:
            scores = scores.masked_fill_(~mask, float("-inf")) if mask.dtype == torch.bool else scores.add_(mask)
        weights = scores.softmax(-1)
        kept, scale = draw_kept(weights.shape, dropout) if dropout > 0 else (None, 1.0)
        out = torch.bmm(weights if kept is None else weights * _factors(kept, scale, weights), value)
        ctx.save_for_backward(query, key, value, weights, kept, out)  # type: ignore[arg-type]
        ctx.scale, ctx.shape = scale, None if mask is None else mask.shape  # type: ignore[attr-defined]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights, kept, out = ctx.saved_tensors  # type: ignore[attr-defined]
        scale, shape = ctx.scale, ctx.shape  # type: ignore[attr-defined]
        change = torch.bmm(gradient, value.transpose(1, 2))  # of the weights behind dropout
        dropped = weights
        if kept is not None:
            factors = _factors(kept, scale, weights)
            change.mul_(factors)
            dropped = factors.mul_(weights)
        for_value = torch.bmm(dropped.transpose(1, 2), gradient)
        # The sum of weight x change over the keys is that of output x gradient over the channels.
        wide = torch.promote_types(out.dtype, torch.float32)
        total = (gradient.to(wide) * out.to(wide)).sum(-1, keepdim=True)
        change = change.sub_(total).mul_(weights)  # of the scores
        root = query.shape[-1] ** -0.5
        for_query, for_key = torch.bmm(change, key).mul_(root), torch.bmm(change.transpose(1, 2), query).mul_(root)
        for_mask = change.sum_to_size(shape) if ctx.needs_input_grad[3] else None  # type: ignore[attr-defined]
        return for_query, for_key, for_value, for_mask, None


def _factors(kept: Tensor, scale: float, like: Tensor) -> Tensor:
    return kept.to(like.dtype).mul_(scale)


def attend_by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Attention of one sequence.

    Args:
        query: (queries, heads, head_dim).
        key, value: (keys, heads, head_dim).
        mask: True where a key may be attended to, or an additive bias; broadcastable to (heads, queries, keys).
        dropout: of the weights.

    Returns:
        The shape of ``query``.
    """
    if torch.is_autocast_enabled("cpu"):  # the backward pass, which knows no autocast, has to find one type
        query, key, value = (each.to(torch.get_autocast_dtype("cpu")) for each in (query, key, value))
    out: Tensor = AttentionProducts.apply(query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1), mask, dropout)
    return out.transpose(0, 1)
