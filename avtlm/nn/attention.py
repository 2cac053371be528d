"""The one door to attention: SDPA, xformers or a written-out reference, padded or packed.

What is unusual here:
- Sequences may come padded, (batch, frames, heads, head_dim), or packed without any padding, (total_frames, heads, head_dim); the lengths
  say where one ends. Packed attention does no work on padding: xformers' BlockDiagonalMask on a GPU, one SDPA call per sequence on a CPU.
- xformers raises on every CPU call, so ``auto`` means xformers for packed input on CUDA and SDPA elsewhere, but for dropout and bfloat16
  on a CPU: PyTorch has no fast kernel for them there, and ``products`` (products.py) takes half the time.
- A row of length 0 attends to its first key, so that nothing is ever divided by zero; whatever it returns is padding.
"""

import functools
import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.nn.products import attend_by_products

LEAST_WEIGHTS = 1 << 15  # of a sequence, from which on products.py is faster than SDPA
Backend = Literal["auto", "sdpa", "xformers", "products", "reference"]


def padding_mask(lengths: Tensor, frames: int) -> Tensor:
    """True where a frame is padding: lengths (batch,) -> (batch, frames)."""
    return torch.arange(frames, device=lengths.device)[None, :] >= lengths[:, None]


def attention_weights(query: Tensor, key: Tensor, lengths: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Where attention looks, written out: query (batch, queries, heads, head_dim), key (batch, keys, heads, head_dim), valid keys (batch,),
    additive bias like the result -> (batch, heads, queries, keys), in float32."""
    scores = torch.einsum("bqhd,bkhd->bhqk", query.float(), key.float()) / math.sqrt(query.shape[-1])
    if bias is not None:
        scores = scores + bias.float()
    if lengths is not None:
        scores = scores.masked_fill(padding_mask(lengths.clamp(min=1), key.shape[1])[:, None, None], -math.inf)
    return scores.softmax(-1)


@functools.cache
def xformers_ready() -> bool:
    """Whether xformers can run memory-efficient attention with a BlockDiagonalMask on this machine's GPU."""
    if not torch.cuda.is_available():
        return False
    try:
        from xformers.ops import fmha

        probe = torch.zeros(1, 8, 1, 16, device="cuda", dtype=torch.float16)
        fmha.memory_efficient_attention(probe, probe, probe, attn_bias=fmha.BlockDiagonalMask.from_seqlens([3, 5]))
    except (ImportError, NotImplementedError, RuntimeError, ValueError):
        return False
    return True


def choose_backend(
    packed: bool, device: torch.device, bias: Tensor | None, products: bool = False
) -> Literal["sdpa", "xformers", "products"]:
    """What ``auto`` resolves to. xformers cannot add a dense bias to a block-diagonal mask, so biased attention goes to SDPA.

    Args:
        products: whether matrix products are faster than SDPA on a CPU: weights are dropped, or in bfloat16, and sequences long enough for
            calls of their own.
    """
    if device.type == "cpu" and products and not torch.compiler.is_compiling():
        return "products"
    return "xformers" if packed and device.type == "cuda" and bias is None and xformers_ready() else "sdpa"


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    lengths: Tensor | None = None,
    query_lengths: Tensor | None = None,
    bias: Tensor | None = None,
    bias_scale: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    backend: Backend = "auto",
) -> Tensor:
    """Scaled dot-product attention over padded or packed sequences.

    Args:
        query: (batch, queries, heads, head_dim), or packed (total_queries, heads, head_dim).
        key, value: (batch, keys, heads, head_dim), or packed (total_keys, heads, head_dim).
        lengths: valid keys of each sequence, (batch,). Required for packed input, and best on the CPU then, because they are read.
        query_lengths: valid queries of each sequence for packed input; equal to ``lengths`` when left out.
        bias: additive, broadcastable to (batch, heads, queries, keys) (padded form also for packed input: each sequence takes its corner).
        bias_scale: multiplies the bias for each query and head, (batch, queries, heads), or packed (total_queries, heads).
        causal: query i sees keys up to i (+ keys - queries, so that a cache works).
        dropout: probability of dropping an attention weight; the caller passes 0 in evaluation.
        backend: ``auto``, ``sdpa``, ``xformers``, ``products`` (of matrices, for a CPU) or ``reference`` (all written out in float32).

    Returns:
        The shape of ``query``. Rows beyond a sequence's length hold values that mean nothing.

    Raises:
        ValueError: packed input without lengths.
    """
    packed = query.dim() == 3
    if packed and lengths is None:
        raise ValueError("attend: packed input (total, heads, head_dim) needs lengths, one per sequence.")
    name = choose_backend(packed, query.device, bias, _products_pay(query, key, lengths, dropout)) if backend == "auto" else backend
    if packed:
        assert lengths is not None
        counts = lengths.tolist()
        queries = counts if query_lengths is None else query_lengths.tolist()
        if name == "xformers":
            return _xformers_packed(query, key, value, queries, counts, causal, dropout)
        return _one_by_one(query, key, value, queries, counts, bias, bias_scale, causal, dropout, name)
    if bias is not None and bias_scale is not None:
        bias = bias_scale.transpose(1, 2)[..., None] * bias
    if name == "xformers":
        return _xformers_padded(query, key, value, lengths, bias, causal, dropout)
    mask = _additive_mask(query, key, lengths, bias, causal)
    if name == "products":
        masks = [None] * len(query) if mask is None else mask[(None,) * (4 - mask.dim())].expand(len(query), -1, -1, -1)
        return torch.stack([attend_by_products(*row, dropout) for row in zip(query, key, value, masks, strict=True)])
    heads_first = (query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
    if name == "reference":
        return _reference(*heads_first, mask, dropout).transpose(1, 2)
    only_causal = causal and lengths is None and bias is None and bool(query.shape[1] == key.shape[1])
    out = F.scaled_dot_product_attention(*heads_first, attn_mask=None if only_causal else mask, dropout_p=dropout, is_causal=only_causal)
    return out.transpose(1, 2)


def _products_pay(query: Tensor, key: Tensor, lengths: Tensor | None, dropout: float) -> bool:
    """See choose_backend."""
    if not (dropout > 0 or query.dtype == torch.bfloat16):
        return False
    rows = max(1, len(lengths)) if query.dim() == 3 and lengths is not None else 1
    long = (query.shape[-3] / rows) * (key.shape[-3] / rows) * query.shape[-2] >= LEAST_WEIGHTS
    return long


def _additive_mask(query: Tensor, key: Tensor, lengths: Tensor | None, bias: Tensor | None, causal: bool) -> Tensor | None:
    """Padding and causality as booleans while no bias is given (cheapest for SDPA), else all as one float mask."""
    queries, keys = query.shape[1], key.shape[1]
    allowed = None
    if lengths is not None:
        allowed = ~padding_mask(lengths.clamp(min=1), keys)[:, None, None, :]
    if causal:
        ahead = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
        allowed = ahead if allowed is None else allowed & ahead
    if bias is None or allowed is None:
        return allowed if bias is None else bias.to(query.dtype)
    return bias.to(query.dtype).masked_fill(~allowed, -math.inf)


def _reference(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    scores = query.float() @ key.float().transpose(-1, -2) / math.sqrt(query.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask.float()
    weights = F.dropout(scores.softmax(-1), dropout)
    return (weights @ value.float()).to(query.dtype)


def _one_by_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: list[int],
    keys: list[int],
    bias: Tensor | None,
    bias_scale: Tensor | None,
    causal: bool,
    dropout: float,
    backend: Backend,
) -> Tensor:
    """Packed attention, sequence by sequence."""
    if bias is not None and bias.dim() < 4:
        bias = bias[None]
    scales = [None] * len(queries) if bias_scale is None else bias_scale.split(queries)
    pieces = []
    for row, (q, k, v, scale) in enumerate(zip(query.split(queries), key.split(keys), value.split(keys), scales, strict=True)):
        if len(q) == 0:
            continue
        corner = None if bias is None else bias[row if len(bias) > 1 else 0, :, : len(q), : len(k)][None]
        factor = None if scale is None else scale[None]
        one = attend(q[None], k[None], v[None], bias=corner, bias_scale=factor, causal=causal, dropout=dropout, backend=backend)
        pieces.append(one[0])
    return torch.cat(pieces) if pieces else torch.zeros_like(query)


def _xformers_packed(
    query: Tensor, key: Tensor, value: Tensor, queries: list[int], keys: list[int], causal: bool, dropout: float
) -> Tensor:
    from xformers.ops import fmha

    there = [pair for pair in zip(queries, keys, strict=True) if any(pair)]
    mask = _block_diagonal(tuple(count for count, _ in there), tuple(count for _, count in there), causal, query.device)
    return fmha.memory_efficient_attention(query[None], key[None], value[None], attn_bias=mask, p=dropout)[0]


@functools.lru_cache(maxsize=8)
def _block_diagonal(queries: tuple[int, ...], keys: tuple[int, ...], causal: bool, device: torch.device) -> Any:
    """xformers' mask, kept because all layers of an encoder ask for the same one."""
    from xformers.ops import fmha

    mask = fmha.BlockDiagonalMask.from_seqlens(queries, keys, device=device)
    return mask.make_causal_from_bottomright() if causal else mask


def _xformers_padded(
    query: Tensor, key: Tensor, value: Tensor, lengths: Tensor | None, bias: Tensor | None, causal: bool, dropout: float
) -> Tensor:
    """Padded attention through xformers; its dense bias must lie in memory whose row stride is a multiple of 8."""
    from xformers.ops import fmha

    mask = _additive_mask(query, key, lengths, bias, causal)
    if mask is None:
        return fmha.memory_efficient_attention(query, key, value, p=dropout)
    batch, queries, heads, _ = query.shape
    keys = key.shape[1]
    dense = torch.zeros(batch, heads, queries, keys, dtype=query.dtype, device=query.device)
    dense = dense.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else dense + mask
    dense = F.pad(dense, (0, -keys % 8))[..., :keys]
    return fmha.memory_efficient_attention(query, key, value, attn_bias=dense, p=dropout)
