"""Tokens that are seen are taken out of whole sequences and put back where they were."""

import pytest
import torch

from avtlm.nn.reconstructor import Reconstructor
from avtlm.nn.removal import Kept
from avtlm.nn.transformer import EncoderConfig

SEEN = torch.tensor([[False, True, True, False, True], [False, False, False, True, False]])


def test_what_is_seen_comes_out_in_its_order_and_goes_back() -> None:
    x = torch.arange(20.0).view(2, 5, 2)
    kept = Kept.of(SEEN)
    taken = kept.gather(x)
    assert kept.counts.tolist() == [3, 1]
    assert torch.equal(taken[0], x[0, [1, 2, 4]])
    assert torch.equal(taken[1, :1], x[1, [3]])
    whole = kept.restore(taken, torch.tensor([-1.0, -2.0]))
    assert torch.equal(whole[SEEN], x[SEEN])
    assert torch.equal(whole[~SEEN], torch.tensor([-1.0, -2.0]).expand(6, 2))
    assert torch.equal(kept.removed, ~SEEN)


def test_any_order_and_rows_of_which_nothing_is_seen_will_do() -> None:
    kept = Kept(torch.tensor([[2, 0], [1, 1]]), torch.tensor([2, 0]), 3)
    whole = kept.restore(torch.tensor([[[1.0], [2.0]], [[9.0], [9.0]]]), torch.zeros(1))
    assert whole[..., 0].tolist() == [[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert kept.removed.tolist() == [[False, True, False], [True, True, True]]


def test_gradients_reach_what_was_seen_and_the_vector_in_place_of_the_rest() -> None:
    kept = Kept.of(SEEN)
    x, empty = torch.zeros(2, 3, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
    kept.restore(x, empty).sum().backward()
    assert x.grad is not None
    assert x.grad[..., 0].tolist() == [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
    assert empty.grad is not None
    assert empty.grad.item() == 6


@pytest.mark.parametrize("kernel", [0, 3])
def test_a_reconstruction_does_not_depend_on_padding(kernel: int) -> None:
    torch.manual_seed(0)
    layers = EncoderConfig(8, 1, 2, 16, dropout=0.0, attention_dropout=0.0, layer_drop=0.0, position_kernel=0)
    decoder = Reconstructor(6, layers, (3, 5), kernel, 4).eval()
    seen = torch.tensor([[True, False, True, False]])
    kept = Kept.of(seen)
    x, places = torch.randn(1, 2, 6), torch.randn(1, 4, 8)
    alone = decoder(x, kept, places, (2, 2))
    padded = torch.tensor([[True, False, False, True, False, False]])  # a padded token behind those of each modality
    there = torch.tensor([[True, True, False, True, True, False]])
    wide = torch.zeros(1, 6, 8).index_copy(1, torch.tensor([0, 1, 3, 4]), places)
    batched = decoder(x, Kept.of(padded), wide, (3, 3), there)
    assert [part.shape for part in alone] == [(1, 2, 3), (1, 2, 5)]
    for one, other in zip(alone, batched, strict=True):
        assert torch.allclose(one, other[:, :2], atol=1e-6)


def test_a_convolution_tells_a_removed_token_of_those_beside_it_in_its_own_modality() -> None:
    torch.manual_seed(0)
    layers = EncoderConfig(8, 0, 2, 16, dropout=0.0, attention_dropout=0.0, layer_drop=0.0, position_kernel=0)
    seen = torch.tensor([[True, False, False, True, True, False]])
    kept, x = Kept.of(seen), torch.randn(1, 3, 6)
    changed = x + torch.tensor([1.0, 0.0, 0.0])[:, None]  # the first token alone
    for kernel, reached in ((0, []), (3, [1])):
        decoder = Reconstructor(6, layers, (4, 4), kernel, 4).eval()
        one, other = (torch.cat(decoder(given, kept, torch.zeros(1, 6, 8), (3, 3)), 1) for given in (x, changed))
        differ = (one - other).abs().amax(-1)[0] > 1e-7
        assert [place for place in range(1, 6) if differ[place]] == reached
