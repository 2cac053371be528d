"""Eyes, brows, nose, beard and glasses of the drawn people."""

import numpy as np

from preprocess.synthesis.canvas import area, band, dab, ellipse, lay
from preprocess.synthesis.portrait import SIDE, Traits


def paint_eyes(picture: np.ndarray, traits: Traits, closed: bool) -> None:
    """Both eyes, open or closed."""
    for sign in (-1, 1):
        x, y, w = traits.x + sign * traits.eye_gap, traits.eye_y, traits.eye_width
        h = w * 0.46 * traits.eye_openness
        t = np.linspace(-1, 1, 25)
        upper = y - h * (1 - t**2) ** 0.8 + 1.5 * sign * -t
        lower = y + 0.72 * h * (1 - t**2) ** 0.9 + 1.5 * sign * -t
        if closed:
            lash = np.stack([x + w * t, lower - 1.5], 1)
            dab(picture, traits.skin * 0.93, band(x + w * t, upper - 2, lower), 1.5, 0.9)
        else:
            lash = np.stack([x + w * t, upper], 1)
            _open_eye(picture, traits, x, y, h, band(x + w * t, upper, lower))
            dab(picture, traits.skin * 0.62, np.stack([x + w * t, lower], 1), 1.0, 0.6, line=2)
        dab(picture, np.array([30.0, 22.0, 20.0]), lash, 0.8, 0.95, line=4)
        crease = np.stack([x + 1.05 * w * t, upper - 8 + 2.5 * t**2], 1)
        dab(picture, traits.skin * 0.62, crease, 1.5, 0.5, line=3)


def _open_eye(picture: np.ndarray, traits: Traits, x: float, y: float, h: float, almond: np.ndarray) -> None:
    w = traits.eye_width
    inside = area(SIDE, almond, 0.6)
    lay(picture, np.array([236.0, 232.0, 228.0]) * (0.8 + 0.2 * traits.skin.mean() / 255), inside)
    centre = y - 0.08 * h
    rings = ((traits.iris * 0.55, 0.47, 0.8), (traits.iris, 0.40, 1.5), (traits.iris * 1.3, 0.28, 2.5), (np.full(3, 11.0), 0.20, 0.8))
    for colour, radius, soft in rings:
        dab(picture, colour, ellipse(x, centre, w * radius, w * radius), soft, within=inside)
    dab(picture, np.full(3, 255.0), ellipse(x - 0.14 * w, centre - 0.17 * w, 0.09 * w, 0.09 * w), 0.8, 0.95, within=inside)
    shadow = almond[:25] + np.array([0.0, 2.5])  # of the upper lid on the eyeball
    dab(picture, np.array([60.0, 50.0, 48.0]), shadow, 2.0, 0.45, line=6, within=inside)


def paint_brows(picture: np.ndarray, traits: Traits, texture: np.ndarray) -> None:
    """Two arches, thick towards the nose."""
    colour = traits.hair * 0.55 + traits.skin * 0.12
    for sign in (-1, 1):
        t = np.linspace(-1, 1, 21)  # from the nose outwards
        x = traits.x + sign * (traits.eye_gap + 1.28 * traits.eye_width * t)
        middle = traits.eye_y - traits.brow_height - 7 * (1 - (t - 0.25) ** 2) + 3
        thick = traits.brow_weight * 6.0 * (1 - 0.62 * np.clip((t + 0.2) / 1.2, 0, 1)) * np.clip((1 - t**8), 0, 1) + 0.4
        cover = area(SIDE, band(x, middle - thick, middle + thick), 1.6)
        lay(picture, colour, np.clip(cover * (0.86 + 0.14 * texture), 0, 1))


def paint_nose(picture: np.ndarray, traits: Traits) -> None:
    """A shaded ridge, wings and nostrils."""
    x, tip, w = traits.x, traits.nose_y, traits.nose_width
    for sign in (-1, 1):
        depth = 0.55 if sign == traits.side else 0.35
        offsets = [(15, traits.eye_y - 12), (10, traits.eye_y + 10), (12, tip - 26), (w * 0.85, tip - 8)]
        dab(picture, traits.skin * 0.68, np.array([[x + sign * dx, y] for dx, y in offsets]), 5.0, depth, line=6)
        a = np.linspace(-0.9, 1.9, 16)
        wing = np.stack([x + sign * (w * 0.62 + w * 0.36 * np.cos(a)), tip - 3 + 9 * np.sin(a)], 1)
        dab(picture, traits.skin * 0.55, wing, 1.6, 0.7, line=3)
        dab(picture, traits.skin * 0.28, ellipse(x + sign * w * 0.42, tip + 3, 0.22 * w, 3.4), 1.2, 0.9)
    dab(picture, traits.skin * 0.66, ellipse(x, tip + 9, w * 0.75, 5), 3.0, 0.6)
    bright = np.clip(traits.skin * 1.14 + 6, 0, 255)
    dab(picture, bright, ellipse(x, tip - 10, 8, 8), 4.0, 0.6)
    dab(picture, bright, ellipse(x, (traits.eye_y + tip) / 2 - 6, 4.5, 26), 4.0, 0.35)


def paint_beard(picture: np.ndarray, traits: Traits, outline: np.ndarray, texture: np.ndarray) -> None:
    """Beard, moustache or stubble; the mouth is drawn over it."""
    if traits.beard == "none":
        return
    t = np.linspace(-1, 1, 41)
    reach = traits.mouth_width * 1.08
    lip = traits.mouth_y - traits.upper_lip
    cover = area(SIDE, band(traits.x + reach * t, traits.nose_y + 15 + 17 * np.abs(t) ** 1.5, lip + 1 + 15 * t**2), 2.5)
    if traits.beard != "moustache":
        edge = lip + 12 - (lip + 12 - traits.y - 10) * np.clip((np.abs(t) - 0.40) / 0.58, 0, 1) ** 1.6
        cheeks = area(SIDE, band(traits.x + traits.width * 1.02 * t, edge, np.full_like(t, SIDE)), 7.0)
        cover = np.maximum(cover, cheeks * area(SIDE, outline, 2.0))
    strength = 0.30 if traits.beard == "stubble" else 0.86
    colour = traits.hair * 0.85 if traits.beard != "stubble" else traits.hair * 0.6 + traits.skin * 0.2
    lay(picture, colour * (1 + 0.16 * texture[..., None]), strength * cover)


def paint_glasses(picture: np.ndarray, traits: Traits, colour: np.ndarray) -> None:
    """Round or rather square frames, with a gleam."""
    power = 1.0 if traits.side > 0 else 0.72
    angle = np.linspace(0, 2 * np.pi, 65)
    for sign in (-1, 1):
        x = traits.x + sign * traits.eye_gap
        ring = np.stack(
            [
                x + 37 * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power,
                traits.eye_y + 4 + 30 * np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power,
            ],
            1,
        )
        dab(picture, colour, ring, 0.8, line=5)
        gleam = np.array([[x - 18, traits.eye_y + 18], [x + 2, traits.eye_y - 14]])
        dab(picture, np.full(3, 255.0), gleam, 2.0, 0.10, line=9)
        temple = np.array([[x + sign * 37, traits.eye_y - 2], [traits.x + sign * traits.width, traits.eye_y - 6]])
        dab(picture, colour, temple, 0.8, 0.9, line=4)
    reach = traits.eye_gap - 37
    bridge = np.array([[traits.x - reach, traits.eye_y], [traits.x, traits.eye_y - 4], [traits.x + reach, traits.eye_y]])
    dab(picture, colour, bridge, 0.8, line=4)
