"""Features: label rates of MFCC, batches, what an encoder says about its rate, and what cannot be taken."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtlm import checkpoint, config, systems
from avtlm.data.manifest import Manifest, Utterance, read_manifest
from avtlm.frontends.waveform import WaveformConfig
from avtlm.nn.transformer import EncoderConfig
from avtlm.systems.hubert import HubertConfig
from avtlm.units.discovery import units
from avtlm.units.features import FeatureConfig, Features, batches, in_batches, mfcc, mfcc_features
from avtlm.units.kmeans import KMeansConfig
from avtlm.units.labels import read_labels
from tests.made_corpus import MadeCorpus
from tests.units.made_encoder import save_encoder


@pytest.mark.parametrize(("rate", "shape"), [(100, (98, 39)), (50, (49, 78)), (25, (25, 156))])
def test_mfcc_have_the_rate_that_is_asked_for(rate: float, shape: tuple[int, int]) -> None:
    wave = np.random.default_rng(0).integers(-9000, 9000, 16000).astype(np.int16)
    found = mfcc_features(wave, rate=rate, normalise=False)
    assert found.shape == shape
    whole = len(found) if rate != 25 else 24  # the last of 25 is half zeros
    np.testing.assert_array_equal(found[:whole].reshape(-1, 39), mfcc(wave).numpy()[: round(100 / rate) * whole])
    assert mfcc_features(wave, 40, rate).shape == (40, shape[1])


def test_mfcc_follow_the_length_of_the_picture_at_every_rate(made: MadeCorpus) -> None:
    rows = read_manifest(made.clips)
    for rate in (25, 50, 100):
        features = Features(rows, FeatureConfig(mfcc_rate=rate))
        assert features.rate == rate
        for row, (name, value) in zip(rows, in_batches(features), strict=True):
            assert (name, len(value)) == (row.id, row.video_frames * rate / 25)


def test_an_encoder_says_at_which_rate_it_works(made: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avtlm.systems import vatlm

    folder = save_encoder(tmp_path / "model")
    features = FeatureConfig(str(folder), 1)
    assert Features(read_manifest(made.clips), features).rate == 25
    monkeypatch.setattr(vatlm.VATLM, "frame_rate", 50.0, raising=False)
    assert Features(read_manifest(made.clips), features).rate == 50


@pytest.mark.parametrize("manifest", ["clips", "sound"])
def test_a_speech_encoder_gives_units_at_50_hertz(manifest: str, made: MadeCorpus, tmp_path: Path) -> None:
    waveform = WaveformConfig(widths=(8, 8), kernels=(10, 64), strides=(5, 64))
    settings = HubertConfig(waveform=waveform, encoder=EncoderConfig(dim=8, layers=2, heads=2, feed_forward_dim=8, position_kernel=4,
                                                                     position_groups=2), units=9)  # fmt: skip
    torch.manual_seed(0)
    card = {"system": "hubert", "task": "pretrain", "model": config.to_dict(settings)}
    checkpoint.save_model(tmp_path / "model", systems.find("hubert").build(settings), card)
    path = getattr(made, manifest)
    report = units(path, tmp_path / "units", tmp_path / "model", 1, KMeansConfig(4, restarts=1), dump=tmp_path / "dump")
    assert report.rate == 50
    read_labels(report.labels).check(read_manifest(path), rate=50)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="a model and a layer belong together"):
        FeatureConfig("model")
    with pytest.raises(ValueError, match="MFCC at 30 Hz; choose 25, 50 or 100"):
        FeatureConfig(mfcc_rate=30)
    for wrong in ({"mfcc_rate": 50.0}, {"mfcc_normalise": False}):
        with pytest.raises(ValueError, match="a model gives its own rate"):
            FeatureConfig("model", 1, **wrong)  # type: ignore[arg-type]


def test_mfcc_of_silent_films_are_refused(tmp_path: Path) -> None:
    rows = Manifest(tmp_path, (Utterance("a", audio="a.wav", audio_samples=640), Utterance("b", video="b.npy", video_frames=9)))
    with pytest.raises(ValueError, match="utterance 'b' has no audio to take MFCC of"):
        Features(rows, FeatureConfig())


def test_weights_and_not_their_place_make_the_features(tmp_path: Path) -> None:
    one, two = (save_encoder(tmp_path / name, seed=seed) for name, seed in (("one", 0), ("two", 1)))
    copy = save_encoder(tmp_path / "copy")
    told = [FeatureConfig(str(folder), 1).describe() for folder in (one, two, copy)]
    assert told[0] == told[2] != told[1]
    assert replace(FeatureConfig(str(one), 1), layer=2).describe() != told[0]


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 120))
@settings(max_examples=60, deadline=None)
def test_batches_hold_every_utterance_once_and_not_too_much(lengths: list[int], most: int) -> None:
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    found = batches(lengths, order, most)
    assert [index for batch in found for index in batch] == order
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= most
