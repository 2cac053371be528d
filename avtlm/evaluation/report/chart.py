"""Curves as SVG in a page: they take the page's colours, light or dark, and print as sharp as its letters."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from avtlm.evaluation.report.page import Markup, element, joined

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 8, 36  # of the area of the curves, in pixels
MOST = 300  # points of a curve that are drawn; beyond, the lowest and highest of every part of it
DASHES = ("", "6 3", "2 3", "9 3 2 3", "1 4", "12 4", "4 2 1 2", "3 6")
COLOURS = 8  # classes c0 to c7 of the page


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        points: (x, y) from left to right; the curve is broken where y is not finite.
        band: (x, low, high) around it.
        look: colour and dashes by number, so that equal numbers look alike in all charts.
        dots: mark the points.
    """

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    look: int = 0
    dots: bool = False


def line_chart(
    series: Sequence[Series],
    title: str,
    x_label: str,
    y_label: str = "",
    ticks: Sequence[tuple[float, str]] | None = None,
    from_zero: bool = False,
) -> Markup:
    """A chart with its title and keys below.

    Args:
        ticks: places and names on the x axis; None chooses round numbers.
        from_zero: the y axis begins at 0.
    """
    shown = [point for each in series for point in each.points if math.isfinite(point[1])]
    lost = sum(not math.isfinite(y) for each in series for _, y in each.points)
    note = (
        "" if not lost else " One value is not finite and leaves a gap." if lost == 1 else f" {lost} values are not finite and leave gaps."
    )
    if not shown:
        return element("figure", element("figcaption", f"{title}: no finite value.", note))
    heights = [y for _, y in shown] + [end for each in series for _, low, high in each.band for end in (low, high) if math.isfinite(end)]
    places = [x for x, _ in shown] + [x for x, _ in ticks or ()]
    x_axis, y_axis = _Axis(min(places), max(places)), _Axis(0.0 if from_zero else min(heights), max(heights), 0.04)
    marks = round_numbers(x_axis.low, x_axis.high) if ticks is None else ticks
    parts = [_grid(x_axis, y_axis, marks, x_label, y_label)]
    for each in series:
        parts += _curve(each, x_axis, y_axis)
    told = "; ".join(_told(each) for each in series)
    drawing = element("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{title}. {told}", width=WIDTH)
    keys = joined(_key(each) for each in series) if len(series) > 1 else ""
    return element("figure", drawing, element("figcaption", element("strong", title), ". " if keys or note else "", keys, note))


def round_numbers(low: float, high: float, count: int = 5) -> list[tuple[float, str]]:
    """About ``count`` round numbers from ``low`` to ``high``, with their names."""
    if high <= low:
        return [(low, f"{low:.4g}")]
    step = 10.0 ** math.floor(math.log10((high - low) / count))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(number * step, f"{number * step:.6g}") for number in range(first, last + 1)]


def thinned(points: Sequence[tuple[float, float]], most: int = MOST) -> list[tuple[float, float]]:
    """At most about ``most`` points, in their order: of every stretch of many its lowest and highest, so that no spike is lost."""
    if len(points) <= most:
        return list(points)
    width = math.ceil(2 * len(points) / most)
    kept = {0, len(points) - 1}
    for start in range(0, len(points), width):
        places = range(start, min(start + width, len(points)))
        kept |= {min(places, key=lambda place: points[place][1]), max(places, key=lambda place: points[place][1])}
    return [points[place] for place in sorted(kept)]


class _Axis:
    """Numbers to shares of the axis; a little room is left at both ends."""

    def __init__(self, low: float, high: float, room: float = 0.0) -> None:
        if high - low <= 1e-12 * max(abs(low), abs(high)):  # a single value stands in the middle
            low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
        self.low = low if low == 0.0 else low - room * (high - low)
        self.high = high + room * (high - low)

    def __call__(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)


def _x(axis: _Axis, value: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * axis(value)


def _y(axis: _Axis, value: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * axis(value)


def _grid(x_axis: _Axis, y_axis: _Axis, marks: Sequence[tuple[float, str]], x_label: str, y_label: str) -> Markup:
    parts = []
    for value, name in round_numbers(y_axis.low, y_axis.high):
        height = f"{_y(y_axis, value):.1f}"
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=height, y2=height, class_="axis"))
        parts.append(element("text", name.replace("-", "\u2212"), x=LEFT - 5, y=height, dy="0.32em", text_anchor="end"))
    for value, name in marks:
        place = _x(x_axis, value)
        side = "end" if place > WIDTH - 30 else "middle"
        parts.append(element("text", name.replace("-", "\u2212"), x=f"{place:.1f}", y=HEIGHT - BOTTOM + 15, text_anchor=side))
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(element("text", x_label, x=f"{middle:.0f}", y=HEIGHT - 4, text_anchor="middle"))
    if y_label:
        turned = f"rotate(-90 11 {HEIGHT / 2:.0f})"
        parts.append(element("text", y_label, x=11, y=f"{HEIGHT / 2:.0f}", text_anchor="middle", transform=turned))
    return joined(parts)


def _curve(series: Series, x_axis: _Axis, y_axis: _Axis) -> Iterator[Markup]:
    colour = f"c{series.look % COLOURS}"
    around = [edge for edge in series.band if math.isfinite(edge[1]) and math.isfinite(edge[2])]
    if len(around) > 1:
        edges = [(x, high) for x, _, high in around] + [(x, low) for x, low, _ in reversed(around)]
        yield element("polygon", points=_path(edges, x_axis, y_axis), class_=f"band {colour}")
    pieces: list[list[tuple[float, float]]] = [[]]
    for point in series.points:
        if math.isfinite(point[1]):
            pieces[-1].append(point)
        elif pieces[-1]:
            pieces.append([])
    for piece in pieces:
        drawn = thinned(piece)
        if len(drawn) > 1:
            dash = DASHES[series.look % len(DASHES)] or None
            yield element("polyline", points=_path(drawn, x_axis, y_axis), class_=f"curve {colour}", stroke_dasharray=dash)
        if series.dots or len(drawn) == 1:
            for x, y in drawn:
                what = element("title", f"{series.name}: {y:.4g}")
                yield element("circle", what, cx=f"{_x(x_axis, x):.1f}", cy=f"{_y(y_axis, y):.1f}", r=3, class_=f"dot {colour}")


def _path(points: Sequence[tuple[float, float]], x_axis: _Axis, y_axis: _Axis) -> str:
    return " ".join(f"{_x(x_axis, x):.1f},{_y(y_axis, y):.1f}" for x, y in points)


def _told(series: Series) -> str:
    """A curve in words, for those who do not see it."""
    heights = [y for _, y in series.points if math.isfinite(y)]
    if not heights:
        return f"{series.name}: nothing"
    return f"{series.name}: from {heights[0]:.4g} to {heights[-1]:.4g}, lowest {min(heights):.4g}, highest {max(heights):.4g}"


def _key(series: Series) -> Markup:
    dash = DASHES[series.look % len(DASHES)] or None
    line = element("line", x1=1, x2=27, y1=5, y2=5, class_=f"curve c{series.look % COLOURS}", stroke_dasharray=dash)
    return element("span", element("svg", line, width=28, height=10, aria_hidden="true"), " ", series.name, " ", class_="key")
