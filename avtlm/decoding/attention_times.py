"""When each token is said, from where an attention decoder looks: for models without CTC.

What every layer and head attends to while a token is written is normed over the tokens, smoothed over frames by a median and averaged; the
monotonic path through it with the largest sum gives every token the frames it covers. Attention is no alignment that the model was taught:
times are rougher than those of CTC.

Source: the word times of Whisper (Radford et al. 2022, arXiv 2212.04356; whisper/timing.py), with the heads of the upper half of the layers
in place of chosen ones.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from avtlm.decoding.next_tokens import TextDecoder
from avtlm.decoding.result import Hypothesis
from avtlm.text.vocabulary import EOS, PAD

MEDIAN = 7  # frames


@torch.no_grad()
def add_attention_times(
    decoder: TextDecoder, encoded: Tensor, lengths: Tensor, hypotheses: Sequence[Hypothesis], start: int = EOS
) -> list[Hypothesis]:
    """One hypothesis for every row of a batch, with the frames and, where they are missing, the log-probabilities of its tokens.

    Args:
        decoder: in evaluation mode.
        encoded: (batch, frames, dim), the encoder's output.
        lengths: (batch,) valid frames of each row. A row without frames, or with fewer than tokens, keeps its hypothesis as it is.
        hypotheses: what each row says.
        start: the first token that the decoder sees.
    """
    counts = [len(hypothesis.tokens) for hypothesis in hypotheses]
    rows = [row for row, count in enumerate(counts) if 0 < count <= int(lengths[row])]
    if not rows:
        return list(hypotheses)
    longest = max(counts[row] for row in rows)
    said = torch.tensor([[start, *hypotheses[row].tokens, *[PAD] * (longest - counts[row])] for row in rows], device=encoded.device)
    chosen = torch.tensor(rows, device=encoded.device)
    weights, logits = decoder.look(said[:, :-1], encoded[chosen], lengths.to(encoded.device)[chosen])
    log_probs = logits.float().log_softmax(-1).gather(2, said[:, 1:, None])[..., 0]
    result = list(hypotheses)
    for place, row in enumerate(rows):
        seen = weights[len(weights) // 2 :, place, :, : counts[row], : int(lengths[row])]
        spans = monotonic_path(_clear(seen).cpu().numpy())
        scores = hypotheses[row].token_scores or tuple(log_probs[place, : counts[row]].tolist())
        result[row] = replace(hypotheses[row], timesteps=tuple(spans), token_scores=scores)
    return result


def _clear(weights: Tensor) -> Tensor:
    """(layers, heads, tokens, frames) -> (tokens, frames): how much more a token looks at a frame than the others do."""
    spread = weights.std(-2, keepdim=True, unbiased=False)
    weights = (weights - weights.mean(-2, keepdim=True)) / spread.clamp(min=1e-6) if weights.shape[-2] > 1 else weights
    if weights.shape[-1] > MEDIAN // 2:
        padded = nn.functional.pad(weights.flatten(0, 1), (MEDIAN // 2, MEDIAN // 2), mode="reflect")
        return padded.unfold(-1, MEDIAN, 1).median(-1).values.mean(0)
    return weights.mean((0, 1))


def monotonic_path(gains: np.ndarray) -> list[tuple[int, int]]:
    """Frames of every token, first and before last, one after the other without gaps, so that the gains of all frames are largest.

    Args:
        gains: (tokens, frames), at least as many frames as tokens. Of equal paths the one that leaves a token later is taken.
    """
    tokens, frames = gains.shape
    score = np.full((tokens, frames), -np.inf)
    came = np.zeros((tokens, frames), dtype=bool)  # from the token before
    score[0] = np.cumsum(gains[0])
    for frame in range(1, frames):
        stay, come = score[1:, frame - 1], score[:-1, frame - 1]
        came[1:, frame] = come > stay
        score[1:, frame] = np.maximum(stay, come) + gains[1:, frame]
    spans, token, end = [], tokens - 1, frames
    for frame in range(frames - 1, -1, -1):
        if frame == 0 or came[token, frame]:
            spans.append((frame, end))
            token, end = token - 1, frame
            if token < 0:
                break
    return spans[::-1]
