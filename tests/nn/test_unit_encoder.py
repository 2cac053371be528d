"""The unit encoder and CTC's head over it, beside what a replay of the stored cases shows."""

from dataclasses import replace

import pytest
import torch

from avtlm.nn.unit_encoder import LetterHead, UnitEncoder, UnitEncoderConfig
from tests.systems.bridge_models import UNIT_ENCODER


def made(config: UnitEncoderConfig = UNIT_ENCODER) -> UnitEncoder:
    torch.manual_seed(0)
    return UnitEncoder(config).eval()


@pytest.mark.parametrize("norm_first", [False, True])
def test_what_a_row_gives_does_not_depend_on_what_is_behind_it(norm_first: bool) -> None:
    model, x = made(replace(UNIT_ENCODER, norm_first=norm_first)), torch.randn(2, 9, 16)
    with torch.no_grad():
        together = model(x, torch.tensor([9, 5]))
        alone = model(x[1:, :5], torch.tensor([5]))
    torch.testing.assert_close(together[1, :5], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm_first", [False, True])
def test_only_pre_norm_layers_end_in_a_norm_and_both_norm_what_comes_in(norm_first: bool) -> None:
    model = made(replace(UNIT_ENCODER, norm_first=norm_first))
    assert "norm.weight" in model.state_dict()
    assert ("encoder.norm.weight" in model.state_dict()) is norm_first


def test_places_behind_the_table_share_its_last_row() -> None:
    model, x = made(replace(UNIT_ENCODER, max_positions=4)), torch.randn(1, 1, 16).expand(1, 7, 16)
    with torch.no_grad():
        placed = model.place(x, torch.tensor([7]))[0]
    assert torch.equal(placed[3], placed[6])
    assert not torch.allclose(placed[2], placed[3])


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "none"])
def test_positions_tell_equal_units_apart(positions: str) -> None:
    model = made(replace(UNIT_ENCODER, positions=positions, key_distance=0))
    x = torch.randn(1, 1, 16).expand(1, 4, 16)
    with torch.no_grad():
        out = model(x, torch.tensor([4]))[0]
    assert torch.allclose(out[0], out[2], atol=1e-6) is (positions == "none")


def test_scaled_embeddings_are_larger_before_positions_are_added() -> None:
    plain = made(replace(UNIT_ENCODER, positions="none", embedding_norm=False))
    scaled = made(replace(UNIT_ENCODER, positions="none", embedding_norm=False, scale_embedding=True))
    x = torch.randn(1, 3, 16)
    torch.testing.assert_close(scaled.place(x, torch.tensor([3])), 4.0 * plain.place(x, torch.tensor([3])))


def test_it_starts_as_fairseqs_encoder_of_text_does() -> None:
    torch.manual_seed(0)
    model = UnitEncoder(UnitEncoderConfig(dim=256, heads=4, feed_forward_dim=512, layers=1))
    attention, forward = model.encoder.layers[0].self_attention, model.encoder.layers[0].feed_forward
    for linear, gain in ((attention.query, 0.5), (attention.output, 1.0)):
        assert linear.weight.var().item() == pytest.approx(gain / 256, rel=0.1)  # Xavier: 2 / (in + out)
    assert forward.expand.weight.abs().max().item() == pytest.approx(256**-0.5, rel=0.01)
    assert model.encoder.distances is not None
    assert model.encoder.distances.table.weight.std().item() == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(("changes", "fault"), [({"position_kernel": 8}, "position_kernel: set 0"), ({"max_positions": 0}, "at least 1")])
def test_wrong_settings_are_named(changes: dict[str, int], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        replace(UNIT_ENCODER, **changes)


def test_ctc_sees_a_frame_and_the_one_before_it_and_puts_out_one_more() -> None:
    torch.manual_seed(0)
    head, x = LetterHead(16, 7).eval(), torch.randn(1, 6, 16)
    with torch.no_grad():
        before = head(x)
        x[0, 3] += 1.0
        after = head(x)
    assert before.shape == (1, 7, 7)
    assert (before != after).any(-1)[0].tolist() == [False, False, False, True, True, False, False]


@pytest.mark.parametrize(("kernel", "frames"), [(2, [9, 5]), (3, [9, 5]), (4, [5, 3]), (7, [3, 2])])
def test_longer_kernels_leave_frames_out(kernel: int, frames: list[int]) -> None:
    head = LetterHead(16, 7, kernel)
    assert head.frames(torch.tensor([9, 5])).tolist() == frames
    assert head(torch.randn(1, 9, 16)).shape[1] >= frames[0]


@pytest.mark.parametrize("key_distance", [0, 3])
def test_gaps_are_passed_over_and_take_no_place(key_distance: int) -> None:
    model, x = made(replace(UNIT_ENCODER, key_distance=key_distance)), torch.randn(1, 6, 16)
    gaps = torch.tensor([[False, False, True, False, False, False]])
    rest = [0, 1, 3, 4, 5]
    with torch.no_grad():
        out = model(x, torch.tensor([6]), gaps=gaps)
        moved = model.place(x, torch.tensor([6]), gaps)[:, rest]
        torch.testing.assert_close(moved, model.place(x[:, rest], torch.tensor([5])))
        x[:, 2] += 1.0
        assert torch.equal(model(x, torch.tensor([6]), gaps=gaps)[:, rest], out[:, rest])
        assert torch.equal(model.hidden_states(x, torch.tensor([6]), gaps)[-1][:, rest], out[:, rest])
        if not key_distance:  # then attention does not see where frames stand
            torch.testing.assert_close(model(x[:, rest], torch.tensor([5])), out[:, rest])
