"""The pruned transducer loss (Kuang et al., arXiv 2206.13236): a cheap transducer says where in the text each frame may be, and the joiner
is asked there alone.

What is unusual here:
- The simple transducer adds what is heard and what is said, so that its lattice is one product of matrices; ``lm_scale`` of its
  probabilities is that of what is said alone.
- Its occupation, the probability with which the lattice passes each place, gives a window of ``prune_range`` places for every frame.
- All that is needed of k2 is here in PyTorch, on any device; where k2 is installed, its kernel sums the lattices.

A lattice has ``labels`` (batch, symbols, frames + 1), log p of the next symbol, and ``blanks`` (batch, symbols + 1, frames), log p of going
on to the next frame. Behind the last frame of a clip no symbol is said.
"""

import functools
import importlib
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from avtlm.objectives.loss import Loss

NEVER = -1e30  # in place of minus infinity, whose differences would be nan
LEAST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Lattice:
    """log p of the steps from every place, see the module's docstring."""

    labels: Tensor
    blanks: Tensor


@dataclass(frozen=True)
class Summed:
    """Log-probability of all paths of every row (batch,), and the occupation of the steps of their lattice."""

    total: Tensor
    labels: Tensor
    blanks: Tensor


# Lattices ---------------------------------------------------------------------------------------------------------------------------------


def simple_lattice(
    heard: Tensor, said: Tensor, tokens: Tensor, lengths: Tensor, lm_scale: float = 0.0, am_scale: float = 0.0, blank: int = 0
) -> Lattice:
    """Of a joiner that adds (section 3.1), smoothed (section 3.2).

    Args:
        heard: logits of what is heard, (batch, frames, vocabulary).
        said: logits of what is said behind so many symbols, (batch, symbols + 1, vocabulary).
        tokens: (batch, symbols).
        lengths: frames, (batch,).
        lm_scale, am_scale: shares of the probabilities of what is said alone, and of what is heard beside the mean of what is said.
    """
    heard, said = heard.float(), said.float()
    frames, symbols = heard.shape[1], tokens.shape[1]
    both = _log_product(said, heard)  # (batch, symbols + 1, frames), log of the sums over symbols
    spoken = heard.gather(2, tokens[:, None].expand(-1, frames, -1)).transpose(1, 2)  # (batch, symbols, frames)
    written = said[:, :symbols].gather(2, tokens[..., None])  # (batch, symbols, 1)
    over, on = heard[..., blank][:, None], said[..., blank][..., None]
    labels, blanks = spoken + written - both[:, :symbols], over + on - both
    rest = 1.0 - lm_scale - am_scale
    labels, blanks = rest * labels, rest * blanks
    if lm_scale:
        alone = said.logsumexp(2, keepdim=True)
        labels, blanks = labels + lm_scale * (written - alone[:, :symbols]), blanks + lm_scale * (on - alone)
    if am_scale:
        mean = (said.softmax(2).mean((0, 1)) + LEAST).log()  # (vocabulary,)
        alone = (heard + mean).logsumexp(2)[:, None]  # (batch, 1, frames)
        labels = labels + am_scale * (spoken + mean[tokens][..., None] - alone)
        blanks = blanks + am_scale * (over + mean[blank] - alone)
    return _closed(labels, blanks, lengths)


def _log_product(said: Tensor, heard: Tensor) -> Tensor:
    """log of the sum over symbols of exp(said + heard), for every pair of places: (batch, places, frames)."""
    loudest, likeliest = heard.amax(2, keepdim=True), said.amax(2, keepdim=True)
    product = (said - likeliest).exp() @ (heard - loudest).exp().transpose(1, 2)
    return (product + LEAST).log() + likeliest + loudest.transpose(1, 2)


