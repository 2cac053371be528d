"""A stream gives what the whole gives with the same chunk mask."""

import pytest
import torch

from avtlm.nn.zipformer import ZipformerStream
from tests.nn.zipformer.made_zipformer import features, zipformer


@pytest.mark.parametrize(("chunk", "left"), [(4, 8), (8, 8), (8, -1), (8, 3), (16, 32)])
@pytest.mark.parametrize("frames", [9, 29, 61, 93])
def test_a_stream_equals_the_whole_however_its_sound_comes(chunk: int, left: int, frames: int) -> None:
    model, sound = zipformer(causal=True), features(2, frames)
    with torch.no_grad():
        whole = model(sound, torch.tensor([frames, frames]), chunk, left).frames
    for size in (7, frames):
        stream = ZipformerStream(model, chunk, left, batch=2)
        found = torch.cat([*(stream.accept(piece) for piece in sound.split(size, 1)), stream.finish()], 1)
        assert found.shape == whole.shape
        assert torch.allclose(found, whole, rtol=1e-5, atol=1e-5)


def test_frames_come_as_soon_as_they_can() -> None:
    model = zipformer(causal=True)
    stream = ZipformerStream(model, 8, 16)
    assert stream.features_for_chunk == 29
    assert stream.accept(features(1, 28)).shape == (1, 0, 16)
    assert stream.accept(features(1, 1)).shape == (1, 4, 16)
    assert stream.accept(features(1, 40)).shape == (1, 8, 16)
    assert stream.finish().shape[1] > 0
    assert stream.finish().shape == (1, 0, 16)
    with pytest.raises(ValueError, match="the stream is over"):
        stream.accept(features(1, 1))


def test_too_little_sound_gives_nothing() -> None:
    stream = ZipformerStream(zipformer(causal=True), 8)
    stream.accept(features(1, 8))
    assert stream.finish().shape == (1, 0, 16)


def test_streams_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="causal: false"):
        ZipformerStream(zipformer(), 8)
    with pytest.raises(ValueError, match="is in training"):
        ZipformerStream(zipformer(causal=True).train(), 8)
    with pytest.raises(ValueError, match="a stream needs chunks of some frames"):
        ZipformerStream(zipformer(causal=True), -1)
    with pytest.raises(ValueError, match="chunk_size: 6 frames"):
        ZipformerStream(zipformer(causal=True), 6)
