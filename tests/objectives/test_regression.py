"""Targets and losses of regression (values: tests/test_golden.py)."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from avtlm.objectives.regression import TargetConfig, TeacherConfig, average_layers, regression_loss, spread

PLAIN = TargetConfig(layers=2, instance_norm=False)
LENGTHS = torch.tensor([7, 7])


def layers() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [3 + 2 * torch.randn(2, 7, 4, generator=generator) for _ in range(2)]


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("batch_norm", lambda x: F.batch_norm(x.transpose(1, 2), None, None, training=True).transpose(1, 2)),
        ("instance_norm", lambda x: F.instance_norm(x.transpose(1, 2)).transpose(1, 2)),
        ("group_norm", lambda x: F.layer_norm(x, x.shape[1:])),
        ("layer_norm", lambda x: F.layer_norm(x, x.shape[2:])),
    ],
)
def test_norms_of_layers_are_pytorchs(name: str, norm: object) -> None:
    found = average_layers(layers(), LENGTHS, replace(PLAIN, **{name: True}))  # type: ignore[arg-type]
    torch.testing.assert_close(found, sum(norm(x) for x in layers()) / 2, atol=1e-5, rtol=1e-5)  # type: ignore[operator]


def test_norms_of_the_average_come_last() -> None:
    mean = sum(layers()) / 2
    found = average_layers(layers(), LENGTHS, replace(PLAIN, average_layer_norm=True))
    torch.testing.assert_close(found, F.layer_norm(mean, (4,)), atol=1e-5, rtol=1e-5)
    found = average_layers(layers(), LENGTHS, replace(PLAIN, average_instance_norm=True))
    torch.testing.assert_close(found, F.instance_norm(mean.transpose(1, 2)).transpose(1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["instance_norm", "group_norm"])
def test_targets_of_a_clip_do_not_depend_on_padding(name: str) -> None:
    config = replace(PLAIN, **{name: True})  # type: ignore[arg-type]
    together = average_layers(layers(), torch.tensor([7, 4]), config)
    alone = average_layers([layer[1:, :4] for layer in layers()], torch.tensor([4]), config)
    torch.testing.assert_close(together[1, :4], alone[0], atol=1e-5, rtol=1e-5)
    official = average_layers(layers(), torch.tensor([7, 4]), replace(config, over_padding=True))
    torch.testing.assert_close(official, average_layers(layers(), LENGTHS, config))


def test_official_axes_norm_frames_over_the_rows_of_the_batch() -> None:
    config = replace(PLAIN, group_norm=True, official_axes=True)
    frames_first = [layer.transpose(0, 1) for layer in layers()]
    expected = sum(F.layer_norm(x, x.shape[1:]) for x in frames_first) / 2
    torch.testing.assert_close(average_layers(layers(), LENGTHS, config).transpose(0, 1), expected, atol=1e-5, rtol=1e-5)


def test_the_loss_is_scaled_by_the_root_of_the_width() -> None:
    x, y = layers()[0][0], layers()[1][0]
    loss = regression_loss(x, y)
    torch.testing.assert_close(loss.value, 2 * 7 * F.mse_loss(x, y))
    assert loss.count == 7
    torch.testing.assert_close(regression_loss(x, y, beta=0.5, scale=3.0).value, 3 * 28 * F.smooth_l1_loss(x, y, beta=0.5))


def test_the_spread_of_a_constant_is_nothing() -> None:
    assert spread(torch.ones(5, 3)).item() == pytest.approx(1e-3)
    assert spread(torch.ones(1, 3)).item() == pytest.approx(1e-3)
    assert spread(torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))).item() == pytest.approx(1.0, abs=0.05)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"targets\.layers: 0"):
        TargetConfig(layers=0)
    with pytest.raises(ValueError, match="give decays from 0 to 1"):
        TeacherConfig(decay=1.5)