def full_lattice(logits: Tensor, tokens: Tensor, lengths: Tensor, blank: int = 0) -> Lattice:
    """Of a whole joint, logits (batch, frames, symbols + 1, vocabulary)."""
    log_probs = logits.float().log_softmax(-1).transpose(1, 2)  # (batch, symbols + 1, frames, vocabulary)
    symbols = tokens.shape[1]
    labels = log_probs[:, :symbols].gather(3, tokens[:, :, None, None].expand(-1, -1, log_probs.shape[2], 1))[..., 0]
    return _closed(labels, log_probs[..., blank], lengths)


def pruned_lattice(logits: Tensor, tokens: Tensor, ranges: Tensor, lengths: Tensor, blank: int = 0) -> Lattice:
    """Of a joint that was asked in ``ranges`` alone, logits (batch, frames, prune_range, vocabulary); see prune_ranges."""
    batch, frames, width, _ = logits.shape
    log_probs, symbols = logits.float().log_softmax(-1), tokens.shape[1]
    ended = F.pad(tokens, (0, 1), value=blank)
    next_token = ended.gather(1, ranges.flatten(1)).unflatten(1, (frames, width))
    inside = log_probs.gather(3, next_token[..., None])[..., 0]  # (batch, frames, prune_range)
    never = inside.new_full((batch, frames, symbols + 1), NEVER)
    labels = never.scatter(2, ranges, inside)[:, :, :symbols].transpose(1, 2)
    blanks = never.scatter(2, ranges, log_probs[..., blank]).transpose(1, 2)
    return _closed(labels, blanks, lengths)


def _closed(labels: Tensor, blanks: Tensor, lengths: Tensor) -> Lattice:
    """The same with one more frame, in which, as behind the end of a clip, no symbol is said: labels (batch, symbols, frames)."""
    labels = F.pad(labels, (0, 1), value=NEVER)
    behind = torch.arange(labels.shape[2], device=labels.device) >= lengths[:, None]
    return Lattice(labels.masked_fill(behind[:, None], NEVER), blanks)


# Sums over paths --------------------------------------------------------------------------------------------------------------------------


def sum_paths(lattice: Lattice, lengths: Tensor, token_lengths: Tensor) -> Summed:
    """Sum the paths of every row to the end of its text at the end of its frames. Gradients go through the total alone."""
    kernel = _kernel()
    if kernel is not None:
        zero = torch.zeros_like(lengths)
        boundary = torch.stack([zero, zero, token_lengths, lengths], 1).long()
        total, (labels, blanks) = kernel(lattice.labels, lattice.blanks, boundary, True)
        return Summed(total, labels, blanks)
    total, labels, blanks = _Sum.apply(lattice.labels, lattice.blanks, lengths, token_lengths)
    return Summed(total, labels, blanks)


@functools.cache
def _kernel() -> Any:
    """k2's recursion, None without k2."""
    try:
        return importlib.import_module("k2").mutual_information_recursion
    except ImportError:
        return None


