"""Phones move the mouth as their sounds are made, and the picture shows what the controls say."""

import numpy as np
import pytest

pytest.importorskip("cv2", reason="drawing needs the extra 'lips'")

from preprocess.synthesis.espeak import Phone
from preprocess.synthesis.mouth import CONTROLS, Camera, Mouth, animate, blinks, controls, head_motion, spell
from preprocess.synthesis.portrait import SIZE, draw

STILL = np.ones(5)


def track(*symbols: str, seconds: float = 0.2) -> np.ndarray:
    phones = [Phone(symbol, index * seconds, (index + 1) * seconds) for index, symbol in enumerate(symbols)]
    return controls(phones, round(len(symbols) * seconds * 25), np.random.default_rng(1), STILL, noise=0.0, jitter=0.0)


def test_lips_close_for_m_and_open_for_a() -> None:
    jaw = track("a", "m", "a")[:, CONTROLS.index("jaw")]
    assert jaw[7] <= 0
    assert jaw[2] > 0.9
    assert jaw[12] > 0.9


def test_w_rounds_f_tucks_and_th_shows_the_tongue() -> None:
    for symbol, name in (("w", "round"), ("f", "tuck"), ("θ", "tongue")):
        assert track("ə", symbol, "ə")[7, CONTROLS.index(name)] > 0.8


def test_diphthongs_pass_through_both_their_vowels() -> None:
    assert spell("aɪ") == spell("a") + spell("ɪ")
    assert spell("no such symbol")
    assert len(spell("☃")) == 1


def test_the_picture_follows_the_jaw() -> None:
    mouth = Mouth(draw(np.random.default_rng(3)))
    x, y = (round(value / 3) for value in mouth.portrait.mouth)
    closed, opened = (mouth.frame(np.array([jaw, 0, 0, 0, 0])).astype(int) for jaw in (0.0, 1.0))
    cavity = (slice(y, y + 10), slice(x - 4, x + 5))
    assert opened[cavity].mean() < closed[cavity].mean() - 15
    np.testing.assert_array_equal(opened[: y - 20], closed[: y - 20])


def test_lids_close_and_the_mouth_does_not_notice() -> None:
    mouth = Mouth(draw(np.random.default_rng(3)))
    y = round(mouth.portrait.mouth[1] / 3)
    awake, asleep = (mouth.frame(np.zeros(5), lids) for lids in (0.0, 1.0))
    assert (awake[: y - 20] != asleep[: y - 20]).any()
    np.testing.assert_array_equal(awake[y - 10 :], asleep[y - 10 :])
    assert blinks(2000, np.random.default_rng(1)).mean() == pytest.approx(0.04, abs=0.03)


def test_the_same_seed_gives_the_same_pictures_and_another_face_others() -> None:
    def clip(face: int) -> np.ndarray:
        rng = np.random.default_rng(5)
        controls_ = track("a", "m", "u")
        motion, lids, camera = head_motion(15, rng), blinks(15, rng), Camera.draw(15, rng)
        return animate(Mouth(draw(np.random.default_rng(face))), controls_, motion, lids, camera)

    first = clip(1)
    assert first.shape == (15, SIZE, SIZE, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, clip(1))
    assert (first != clip(2)).any()
