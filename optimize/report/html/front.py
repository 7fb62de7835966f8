"""The chart of cost against quality, of a climb's programs or a sweep's LMs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optimize.report.html import svg
from optimize.report.html.svg import Dot, Figure, Plot
from optimize.report.prices import Price, cost, in_usd
from optimize.report.sections import Section
from optimize.stats.records import ScoreRecord


@dataclass(frozen=True)
class Choice:
    """A program or an LM. mark: by which other charts know it; kind: how it is drawn; best: of
    those as cheap.
    """

    mark: str
    name: str
    kind: str
    score: ScoreRecord
    price: Price
    best: bool


def cost_front(
    title: str, what: str, rows: str, choices: Sequence[Choice], target: float
) -> Figure | None:
    """Score over what an answer costs, with those that nothing cheaper beats. what: a choice is;
    rows: that it was scored on. None where there is nothing to compare.
    """
    if len(choices) < 2:
        return None
    usd = in_usd([c.price for c in choices])
    unit = "US dollars for 1,000 answers" if usd else "tokens an answer, read and written"
    points = sorted(((cost(c.price, usd), c) for c in choices), key=lambda p: (p[0], p[1].mark))
    front = [(x, c) for x, c in points if c.best]
    plot = Plot(points[-1][0] * 1.06, unit)
    corners = [(x, c.score.score) for x, c in front] + [(points[-1][0], front[-1][1].score.score)]
    dots = [Dot(x, c.score.score, c.mark, c.kind, f"{c.name}: {c.score}") for x, c in points]
    drawn = [*plot.frame(target), *plot.steps(corners, "front"), *plot.dots(dots)]
    note = "Nothing as cheap scores better than those on the line: "
    note += ", ".join(c.name for _, c in front) + "."
    cells = [
        [c.mark, c.name, str(c.score), svg.short(x), "yes" if c.best else ""] for x, c in points
    ]
    columns = ("", what, f"{rows} score", unit, "on the line")
    said = f"{rows.capitalize()} score over {unit}. {note}"
    return Figure(title, plot.drawn(drawn, said), note, Section(title, (), columns, cells))
