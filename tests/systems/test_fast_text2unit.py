"""The FastSpeech-like text-to-unit model: lengths, what padding may not change, its losses written out, the published sizes."""

import dataclasses
from dataclasses import replace

import pytest
import torch

from avtlm.data.batching import Batch
from avtlm.systems.fast_text2unit import FastText2Unit, FastText2UnitConfig
from avtlm.text.vocabulary import EOS, PAD

TINY = FastText2UnitConfig(
    vocabulary=9, units=6, dim=16, layers=2, unit_layers=2, feed_forward_dim=12, kernel=5, duration_dim=8, dropout=0.0,
    attention_dropout=0.0, duration_dropout=0.0,
)  # fmt: skip
TEXT = torch.tensor([[4, 5, 6, 7, 8, EOS], [8, 4, EOS, PAD, PAD, PAD]])
DURATIONS = torch.tensor([[2, 0, 1, 3, 1, 0], [1, 4, 0, 0, 0, 0]])
UNITS = torch.tensor([[0, 1, 2, 3, 4, 5, 0], [1, 1, 2, 3, 3, -1, -1]])


def made(config: FastText2UnitConfig = TINY) -> FastText2Unit:
    torch.manual_seed(0)
    model = FastText2Unit(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        model.durations.project.bias.fill_(1.0)
        model.embedding.weight[PAD] = 0.0
    return model


def batch_of(rows: slice = slice(None)) -> Batch:
    lengths = torch.tensor([7, 5])[rows]
    text, units = TEXT[rows], UNITS[rows][:, : int(lengths.max())]
    width = int((text != PAD).sum(1).max())
    targets = {"units": units, "durations": DURATIONS[rows][:, :width]}
    return Batch(("a", "b")[rows], "text_to_units", text=text[:, :width], targets=targets, target_lengths={"units": lengths})


def test_the_published_small_model_has_its_number_of_parameters() -> None:
    with torch.device("meta"):
        model = FastText2Unit(FastText2UnitConfig(vocabulary=46, spare_outputs=4))
    # The official one has 921,090 more, of predictors of pitch and energy that nothing uses.
    assert sum(parameter.numel() for parameter in model.parameters()) == 41_329_917 - 921_090


LARGE = {"layers": 6, "unit_layers": 6, "dim": 384, "heads": 6, "feed_forward_dim": 1536}


@pytest.mark.parametrize(("changes", "millions"), [({"layers": 6, "unit_layers": 6}, 61.3), (LARGE, 136.4)])
def test_the_larger_published_models_have_theirs(changes: dict[str, int], millions: float) -> None:
    with torch.device("meta"):
        model = FastText2Unit(FastText2UnitConfig(vocabulary=46, spare_outputs=4, **changes))  # type: ignore[arg-type]
    unused = 2 * (sum(p.numel() for p in model.durations.parameters()) + 256 * model.config.dim)  # pitch, energy, and their embeddings
    assert round((sum(parameter.numel() for parameter in model.parameters()) + unused) / 1e6, 1) == millions


def test_phones_are_stretched_over_their_durations() -> None:
    states = torch.arange(12.0).view(2, 6, 1)
    out, lengths = made().stretch(states, DURATIONS)
    assert lengths.tolist() == [7, 5]
    assert out[..., 0].tolist() == [[0, 0, 2, 3, 3, 3, 4], [6, 7, 7, 7, 7, 0, 0]]


def test_a_text_without_a_frame_has_no_units() -> None:
    model = made()
    with torch.no_grad():
        model.durations.project.weight.zero_()
        model.durations.project.bias.fill_(-5.0)
    units, durations = model.generate(TEXT)
    assert [len(row) for row in units] == [0, 0]
    assert durations.sum() == 0


@pytest.mark.parametrize("row", [0, 1])
def test_what_a_text_gives_does_not_depend_on_its_batch(row: int) -> None:
    model = made()
    together, durations = model.generate(TEXT)
    width = int((TEXT[row] != PAD).sum())
    alone, own = model.generate(TEXT[row : row + 1, :width])
    assert alone[0].tolist() == together[row].tolist()
    assert own[0].tolist() == durations[row, :width].tolist()
    states, lengths = model.stretch(model.read(TEXT), durations)
    single = model.write(*model.stretch(model.read(TEXT[row : row + 1, :width]), own))
    assert torch.allclose(model.write(states, lengths)[row, : int(lengths[row])], single[0], atol=1e-5)


def test_the_official_code_lets_padding_be_seen() -> None:
    model = made(replace(TINY, compute_padding=True))
    together, alone = model.read(TEXT)[1, :3], model.read(TEXT[1:, :3])[0]
    assert not torch.allclose(together, alone, atol=1e-4)


def lengths_written(model: FastText2Unit) -> set[tuple[int, int]]:
    """Phones and frames of what the stacks see, for texts of all lengths up to forty phones."""
    seen: list[int] = []
    for part in (model.encoder[0], model.unit_decoder[0]):
        part.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].shape[1]))
    for count in range(2, 41):
        units, durations = model.generate(torch.tensor([[*(4 + torch.arange(count - 1) % 5).tolist(), EOS]]))
        assert durations.shape == (1, count)
        assert len(units[0]) == int(durations.sum())
    return set(zip(seen[::2], seen[1::2], strict=True))


