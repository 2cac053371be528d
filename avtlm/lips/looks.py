"""Which pictures of a clip the detector is shown, and which it is not.

Finding landmarks takes longer than everything else that is done to a picture. With a stride of N every N-th picture is looked at, and what
lies between is interpolated. ``auto`` looks at every eighth; the faces between two looks are carried from one to the other by optical flow
(:mod:`avtlm.lips.flow`) if it arrives within a bound, and else the picture in the middle is looked at, and so on by halves. Around cuts,
lost faces and quick movements that comes to a look at every picture.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from avtlm.lips.flow import arrives, carry, follow_points

Stride = int | Literal["auto"]

FAR = 8  # pictures from one look to the next at most: 0.32 s


class Looks:
    """Shows a detector some of the pictures of a clip, which come in order.

    Args:
        find: the detector: number of a picture and the picture, to faces of float64 ``(68, 2)``.
        stride: every N-th picture, or ``"auto"``.

    Attributes:
        faces: what was found, or carried along, by number of the picture; of others nothing is known.
        looked: numbers of the pictures that the detector was shown.
    """

    def __init__(self, find: Callable[[int, np.ndarray], list[np.ndarray]], stride: Stride) -> None:
        self.faces: dict[int, list[np.ndarray]] = {}
        self.looked: set[int] = set()
        self._find = find
        self._stride = stride
        self._held: dict[int, np.ndarray] = {}  # pictures since the look that everything before is settled by
        self._found = False

    def show(self, number: int, picture: np.ndarray) -> None:
        """The next picture, uint8 ``(height, width)`` or ``(height, width, 3)``."""
        if self._stride != "auto":
            if number % self._stride == 0:
                self.faces[number] = self._find(number, picture)
                self.looked.add(number)
            return
        self._held[number] = picture
        if number % FAR == 0:
            self._settle_up_to(number)

    def finish(self) -> None:
        """There are no more pictures. The last one is looked at as well, so that ``auto`` never extrapolates."""
        if len(self._held) > 1:
            self._settle_up_to(max(self._held))

    def _settle_up_to(self, last: int) -> None:
        first = min(self._held)
        self._look(last)
        self._settle(first, last)
        self._held = {last: self._held[last]}

    def _look(self, number: int) -> None:
        picture = self._held[number]
        faces = self._find(number, picture)
        if not faces and self._found:  # a tracker that loses its face answers nothing, and searches the whole picture when asked again
            faces = self._find(number, picture)
        self._found = bool(faces)
        self.faces[number] = faces
        self.looked.add(number)

    def _settle(self, first: int, last: int, paths: list[np.ndarray | None] | None = None) -> None:
        """Find the faces between two pictures that were looked at; ``paths`` are those of the first one's faces, if they are known."""
        if last - first < 2:
            return
        here, there = self.faces[first], self.faces[last]
        if here and paths is None:
            pictures = [self._held[number] for number in range(first, last + 1)]
            paths = [follow_points(pictures, face) for face in here]
        if here and paths is not None and len(here) == len(there) and self._carry(first, last, paths):
            return
        middle = (first + last) // 2
        self._look(middle)
        self._settle(first, middle, None if paths is None else [None if path is None else path[: middle - first + 1] for path in paths])
        self._settle(middle, last)

    def _carry(self, first: int, last: int, paths: list[np.ndarray | None]) -> bool:
        """Whether all faces arrive; then they are known in between."""
        between: list[np.ndarray] = []
        for face, path in zip(self.faces[first], paths, strict=True):
            if path is None:
                return False
            target = min(self.faces[last], key=lambda other: float(np.abs(other - face).sum()))
            if not arrives(path, target):
                return False
            between.append(carry(path, face, target))
        self.faces.update({number: [faces[number - first - 1] for faces in between] for number in range(first + 1, last)})
        return True
