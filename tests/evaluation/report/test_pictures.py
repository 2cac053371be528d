"""Pictures and sounds within a page are what they were."""

import base64
import io

import numpy as np
import pytest

from avtlm.evaluation.report.pictures import heat_map, picture, png, sound
from tests.evaluation.report.read_page import Page


def content(address: str) -> io.BytesIO:
    return io.BytesIO(base64.b64decode(address.partition(",")[2]))


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3), (2, 9, 4)])
def test_a_png_holds_its_pixels(shape: tuple[int, ...]) -> None:
    from matplotlib.image import imread

    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(np.rint(255 * imread(io.BytesIO(png(pixels)), format="png")).astype(np.uint8), pixels)


def test_a_picture_has_its_size_and_an_alternative() -> None:
    [image] = Page(picture(np.zeros((4, 6), np.uint8), 'lips of "a"')).all("img")
    assert (image["width"], image["height"], image["alt"]) == ("6", "4", 'lips of "a"')


def test_a_sound_holds_its_samples() -> None:
    import soundfile

    wave = np.random.default_rng(0).integers(-32768, 32768, 500).astype(np.int16)
    [player] = Page(sound(wave, 16000, "sound of a")).all("audio")
    samples, rate = soundfile.read(content(player["src"]), dtype="int16")
    assert rate == 16000
    assert np.array_equal(samples, wave)


def test_a_map_has_its_values_as_ink_and_its_rows_by_name() -> None:
    from matplotlib.image import imread

    page = Page(heat_map(np.array([[0.0, 0.5], [0.25, 0.25]]), ["<a>", "b"], 1.5, "a map"))
    [image] = page.all("image")
    ink = imread(content(image["href"]), format="png")[..., 3]
    assert ink == pytest.approx(np.array([[0, 1], [0.5, 0.5]]), abs=0.01)
    assert page.words[:2] == ["<a>", "b"]
    assert "1.50" in page.words
    assert page.all("svg")[0]["aria-label"] == "a map"
    assert imread(content(Page(heat_map(np.zeros((1, 3)), ["x"], 1.0, "")).all("image")[0]["href"]), format="png")[..., 3].max() == 0
