"""Drawn people: unlimited identities, nobody's likeness.

A face is drawn once with OpenCV at three times its size, without its mouth; mouth.py draws that for every frame. What FaceMesh needs to
take it for a face: a head that narrows at the jaw, shading, neck, hair, eyes with white, iris, pupil and lid line, brows, and a nose with
nostrils. All that sets people apart is in ``Traits``; hair.py and features.py paint from it.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from preprocess.synthesis.canvas import area, band, dab, ellipse, lay, strands

SIZE = 160
SCALE = 3
SIDE = SIZE * SCALE
SKIN = np.array([[250, 222, 200], [238, 198, 165], [222, 174, 133], [194, 138, 98], [146, 97, 67], [98, 64, 47]], np.float64)
HAIR = np.array([[32, 26, 24], [58, 40, 30], [92, 62, 40], [138, 96, 58], [205, 172, 112], [134, 132, 134], [148, 72, 40]], np.float64)
EYES = np.array([[84, 56, 34], [58, 40, 28], [84, 112, 140], [96, 116, 80], [118, 96, 58]], np.float64)
STYLES = ("crop", "parted", "bob", "long", "curls", "bun", "receding")
BEARDS = ("none", "full", "moustache", "stubble")


@dataclass(frozen=True)
class Traits:
    """One person. Lengths in pixels of the drawing of 480 x 480, whose middle line is x = 240; colours RGB from 0 to 255."""

    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    width: float
    height: float
    jaw: float
    eye_y: float
    eye_gap: float
    eye_width: float
    eye_openness: float
    brow_height: float
    brow_weight: float
    nose_y: float
    nose_width: float
    mouth_y: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    style: str
    beard: str
    glasses: np.ndarray | None
    side: float

    x: float = SIDE / 2
    y: float = 236.0

    @property
    def chin(self) -> float:
        return self.y + self.height


@dataclass(frozen=True)
class Portrait:
    """A face without a mouth, and where its mouth belongs.

    Attributes:
        image: uint8 (480, 480, 3) RGB, three times the size of a frame.
        closed: the same with closed eyes; None if the face does not blink.
        mouth: x, y of the mouth's centre in the drawing.
        half_width: of the resting mouth, in pixels of the drawing.
        chin: y of the chin.
        upper, lower: thickness of the lips.
        skin, lips: RGB colours.
    """

    image: np.ndarray
    closed: np.ndarray | None
    mouth: tuple[float, float]
    half_width: float
    chin: float
    upper: float
    lower: float
    skin: np.ndarray
    lips: np.ndarray


def draw(rng: np.random.Generator) -> Portrait:
    """A new person. All that varies comes from ``rng``."""
    return paint(draw_traits(rng), rng)


def draw_traits(rng: np.random.Generator) -> Traits:
    """What a new person looks like."""
    tone = rng.uniform(0, len(SKIN) - 1)
    skin = SKIN[int(tone)] + (tone % 1) * (SKIN[min(int(tone) + 1, len(SKIN) - 1)] - SKIN[int(tone)])
    # Light hair and eyes go with light skin more often than not.
    hair = HAIR[int(rng.integers(len(HAIR) if tone < 2.5 else 3))] if rng.random() < 0.9 else HAIR[5]
    iris = EYES[int(rng.integers(len(EYES) if tone < 2.5 else 2))]
    style = STYLES[int(rng.integers(len(STYLES)))]
    short = style in ("crop", "parted", "receding", "curls")
    beard = BEARDS[int(rng.integers(1, len(BEARDS)))] if short and rng.random() < 0.45 else "none"
    height, y = rng.uniform(146, 160), Traits.y
    eye_y, nose_y = y - 20 + rng.uniform(-4, 5), y + rng.uniform(38, 47)
    redness = np.array([1.0, rng.uniform(0.58, 0.72), rng.uniform(0.60, 0.76)])
    return Traits(
        skin=skin, hair=np.clip(hair * rng.uniform(0.85, 1.15), 0, 255), iris=iris,
        lips=np.clip(skin * redness * rng.uniform(0.82, 0.95), 0, 255),
        width=rng.uniform(107, 121), height=height, jaw=rng.uniform(0.74, 0.88),
        eye_y=eye_y, eye_gap=rng.uniform(48, 55), eye_width=rng.uniform(22, 26), eye_openness=rng.uniform(0.9, 1.15),
        brow_height=rng.uniform(28, 34), brow_weight=rng.uniform(0.7, 1.15),
        nose_y=nose_y, nose_width=rng.uniform(20, 28),
        mouth_y=nose_y + (y + height - nose_y) * rng.uniform(0.40, 0.46), mouth_width=rng.uniform(43, 51),
        upper_lip=rng.uniform(9, 13), lower_lip=rng.uniform(12, 17),
        style=style, beard=beard, glasses=rng.uniform(25, 95, 3) if rng.random() < 0.22 else None, side=-1.0 if rng.random() < 0.5 else 1.0,
    )  # fmt: skip


def paint(traits: Traits, rng: np.random.Generator) -> Portrait:
    """The picture of a person, with eyes open and closed; background, clothes and light come from ``rng``."""
    from preprocess.synthesis import features, hair

    picture = _background(rng)
    texture = strands(SIDE, rng, 1.6, 16.0)
    hair.paint_behind(picture, traits, texture)
    _neck(picture, traits)
    _clothes(picture, traits, rng)
    hair.paint_over_shoulders(picture, traits, texture)
    for sign in (-1, 1):
        ear = ellipse(traits.x + sign * (traits.width + 2), traits.y + 6, 14, 27)
        dab(picture, traits.skin * 0.86, ear, 1.0)
        dab(picture, traits.skin * 0.7, ellipse(traits.x + sign * (traits.width + 4), traits.y + 6, 6, 16), 2.5)
    outline = head(traits)
    lay(picture, _skin(traits, rng), area(SIDE, outline, 0.8))
    features.paint_beard(picture, traits, outline, texture)
    features.paint_nose(picture, traits)
    features.paint_brows(picture, traits, texture)
    fringe, fringe_cover = hair.front(traits, texture)
    both = []
    for lids_closed in (False, True):
        face = picture.copy()
        features.paint_eyes(face, traits, lids_closed)
        lay(face, fringe, fringe_cover)
        if traits.glasses is not None:
            features.paint_glasses(face, traits, traits.glasses)
        both.append(face)
    ramp = np.linspace(-1, 1, SIDE, dtype=np.float32)[None, :, None]
    light = 1.0 + rng.uniform(-0.14, 0.14) * ramp
    opened, closed = (np.clip(cv2.GaussianBlur(face, (0, 0), 1.2) * light, 0, 255).astype(np.uint8) for face in both)
    return Portrait(
        opened,
        closed,
        (traits.x, traits.mouth_y),
        traits.mouth_width,
        traits.chin,
        traits.upper_lip,
        traits.lower_lip,
        traits.skin,
        traits.lips,
    )


def head(traits: Traits, grow: float = 1.0) -> np.ndarray:
    """Outline of the head: a vault above, cheeks that narrow to a jaw of ``jaw`` x the width, and a round chin."""
    v = np.linspace(0, 1, 60)
    narrowing = np.clip(v / 0.8, 0, 1)
    cheek = 1 - (1 - traits.jaw) * narrowing**2 * (3 - 2 * narrowing)
    below = traits.width * cheek * np.sqrt(1 - np.clip((v - 0.30) / 0.70, 0, 1) ** 2.3)
    u = np.linspace(0, 1, 40)
    above = traits.width * (1 - u**2.3) ** (1 / 2.1)
    right = np.concatenate([np.stack([above[::-1], -u[::-1] * traits.height * 0.95], 1), np.stack([below[1:], v[1:] * traits.height], 1)])
    left = right[::-1] * [-1, 1]
    return np.concatenate([right, left]) * grow + [traits.x, traits.y]


def _background(rng: np.random.Generator) -> np.ndarray:
    """A wall in one colour, lighter above, with large soft spots of light."""
    hue, value = rng.uniform(0, 180), rng.uniform(95, 205)
    colour = cv2.cvtColor(np.array([[[hue, rng.uniform(25, 85), value]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    ramp = np.linspace(1.12, 0.82, SIDE, dtype=np.float32)[:, None, None]
    spots = cv2.GaussianBlur(cv2.resize(rng.standard_normal((4, 4)).astype(np.float32), (SIDE, SIDE)), (0, 0), 40)
    return np.clip(colour * ramp * (1 + 0.09 * spots[..., None]), 0, 250).astype(np.float32)


def _neck(picture: np.ndarray, traits: Traits) -> None:
    x, chin = traits.x, traits.chin
    y = np.linspace(chin - 70, chin + 80, 30)
    half = 50 + 16 * np.clip((y - chin) / 80, 0, 1) ** 1.6
    dab(picture, traits.skin * 0.88, np.concatenate([np.stack([x - half, y], 1), np.stack([x + half, y], 1)[::-1]]), 1.0)
    dab(picture, traits.skin * 0.60, ellipse(x, chin - 12, 62, 42), 9.0, 0.75)


def _clothes(picture: np.ndarray, traits: Traits, rng: np.random.Generator) -> None:
    x, chin = traits.x, traits.chin
    hue = rng.uniform(0, 180)
    shade = np.array([[[hue, rng.uniform(40, 150), rng.uniform(60, 210)]]], np.uint8)
    colour = cv2.cvtColor(shade, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    t = np.linspace(-1, 1, 81)
    shoulders = chin + 44 + 62 * np.clip(np.abs(t) - 0.26, 0, 1) ** 1.25
    pointed = rng.random() < 0.5
    dip = (30 if pointed else 20) * np.clip(1 - np.abs(t) / 0.28, 0, 1) ** (1.0 if pointed else 0.5)
    body = band(x + 235 * t, shoulders + dip, np.full_like(t, SIDE + 20.0))
    cover = area(SIDE, body, 1.0)
    folds = 1 - 0.12 * np.abs(np.linspace(-1, 1, SIDE, dtype=np.float32))[None, :, None] ** 2
    lay(picture, colour * folds, cover)
    inside = np.abs(t) < 0.3
    collar = np.stack([x + 235 * t, shoulders + dip], 1)[inside]
    dab(picture, colour * 0.72, collar, 1.0, 0.9, line=6)


def _skin(traits: Traits, rng: np.random.Generator) -> np.ndarray:
    """Skin lit from the front: lighter on forehead, cheeks and chin, darker to the sides, in the eye sockets and under the lower lip."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    u, v = (columns - traits.x) / traits.width, (rows - traits.y) / traits.height

    def spot(x: float, y: float, w: float, h: float) -> np.ndarray:
        return np.exp(-(((u - x) / w) ** 2) - ((v - y) / h) ** 2)

    mouth, eyes, gap = (traits.mouth_y - traits.y) / traits.height, (traits.eye_y - traits.y) / traits.height, traits.eye_gap / traits.width
    light = 1.03 - 0.26 * np.clip(np.abs(u), 0, 1.2) ** 2.8 - 0.07 * np.clip(v, 0, 1.1) ** 2
    light += 0.06 * spot(0, -0.55, 0.55, 0.25) + 0.05 * spot(0, 0.90, 0.20, 0.10) - 0.10 * spot(0, mouth + 0.19, 0.24, 0.05)
    cheeks = spot(-0.55, 0.28, 0.26, 0.18) + spot(0.55, 0.28, 0.26, 0.18)
    light += 0.04 * cheeks - 0.09 * (spot(-gap, eyes - 0.03, 0.27, 0.13) + spot(gap, eyes - 0.03, 0.27, 0.13))
    light += 0.010 * strands(SIDE, rng, 3.0, 3.0)
    skin = traits.skin.astype(np.float32) * light[..., None]
    skin[..., 0] += 9 * cheeks
    skin[..., 1] -= 4 * cheeks
    for sign in (-1, 1):  # from the nose to the corners of the mouth
        start = [traits.x + sign * (traits.nose_width + 9), traits.nose_y - 4]
        fold = np.array([start, [traits.x + sign * (traits.mouth_width + 4), traits.mouth_y - 14]])
        dab(skin, traits.skin * 0.78, fold, 4.0, 0.35, line=4)
    return np.clip(skin, 0, 255)
