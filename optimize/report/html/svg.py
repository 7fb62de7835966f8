"""Pictures in SVG, measured in percent across: they fill any width with letters of one size.

Colours are classes of page.css, so that they follow dark mode and print.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from markupsafe import Markup, escape

from optimize.report.sections import Section
from optimize.stats.records import ScoreRecord

LEFT, ACROSS = 9.0, 86.0  # percent of the width: before the plot, and the plot's own
TOP, HIGH, BELOW = 14, 200, 34  # pixels: above the plot, the plot's own, under it
QUARTERS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Dot:
    """A point of a chart. mark: what stands in it; kind: its class; name: what it is."""

    x: float
    y: float
    mark: str
    kind: str
    name: str


@dataclass(frozen=True)
class Figure:
    """A chart, what it shows, and its numbers as a table. key: names of its colours, by class."""

    title: str
    drawn: Markup
    note: str
    data: Section
    key: Mapping[str, str] = field(default_factory=dict)


def tag(name: str, text: object = "", **given: object) -> Markup:
    """An element; a trailing underscore in an attribute's name is dropped, others are hyphens."""
    attributes = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in given.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, Markup(attributes), text)


def interval(found: ScoreRecord, target: float, kind: str) -> Markup:
    """A score between 0 and 1 with its interval, as wide as its cell."""
    parts = [_upright(q, "grid") for q in QUARTERS] + [_upright(target, "target")]
    ends = {"x1": _share(found.low), "x2": _share(found.high), "y1": "50%", "y2": "50%"}
    parts += [tag("line", class_="interval", **ends)]
    parts += [tag("circle", cx=_share(found.score), cy="50%", r=5, class_="dot")]
    return tag("svg", Markup().join(parts), class_=f"score {kind}", aria_hidden="true")


def scale(target: float) -> Markup:
    """The numbers under a column of intervals."""
    parts = [
        tag("text", f"{q:g}", x=_share(q), y=12, class_="tick", text_anchor="middle")
        for q in QUARTERS
    ]
    return tag("svg", Markup().join(parts), class_="scale", aria_hidden="true")


def _upright(value: float, kind: str) -> Markup:
    return tag("line", x1=_share(value), x2=_share(value), y1=0, y2="100%", class_=kind)


def _share(value: float) -> str:
    return f"{3 + 94 * value:.2f}%"


@dataclass(frozen=True)
class Plot:
    """Dots over numbers across, with scores from 0 to 1 upwards. end: the last number across."""

    end: float
    across: str

    def x(self, value: float) -> str:
        return f"{LEFT + ACROSS * value / self.end:.2f}%"

    def y(self, value: float) -> float:
        return round(TOP + HIGH * (1 - value), 1)

    def line(self, start: tuple[float, float], end: tuple[float, float], kind: str) -> Markup:
        places = {"x1": self.x(start[0]), "x2": self.x(end[0])}
        return tag("line", **places, y1=self.y(start[1]), y2=self.y(end[1]), class_=kind)

    def steps(self, corners: Sequence[tuple[float, float]], kind: str) -> Iterator[Markup]:
        """A staircase: each height is held until the next corner."""
        for (x, y), (after, height) in pairwise(corners):
            yield self.line((x, y), (after, y), kind)
            yield self.line((after, y), (after, height), kind)

    def dots(self, found: Sequence[Dot]) -> Iterator[Markup]:
        for dot in sorted(found, key=lambda dot: "kept" in dot.kind):  # it lies above others
            x, y = self.x(dot.x), self.y(dot.y)
            circle = tag("circle", cx=x, cy=y, r=9)
            mark = tag("text", dot.mark, x=x, y=y, dy=".35em", text_anchor="middle")
            inside = Markup().join((tag("title", dot.name), circle, mark))
            yield tag("g", inside, class_=f"numbered {dot.kind}")

    def frame(self, target: float | None) -> Iterator[Markup]:
        """Grid, numbers along both sides, and the target."""
        beside = {"x": f"{LEFT - 1.5}%", "text_anchor": "end", "class_": "tick"}
        for q in QUARTERS:
            yield self.line((0, q), (self.end, q), "grid")
            yield tag("text", f"{q:g}", **beside, y=self.y(q), dy=".35em")
        for part in (0, 0.5, 1):
            yield self._tick(part * self.end)
        middle = {"x": self.x(self.end / 2), "y": TOP + HIGH + 31, "text_anchor": "middle"}
        yield tag("text", self.across, **middle, class_="axis")
        if target is not None:
            yield self.line((0, target), (self.end, target), "target")
            above = {"x": self.x(0), "y": self.y(target) - 4}
            yield tag("text", f"target {target:g}", **above, class_="target")

    def _tick(self, value: float) -> Markup:
        anchor = "start" if value == 0 else "end" if value == self.end else "middle"
        place = {"x": self.x(value), "y": TOP + HIGH + 15, "text_anchor": anchor}
        return tag("text", short(value), **place, class_="tick")

    def drawn(self, parts: Sequence[Markup], said: str) -> Markup:
        size = {"width": "100%", "height": TOP + HIGH + BELOW}
        return tag("svg", Markup().join(parts), role="img", aria_label=said, class_="plot", **size)


def short(value: float) -> str:
    """A number as an axis says it: 0, 0.25, 12, 1,500."""
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.2g}"
