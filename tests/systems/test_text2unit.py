"""The autoregressive text-to-unit model: reduced targets, losses that do not depend on the batch, sizes."""

from dataclasses import replace

import pytest
import torch

from avtlm.data.batching import Batch
from avtlm.systems.text2unit import Text2Unit, Text2UnitConfig, reduced_targets
from avtlm.text.vocabulary import EOS, PAD

TINY = Text2UnitConfig(
    vocabulary=9, units=6, dim=16, layers=2, decoder_layers=2, heads=2, feed_forward_dim=12, dropout=0.0, attention_dropout=0.0
)
TEXT = torch.tensor([[4, 5, 6, 7, 8, EOS], [8, 4, EOS, PAD, PAD, PAD]])
UNITS = torch.tensor([[0, 0, 2, 2, 2, 5, 0], [1, 1, 2, 3, 3, -1, -1]])
LENGTHS = torch.tensor([7, 5])


def made(config: Text2UnitConfig = TINY) -> Text2Unit:
    torch.manual_seed(0)
    return Text2Unit(config).eval()


def batch_of(rows: slice = slice(None)) -> Batch:
    text, lengths = TEXT[rows], LENGTHS[rows]
    targets = {"units": UNITS[rows][:, : int(lengths.max())]}
    text = text[:, : int((text != PAD).sum(1).max())]
    return Batch(("a", "b")[rows], "text_to_units", text=text, targets=targets, target_lengths={"units": lengths})


def test_targets_are_reduced_units_behind_the_special_symbols_with_their_end() -> None:
    assert reduced_targets(UNITS, LENGTHS).tolist() == [[4, 6, 9, 4, EOS], [5, 6, 7, EOS, PAD]]


@pytest.mark.parametrize("norm_first", [False, True])
def test_the_loss_of_a_batch_is_the_sum_of_its_texts_losses(norm_first: bool) -> None:
    model = made(replace(TINY, norm_first=norm_first))
    whole = model.losses(batch_of(), torch.Generator())["units"]
    parts = [model.losses(batch_of(slice(row, row + 1)), torch.Generator())["units"] for row in (0, 1)]
    assert int(whole.count) == 9
    assert torch.allclose(whole.value, parts[0].value + parts[1].value, rtol=1e-5)


def test_the_model_has_the_layers_that_are_published() -> None:
    with torch.device("meta"):
        model = Text2Unit(Text2UnitConfig(vocabulary=46))
    assert (len(model.encoder.layers), len(model.decoder.layers), model.config.dim) == (6, 6, 768)
    assert model.decoder.predict(torch.zeros(1, 1, 768, device="meta")).shape[-1] == 504


def test_gradients_reach_every_parameter() -> None:
    model = made()
    model.losses(batch_of(), torch.Generator())["units"].value.backward()
    still = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert [name for name in still if not name.endswith("key.bias")] == []  # which attention does not see


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"heads": 3}, "heads divide"), ({"max_units": 0}, "give at least 1 of each"), ({"label_smoothing": 1.0}, "is not a probability")],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(TINY, **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="vocabulary: 0 symbols"):
        Text2Unit(Text2UnitConfig())
