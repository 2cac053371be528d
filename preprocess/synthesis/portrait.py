"""Drawn people: unlimited identities, nobody's likeness.

A face is drawn once with OpenCV at three times its size, without its mouth; mouth.py draws that for every frame. What FaceMesh needs to take it for a
face: a head that narrows at the jaw, shading, neck and hair, eyes with white, iris, pupil and lid line, brows, and a nose with nostrils.
"""

from dataclasses import dataclass

import cv2
import numpy as np

SIZE = 160
SCALE = 3
SKIN = np.array([[255, 224, 196], [241, 194, 155], [224, 172, 125], [198, 134, 90], [141, 90, 60], [94, 58, 40]], np.float64)
HAIR = np.array([[35, 25, 20], [80, 50, 30], [130, 85, 45], [205, 170, 100], [120, 120, 120], [150, 60, 30]], np.float64)


@dataclass(frozen=True)
class Portrait:
    """A face without a mouth, and where its mouth belongs.

    Attributes:
        image: uint8 (480, 480, 3) RGB, three times the size of a frame.
        mouth: x, y of the mouth's centre in the drawing.
        half_width: of the resting mouth, in pixels of the drawing.
        chin: y of the chin.
        upper, lower: thickness of the lips.
        skin, lips: RGB colours.
    """

    image: np.ndarray
    mouth: tuple[float, float]
    half_width: float
    chin: float
    upper: float
    lower: float
    skin: np.ndarray
    lips: np.ndarray