def test_few_lengths_are_generated_so_that_few_plans_stay_in_memory() -> None:
    found = lengths_written(made())
    assert {phones for phones, _ in found} == set(range(4, 41, 4))
    assert all(frames % 16 == 0 for _, frames in found)
    assert len(lengths_written(made(replace(TINY, compute_padding=True)))) == 39, "there padding would change what comes out"


def test_the_losses_are_means_over_frames_and_over_phones() -> None:
    model, batch = made(), batch_of()
    losses = model.losses(batch, torch.Generator())
    assert int(losses["units"].count) == 12
    assert int(losses["durations"].count) == 0
    states = model.read(TEXT)
    logits = model.write(*model.stretch(states, DURATIONS)).log_softmax(-1)
    there = UNITS >= 0
    picked = logits[there].gather(1, UNITS[there][:, None])[:, 0]
    eps = TINY.label_smoothing
    smoothed = (1 - eps - eps / 5) * -picked.sum() + eps / 5 * -logits[there].sum()
    assert torch.allclose(losses["units"].value, smoothed, rtol=1e-5)
    valid = TEXT != PAD
    error = (model.log_durations(states, ~valid)[valid] - torch.log(DURATIONS[valid] + 1.0)).square().mean()
    assert torch.allclose(losses["durations"].value, error * 12, rtol=1e-5)
    assert losses["units"].logs["unit_accuracy"][1] == 12


def test_the_loss_of_a_batch_is_the_sum_of_its_texts_losses() -> None:
    model = made()
    whole = model.losses(batch_of(), torch.Generator())["units"].value
    parts = [model.losses(batch_of(slice(row, row + 1)), torch.Generator())["units"].value for row in (0, 1)]
    assert torch.allclose(whole, sum(parts), rtol=1e-5)  # type: ignore[arg-type]


def test_an_ignored_unit_is_no_target() -> None:
    losses = made(replace(TINY, ignored_unit=1)).losses(batch_of(), torch.Generator())
    assert int(losses["units"].count) == 12 - 3


def test_spare_outputs_are_never_written() -> None:
    model = made(replace(TINY, spare_outputs=4))
    with torch.no_grad():
        model.output.bias[TINY.units :] = 100.0
    assert all(int(row.max()) < TINY.units for row in model.generate(TEXT)[0])


def test_gradients_reach_every_parameter() -> None:
    model = made()
    losses = model.losses(batch_of(), torch.Generator())
    sum(loss.value for loss in losses.values()).backward()  # type: ignore[union-attr]
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"heads": 3}, "give an even dim that heads divide"),
        ({"kernel": 4}, "kernel: 4; give an odd number"),
        ({"layers": 0}, "give at least 1"),
        ({"duration_dropout": 1.0}, "duration_dropout: 1.0 is not a probability"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        dataclasses.replace(TINY, **changes)  # type: ignore[arg-type]


def test_a_model_without_phones_is_refused() -> None:
    with pytest.raises(ValueError, match="vocabulary: 0 phones"):
        FastText2Unit(FastText2UnitConfig())