class _Sum(torch.autograd.Function):
    """The recursion, whose gradients are computed at once, since pruning needs them before the loss."""

    @staticmethod
    def forward(ctx: FunctionCtx, labels: Tensor, blanks: Tensor, lengths: Tensor, token_lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            steps = (labels.detach().requires_grad_(), blanks.detach().requires_grad_())
            total = _recursion(*steps, lengths, token_lengths)
            said, waited = torch.autograd.grad(total.sum(), steps)
        ctx.save_for_backward(said, waited)
        ctx.mark_non_differentiable(said, waited)
        return total.detach(), said, waited

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        labels, blanks = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient[:, None, None] * labels, gradient[:, None, None] * blanks, None, None


def _recursion(labels: Tensor, blanks: Tensor, lengths: Tensor, token_lengths: Tensor) -> Tensor:
    """log p of all paths, (batch,): along the diagonals, on which a path has taken equally many steps."""
    rows, places, frames = blanks.shape
    place = torch.arange(places, device=blanks.device)
    reached = blanks.new_full((rows, places), NEVER)
    reached[:, 0] = 0.0
    ends = lengths + token_lengths
    skewed_labels, skewed_blanks = _skew(F.pad(labels, (0, 0, 0, 1), value=NEVER)), _skew(F.pad(blanks, (0, 1), value=NEVER))
    found = [reached.gather(1, token_lengths[:, None])[:, 0]]
    for step in range(1, frames + places):
        said = F.pad((reached + skewed_labels[:, step - 1])[:, :-1], (1, 0), value=NEVER)
        reached = torch.logaddexp(reached + skewed_blanks[:, step - 1], said).clamp(min=NEVER)
        reached = reached.masked_fill((step - place > frames) | (place > step), NEVER)
        found.append(reached.gather(1, token_lengths[:, None])[:, 0])
    return torch.stack(found, 1).gather(1, ends[:, None])[:, 0]


def _skew(steps: Tensor) -> Tensor:
    """(batch, places, frames + 1) -> (batch, places + frames, places): at [d, s] the step from place s in frame d - s."""
    rows, places, frames = steps.shape
    diagonal = torch.arange(places + frames - 1, device=steps.device)[:, None]
    frame = diagonal - torch.arange(places, device=steps.device)
    inside = (frame >= 0) & (frame < frames)
    taken = steps.gather(2, frame.clamp(0, frames - 1).t()[None].expand(rows, -1, -1)).transpose(1, 2)
    return taken.masked_fill(~inside, NEVER)


# Pruning ----------------------------------------------------------------------------------------------------------------------------------


def prune_ranges(summed: Summed, lengths: Tensor, token_lengths: Tensor, width: int) -> Tensor:
    """Places that each frame may be at, int (batch, frames, at most width).

    They are the windows in which most of the paths end a frame that have not come into their first place within it (section 3.3), moved so
    that they begin at place 0, never go back, overlap, and reach the text's end. Texts that fit into a window are not pruned.
    """
    places, frames = summed.blanks.shape[1:]
    width = min(width, places)
    ended = F.pad(summed.blanks, (0, 0, 1, 0)).cumsum(1)  # frames that end at a place before this one
    entered = F.pad(summed.labels[:, :, :frames], (0, 0, 1, 0))  # by saying a symbol in the frame
    inside = ended[:, width:] - ended[:, :-width]
    start = (inside - entered[:, : inside.shape[1]]).argmax(1)  # (batch, frames)
    place = torch.arange(frames, device=start.device)
    last = (token_lengths - width + 1).clamp(min=0)[:, None]
    start = torch.where(place < lengths[:, None] - 1, start, last)
    start = _lower_bound(start)
    slope = (width - 1) * place
    start = slope - _lower_bound(slope - start).clamp(min=0)
    return start[..., None] + torch.arange(width, device=start.device)


def _lower_bound(values: Tensor) -> Tensor:
    """The largest row that never falls and lies below (batch, frames)."""
    return values.flip(1).cummin(1).values.flip(1)


# Losses -----------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PrunedLosses:
    """Losses of every row (batch,), and where the joint was asked."""

    simple: Tensor
    pruned: Tensor
    ranges: Tensor


def loss_scales(step: int, warmup: int, simple: float) -> tuple[float, float]:
    """How much the simple and the pruned loss count: from 1 and 0.1 to ``simple`` and 1 in so many steps."""
    done = 1.0 if step >= warmup else step / warmup
    return 1.0 - done * (1.0 - simple), 0.1 + 0.9 * done


def weighed(losses: PrunedLosses, scales: tuple[float, float], count: Tensor) -> Loss:
    """Both losses under their scales, summed."""
    simple, pruned = losses.simple.sum(), losses.pruned.sum()
    logs = {"simple_transducer_loss": (simple.detach(), count), "transducer_loss": (pruned.detach(), count)}
    return Loss(scales[0] * simple + scales[1] * pruned, count, logs)
