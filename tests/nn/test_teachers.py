"""Networks of MT2KD's teachers, beside what stored cases show."""

from dataclasses import replace

import pytest
import torch

from avtlm.nn.beats import Beats, BeatsConfig, BeatsLayer, held
from avtlm.nn.ecapa import AttentiveStatisticsPooling, Ecapa, EcapaConfig, relative_lengths
from avtlm.nn.whisper_encoder import WhisperConfig, WhisperEncoder

SMALL_BEATS = BeatsConfig(
    dim=16, layers=2, heads=2, feed_forward_dim=24, embedding_dim=12, position_kernel=8, position_groups=2, relative_buckets=16, tags=5
)
SMALL_ECAPA = EcapaConfig(bands=10, channels=(16, 16, 16, 16, 24), attention_dim=6, squeezed=4, scale=4, dim=7)


def test_whisper_hears_at_most_what_it_has_positions_for() -> None:
    model = WhisperEncoder(WhisperConfig(dim=8, layers=1, heads=2, feed_forward_dim=16, bands=10, positions=20)).eval()
    frames, lengths = model(torch.randn(2, 10, 40), torch.tensor([40, 21]))
    assert frames.shape == (2, 20, 8)
    assert lengths.tolist() == [20, 11]
    with pytest.raises(ValueError, match=r"hears 0\.4 s at most, not 0\.4 s; cut the clip"):
        model(torch.randn(1, 10, 42), torch.tensor([42]))


def test_a_clip_alone_and_without_padding_gives_the_same_tags() -> None:
    torch.manual_seed(0)
    model = Beats(SMALL_BEATS).eval()
    features = torch.randn(2, 48, 128)
    with torch.no_grad():
        both = model(features, torch.tensor([48, 48]))
        torch.testing.assert_close(model(features[1:], torch.tensor([48])), both[1:], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(model(features, torch.tensor([48, 20]))[1], both[1])
    with pytest.raises(ValueError, match="10 frames are less than one patch of 16"):
        model(features[:, :10], torch.tensor([10, 10]))


def test_norms_before_parts_of_a_layer_and_attention_without_distances_are_written_out() -> None:
    torch.manual_seed(0)
    model = Beats(replace(SMALL_BEATS, layers=1, deep_norm=False, norm_first=True, relative=False, gated=False, activation="relu")).eval()
    features, length = torch.randn(1, 32, 128), torch.tensor([32])
    (layer,) = model.layers
    assert isinstance(layer, BeatsLayer)
    x = model.project(model.patch_norm(model.patches(features[:, None]).flatten(2).transpose(1, 2)))
    x = x + model.positions(x)
    normed, attention = layer.self_attention_norm(x), layer.self_attention
    query, key, value = (
        project(normed).unflatten(-1, (2, 8)).transpose(1, 2) for project in (attention.query, attention.key, attention.value)
    )
    seen = (query @ key.transpose(2, 3) / 8**0.5).softmax(-1) @ value
    x = x + attention.output(seen.transpose(1, 2).flatten(2))
    x = x + layer.feed_forward.contract(layer.feed_forward.expand(layer.feed_forward_norm(x)).relu())
    torch.testing.assert_close(model(features, length), model.predictor(model.norm(x)).mean(1), atol=1e-5, rtol=1e-5)


def test_places_hold_what_whole_steps_give_them() -> None:
    # 100 steps for 33 places: three each, the last step is not looked at.
    assert held(torch.tensor([0, 1, 3, 4, 99, 100]), 100, 33).tolist() == [0, 1, 1, 2, 33, 33]


def test_pooling_sees_valid_frames_alone() -> None:
    torch.manual_seed(0)
    pooling = AttentiveStatisticsPooling(6, 4).eval()
    x = torch.randn(2, 6, 9)
    with torch.no_grad():
        found = pooling(x, torch.tensor([9, 5]))
        torch.testing.assert_close(found[1:], pooling(x[1:, :, :5], torch.tensor([5])))
    assert found.shape == (2, 12)
    assert bool((found[:, 6:] >= 0).all())


def test_an_even_signal_has_its_own_mean_and_no_deviation() -> None:
    pooling = AttentiveStatisticsPooling(3, 4).eval()
    found = pooling(torch.full((1, 3, 8), 2.0), torch.tensor([8]))
    torch.testing.assert_close(found, torch.tensor([[2.0, 2.0, 2.0, 1e-6, 1e-6, 1e-6]]))


def test_ecapa_gives_one_vector_and_refuses_what_it_cannot_reflect() -> None:
    torch.manual_seed(0)
    model = Ecapa(SMALL_ECAPA).eval()
    assert model(torch.randn(2, 30, 10), torch.tensor([30, 20])).shape == (2, 7)
    with pytest.raises(ValueError, match="4 frames are too few"):
        model(torch.randn(1, 4, 10), torch.tensor([4]))
    with pytest.raises(ValueError, match="a multiple of scale 4"):
        EcapaConfig(channels=(18, 18, 18, 18, 24), scale=4)
    with pytest.raises(ValueError, match="give as many of each"):
        EcapaConfig(kernels=(5, 3, 1))


def test_shares_of_the_longest_clip_are_rounded_up_to_frames() -> None:
    assert relative_lengths(torch.tensor([1.0, 0.5, 0.34]), 9).tolist() == [9, 5, 4]