def draw(rng: np.random.Generator) -> Portrait:
    """A new person. All that varies comes from ``rng``."""
    side = SIZE * SCALE
    tone = rng.uniform(0, len(SKIN) - 1)
    skin = SKIN[int(tone)] + (tone % 1) * (SKIN[min(int(tone) + 1, len(SKIN) - 1)] - SKIN[int(tone)])
    hair = HAIR[int(rng.integers(len(HAIR)))] * rng.uniform(0.8, 1.15)
    width, height, jaw = rng.uniform(108, 126), rng.uniform(150, 168), rng.uniform(0.66, 0.84)
    cx, cy = side / 2, 232.0
    chin = cy + height
    eye_y, eye_gap, eye_w = cy - 18 + rng.uniform(-5, 5), rng.uniform(50, 58), rng.uniform(21, 26)
    nose_y = cy + rng.uniform(42, 52)
    mouth_y = nose_y + (chin - nose_y) * rng.uniform(0.38, 0.46)
    style, beard, glasses = int(rng.integers(4)), rng.random() < 0.3, rng.random() < 0.25

    image = _background(rng, side)
    _clothes(image, cx, chin, rng)
    if style in (1, 3):  # hair that falls behind the neck
        _fill(image, _ellipse(cx, cy + (30 if style == 1 else 60), width * 1.22, height * (1.05 if style == 1 else 1.3)), hair * 0.85)
    _fill(image, np.array([[cx - 52, chin - 60], [cx + 52, chin - 60], [cx + 62, chin + 70], [cx - 62, chin + 70]]), skin * 0.8)
    for sign in (-1, 1):
        _fill(image, _ellipse(cx + sign * (width + 3), cy + 8, 15, 28), skin * 0.88)
    outline = _head(cx, cy, width, height, jaw)
    face = np.zeros((side, side), np.uint8)
    cv2.fillPoly(face, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    image[:] = _blend(image, _shade(skin, side, cx, cy, width, height, rng), face)

    if beard:
        full = rng.random() < 0.5
        region = np.zeros((side, side), np.uint8)
        low = mouth_y - 26 if full else nose_y + 12
        cv2.fillPoly(region, [np.round(outline * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        region[: int(low)] = 0
        if not full:
            region[int(mouth_y) :] = 0
            region[:, : int(cx - 50)] = 0
            region[:, int(cx + 50) :] = 0
        region = cv2.GaussianBlur(region, (0, 0), 7)
        image[:] = _blend(image, np.broadcast_to(hair * 0.9, image.shape), (region * rng.uniform(0.35, 0.7)).astype(np.uint8))
    for sign in (-1, 1):
        _eye(image, cx + sign * eye_gap, eye_y, eye_w, skin, rng.uniform(0.9, 1.1), rng)
        _brow(image, cx + sign * eye_gap, eye_y - 32, eye_w * 1.25, sign, hair * 0.75)
    _nose(image, cx, eye_y, nose_y, rng.uniform(20, 29), skin)
    _hair_top(image, cx, cy, width, height, style, hair)
    if glasses:
        frame = tuple(int(v) for v in rng.uniform(20, 90, 3))
        for sign in (-1, 1):
            cv2.ellipse(image, (int(cx + sign * eye_gap), int(eye_y + 3)), (39, 31), 0, 0, 360, frame, 4, cv2.LINE_AA)
        cv2.line(image, (int(cx - eye_gap + 39), int(eye_y)), (int(cx + eye_gap - 39), int(eye_y)), frame, 4, cv2.LINE_AA)
    image = cv2.GaussianBlur(image, (0, 0), 1.6)
    image = np.clip(image * _side_light(side, rng), 0, 255).astype(np.uint8)
    redness = np.array([1.0, rng.uniform(0.6, 0.75), rng.uniform(0.62, 0.78)])
    lips = np.clip(skin * redness * rng.uniform(0.82, 0.95), 0, 255)
    return Portrait(image, (cx, mouth_y), rng.uniform(43, 51), chin, rng.uniform(9, 14), rng.uniform(12, 18), skin, lips)


def _background(rng: np.random.Generator, side: int) -> np.ndarray:
    grey = rng.uniform(70, 200)
    top, bottom = (np.clip(grey + rng.uniform(-30, 30) + rng.uniform(-28, 28, 3), 30, 235) for _ in range(2))
    ramp = np.linspace(0, 1, side)[:, None, None]
    return np.repeat((top * (1 - ramp) + bottom * ramp), side, axis=1).astype(np.uint8)


def _clothes(image: np.ndarray, cx: float, chin: float, rng: np.random.Generator) -> None:
    colour = np.clip(rng.uniform(40, 190) + rng.uniform(-55, 55, 3), 20, 230)
    side = len(image)
    shoulders = np.array(
        [[cx - 60, chin + 40], [cx + 60, chin + 40], [cx + 190, chin + 90], [cx + 215, side], [cx - 215, side], [cx - 190, chin + 90]]
    )
    _fill(image, shoulders, colour)


def _head(cx: float, cy: float, width: float, height: float, jaw: float) -> np.ndarray:
    """Outline of a head: an ellipse above, narrowing below to a jaw of ``jaw`` x its width."""
    angle = np.linspace(0, 2 * np.pi, 160, endpoint=False)
    x, y = np.cos(angle), np.sin(angle)
    below = np.clip(y, 0, 1)
    x = np.sign(x) * np.abs(x) ** np.where(y > 0, 0.82, 1.0) * (1 - (1 - jaw) * below**1.5)
    return np.stack([cx + width * x, cy + height * np.where(y < 0, 0.93, 1.0) * y], 1)


def _shade(skin: np.ndarray, side: int, cx: float, cy: float, width: float, height: float, rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side]
    u, v = (x - cx) / width, (y - cy) / height
    light = 1.06 - 0.28 * np.clip(np.abs(u), 0, 1.2) ** 2.4 - 0.10 * np.clip(v, 0, 1.1) ** 2
    cheeks = sum(np.exp(-(((u - s * 0.5) / 0.22) ** 2 + ((v - 0.22) / 0.18) ** 2)) for s in (-1, 1))
    texture = cv2.GaussianBlur(rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), 2.5)
    shaded = skin * (light + 0.03 * texture)[..., None]
    shaded[..., 0] += 12 * cheeks
    return np.clip(shaded, 0, 255)


def _eye(image: np.ndarray, x: float, y: float, w: float, skin: np.ndarray, openness: float, rng: np.random.Generator) -> None:
    iris = tuple(int(v) for v in rng.choice(np.array([[70, 45, 25], [60, 90, 110], [80, 100, 60], [40, 30, 25]])))
    h = w * 0.48 * openness
    shadow = cv2.GaussianBlur(_mask(image.shape[:2], _ellipse(x, y - 4, w * 1.25, h * 1.9)), (0, 0), 6)
    image[:] = _blend(image, np.broadcast_to(skin * 0.75, image.shape), (shadow * 0.55).astype(np.uint8))
    almond = _almond(x, y, w, h)
    white = _mask(image.shape[:2], almond)
    eye = np.empty_like(image)
    eye[:] = (238, 236, 232)
    cv2.circle(eye, (round(x * 16), round(y * 16)), round(w * 0.47 * 16), iris, -1, cv2.LINE_AA, 4)
    cv2.circle(eye, (round(x * 16), round(y * 16)), round(w * 0.22 * 16), (10, 10, 10), -1, cv2.LINE_AA, 4)
    cv2.circle(eye, (round((x - w * 0.15) * 16), round((y - w * 0.17) * 16)), round(w * 0.1 * 16), (250, 250, 250), -1, cv2.LINE_AA, 4)
    image[:] = _blend(image, eye, white)
    top = almond[: len(almond) // 2]
    cv2.polylines(image, [np.round(top * 16).astype(np.int32)], False, (35, 25, 22), 5, cv2.LINE_AA, 4)
    bottom = almond[len(almond) // 2 :]
    cv2.polylines(image, [np.round(bottom * 16).astype(np.int32)], False, tuple(int(v) for v in skin * 0.6), 2, cv2.LINE_AA, 4)


def _almond(x: float, y: float, w: float, h: float) -> np.ndarray:
    t = np.linspace(-1, 1, 24)
    top = np.stack([x + w * t, y - h * (1 - t**2) ** 0.8], 1)
    bottom = np.stack([x + w * t[::-1], y + 0.8 * h * (1 - t**2) ** 0.9], 1)
    return np.concatenate([top, bottom])


def _brow(image: np.ndarray, x: float, y: float, w: float, sign: int, colour: np.ndarray) -> None:
    t = np.linspace(-1, 1, 16)
    arch = y - 8 * (1 - (t * sign - 0.2) ** 2)
    thick = 5.5 * (1 - 0.55 * np.clip(t * sign, -1, 1))
    _fill(image, np.concatenate([np.stack([x + w * t, arch - thick], 1), np.stack([x + w * t, arch + thick], 1)[::-1]]), colour)


def _nose(image: np.ndarray, cx: float, eye_y: float, nose_y: float, w: float, skin: np.ndarray) -> None:
    dark = np.broadcast_to(skin * 0.62, image.shape)
    sides = np.zeros(image.shape[:2], np.uint8)
    for sign in (-1, 1):
        line = np.array([[cx + sign * 13, eye_y], [cx + sign * 11, (eye_y + nose_y) / 2], [cx + sign * w, nose_y - 4]])
        cv2.polylines(sides, [np.round(line * 16).astype(np.int32)], False, 150, 5, cv2.LINE_AA, 4)
    under = _mask(image.shape[:2], _ellipse(cx, nose_y + 4, w * 0.95, 7))
    soft = np.maximum(cv2.GaussianBlur(sides, (0, 0), 4), cv2.GaussianBlur(under, (0, 0), 3) // 2)
    image[:] = _blend(image, dark, soft)
    light = cv2.GaussianBlur(_mask(image.shape[:2], _ellipse(cx, nose_y - 14, 8, 12)), (0, 0), 5)
    image[:] = _blend(image, np.broadcast_to(np.clip(skin * 1.12, 0, 255), image.shape), (light * 0.7).astype(np.uint8))
    for sign in (-1, 1):
        _fill(image, _ellipse(cx + sign * w * 0.45, nose_y + 2, 6, 3.6), skin * 0.35)


def _hair_top(image: np.ndarray, cx: float, cy: float, width: float, height: float, style: int, colour: np.ndarray) -> None:
    angle = np.linspace(np.pi, np.pi * 2, 60)
    outer = np.stack([cx + width * 1.06 * np.cos(angle), cy - 8 + height * 1.06 * np.sin(angle)], 1)
    line = np.linspace(1, -1, 40)
    # Hairlines as shares of the head's height above its middle; all come down to the temples, where the outer line starts.
    open_line = {0: 0.70 - 0.06 * line**2, 1: 0.72 - 0.16 * line**2, 2: 0.78 - 0.05 * np.cos(3 * line), 3: 0.66 + 0.16 * line}[style]
    inner = np.stack([cx + width * 1.06 * line, cy - 8 - height * open_line * np.clip(1 - np.abs(line) ** 7, 0, 1)], 1)
    _fill(image, np.concatenate([outer, inner]), colour)


def _side_light(side: int, rng: np.random.Generator) -> np.ndarray:
    ramp = np.linspace(-1, 1, side)[None, :, None]
    return 1.0 + rng.uniform(-0.14, 0.14) * ramp


def _ellipse(x: float, y: float, w: float, h: float) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([x + w * np.cos(angle), y + h * np.sin(angle)], 1)


def _mask(shape: tuple[int, ...], points: np.ndarray) -> np.ndarray:
    mask = np.zeros(shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask


def _fill(image: np.ndarray, points: np.ndarray, colour: np.ndarray) -> None:
    cv2.fillPoly(image, [np.round(points * 16).astype(np.int32)], tuple(float(v) for v in np.clip(colour, 0, 255)), cv2.LINE_AA, 4)


def _blend(below: np.ndarray, above: np.ndarray, mask: np.ndarray) -> np.ndarray:
    weight = (mask.astype(np.float32) / 255.0)[..., None]
    return np.clip(below * (1 - weight) + above * weight, 0, 255).astype(np.uint8)
