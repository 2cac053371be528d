"""The Gumbel quantiser (values: tests/test_golden.py)."""

import pytest
import torch
from torch import Tensor

from avtlm.nn.quantize import GumbelQuantizer, QuantizerConfig


def frames(count: int = 12) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(0))


def quantizer(**changes: object) -> GumbelQuantizer:
    torch.manual_seed(0)
    return GumbelQuantizer(QuantizerConfig(**{"groups": 2, "entries": 5} | changes), 6, 8).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{}, {"shared": True}, {"depth": 3, "factor": 2}, {"dim": 4}])
def test_a_code_vector_is_what_its_codes_look_up(changes: dict[str, object]) -> None:
    model = quantizer(**changes)
    found = model(frames())
    assert found.vectors.shape == (12, model.dim)
    assert found.codes.shape == (12, 2)
    torch.testing.assert_close(found.vectors, model.look_up(found.codes))
    model.train()
    drawn = model(frames())
    torch.testing.assert_close(drawn.vectors, model.look_up(drawn.codes), atol=1e-5, rtol=1e-5)


def test_drawn_codes_have_gradients_for_scores_and_entries() -> None:
    model = quantizer().train()
    model(frames()).vectors.square().sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


def test_soft_codes_are_mixtures_of_entries() -> None:
    model = quantizer(hard=False).train()
    noise = torch.zeros(12, 2, 5)
    model.set_updates(10**7)  # at the lowest temperature
    found = model(frames(), noise=noise)
    weights = (model.score[0](frames()).unflatten(-1, (2, 5)) / 0.5).softmax(-1)
    expected = torch.cat([weights[:, group] @ model.books[group] for group in range(2)], -1)
    torch.testing.assert_close(found.vectors, expected)
    assert torch.equal(found.codes, weights.argmax(-1))


def test_perplexities_count_the_chosen_frames_alone() -> None:
    model, x = quantizer(), frames()
    counted = torch.arange(12) < 5
    part, whole = model(x, counted), model(x[:5])
    torch.testing.assert_close(part.soft_perplexity, whole.soft_perplexity)
    torch.testing.assert_close(part.hard_perplexity, whole.hard_perplexity)
    assert 2.0 <= model(x).hard_perplexity.item() <= 10.0


def test_a_quantiser_that_always_chooses_alike_has_perplexity_1_a_group() -> None:
    assert quantizer()(frames(1)).hard_perplexity.item() == pytest.approx(2.0, rel=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"groups": 0}, "give at least 1 of each"),
        ({"dim": 5}, "a dim that the groups divide"),
        ({"groups": 3}, "3 does not divide the dim 8"),
        ({"end": 3.0}, "give 0 < end <= start"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        quantizer(**wrong)
