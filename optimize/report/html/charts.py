"""The charts of the page, each with the table that says the same in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from markupsafe import Markup

from optimize.climb.verdict import WEIGHTS
from optimize.report.html import svg
from optimize.report.html.front import Choice, cost_front
from optimize.report.html.svg import Dot, Figure, Plot
from optimize.report.page import Page, calibration
from optimize.report.prices import pareto
from optimize.report.record import AttemptRecord
from optimize.report.sections import NONE, Section
from optimize.scoring.calibration import ConfidenceRecord
from optimize.stats.records import GainRecord, ScoreRecord


@dataclass(frozen=True)
class Bar:
    """A line of the chart of scores. mark: by which other charts know it; kind: how it is drawn."""

    mark: str
    name: str
    drawn: Markup
    score: str
    gain: str = ""
    calls: str = ""
    seconds: str = ""


def val_bars(page: Page) -> list[Bar]:
    """A line a rung that was scored, in order; ▲ marks what the next ones were built on. A race
    that was stopped has a score of the first rows alone, which says how many.
    """
    out = []
    whole = max((a.val.n for _, a in _scored(page) if a.val), default=0)
    for mark, a in _scored(page):
        assert a.val
        name = f"{a.rung} ▲" if a.promoted and a.gain else a.rung
        bar = _bar(page, mark, name, a.val, _kind(page, a), a.gain)
        calls, seconds = f"{a.lm_calls:,}", f"{a.seconds:,.0f}"
        score = bar.score if a.val.n == whole else a.val.with_n
        out.append(Bar(bar.mark, name, bar.drawn, score, bar.gain, calls, seconds))
    return out


def test_bars(page: Page) -> list[Bar]:
    test, kept = page.report.test, page.kept
    out = [_bar(page, "", f"no LM: {n}", s, "nolm") for n, s in test.baselines.items()]
    out.append(_bar(page, "", page.first, test.zero_shot, _kept("built", page.first == kept)))
    best = page.report.numbers.rung
    if best != page.first:
        kind = _kept("built", best == kept)
        out.append(_bar(page, "", best, test.prompt, kind, test.prompt_gain))
    if test.tuned and page.report.decision:
        judged = page.report.decision.tuned
        kind = _kept("tuned", judged == kept)
        out.append(_bar(page, "", judged, test.tuned, kind, page.report.decision.test))
    return out


def _bar(
    page: Page, mark: str, name: str, score: ScoreRecord, kind: str, gain: GainRecord | None = None
) -> Bar:
    drawn = svg.interval(score, page.report.target, kind)
    return Bar(mark, name, drawn, str(score), str(gain) if gain else "")


def _scored(page: Page) -> list[tuple[str, AttemptRecord]]:
    """The attempts with a score, each with its number."""
    found = [a for a in page.report.attempts if a.val]
    return [(str(n), a) for n, a in enumerate(found)]


def _kind(page: Page, a: AttemptRecord) -> str:
    if a.family == WEIGHTS:
        return _kept("tuned", a.rung == page.kept)
    return _kept("built" if a.promoted else "tried", a.rung == page.kept)


def _kept(kind: str, kept: bool) -> str:
    return f"{kind} kept" if kept else kind


def climbs(page: Page) -> list[Figure]:
    """The best score so far over calls and, where the LM costs any, over money."""
    scored = _scored(page)
    asked = [a.lm_calls + a.cached_calls for _, a in scored]
    out = [_climb(page, asked, "LM calls so far, cached ones included")]
    usd = [a.cost_usd or 0.0 for _, a in scored]
    if sum(usd) > 0:
        out.append(_climb(page, usd, "US dollars so far"))
    return [figure for figure in out if figure]


def _climb(page: Page, spent: Sequence[float], across: str) -> Figure | None:
    scored, target = _scored(page), page.report.target
    far = list(accumulate(spent))
    if not far or not far[-1]:
        return None
    plot = Plot(far[-1] * 1.02, across)
    best, corners = 0.0, []
    for (_, a), x in zip(scored, far, strict=True):
        assert a.val
        best = a.val.score if a.promoted and a.family != WEIGHTS else best
        corners.append((x, best))
    dots = [
        Dot(x, a.val.score, mark, _kind(page, a), f"{a.rung}: {a.val}")
        for (mark, a), x in zip(scored, far, strict=True)
        if a.val
    ]
    drawn = [*plot.frame(target), *plot.steps(corners, "best"), *plot.dots(dots)]
    said = f"Val score of each lever over {across}; built on at the end: {best:.2f}."
    rows = [
        [mark, a.rung, str(a.val), svg.short(x), f"{y:.2f}"]
        for (mark, a), (x, y) in zip(scored, corners, strict=True)
    ]
    columns = ("", "lever", "val score", across, "built on")
    note = "The line is the score of the program that the next lever was built on."
    title = "What the climb cost"
    return Figure(title, plot.drawn(drawn, said), note, Section(title, (), columns, rows))


def costs(page: Page) -> Figure | None:
    """Val score over what an answer costs, with the programs that nothing cheaper beats. Without
    those whose race was stopped: the first rows may be the easy ones.
    """
    if not (table := page.tables.get("val")):
        return None
    scores = {name: found.scores for name, found in table.programs.items()}
    whole = [
        (mark, a)
        for mark, a in _scored(page)
        if a.rung in page.prices and len(scores.get(a.rung, ())) == len(table.rows)
    ]
    front = pareto([(mark, page.prices[a.rung], scores[a.rung]) for mark, a in whole])
    choices = [
        Choice(mark, a.rung, _kind(page, a), a.val, page.prices[a.rung], mark in front)
        for mark, a in whole
        if a.val
    ]
    return cost_front("What an answer costs", "lever", "val", choices, page.report.target)


def sureness(page: Page) -> Figure | None:
    """Score over confidence, before and after."""
    if not page.judged:
        return None
    side, table = page.judged
    pairs = zip(("before", "after"), page.sides(table).items(), strict=False)
    known = [(name, kind, c) for kind, (name, a) in pairs if (c := calibration(a))]
    if not known:
        return None
    plot = Plot(1.0, f"confidence, {side} rows")
    drawn = [*plot.frame(None), plot.line((0, 0), (1, 1), "even")]
    for name, kind, found in known:
        corners = [(b.confidence, b.score) for b in found.bins]
        ends = pairwise(corners)
        drawn += [plot.line(a, b, kind) for a, b in ends]
        said = [
            f"{name}: sure {b.confidence:.2f}, score {b.score:.2f}, n={b.n}" for b in found.bins
        ]
        dots = [Dot(*at, "", kind, text) for at, text in zip(corners, said, strict=True)]
        drawn += plot.dots(dots)
    note = " ".join(_calibrated(name, found) for name, _, found in known)
    title = "How sure, how right"
    key = {kind: name for name, kind, _ in known}
    return Figure(title, plot.drawn(drawn, note), note, _bins(title, known), key)


def _calibrated(name: str, found: ConfidenceRecord) -> str:
    chance = "" if found.floor is None else f", of it by chance, on so few rows, {found.floor:.2f}"
    return (
        f"{name}: calibration error {found.ece:.2f}{chance}; score of the surer half "
        f"{found.surest_half:.2f}."
    )


def _bins(title: str, known: Sequence[tuple[str, str, ConfidenceRecord]]) -> Section:
    rows = [
        [name, f"{b.confidence:.2f}", f"{b.score:.2f}", str(b.n)]
        for name, _, found in known
        for b in found.bins
    ]
    brier = [f"Brier score of {name}: {found.brier:.2f}." for name, _, found in known]
    return Section(title, brier, ("program", "confidence", "score", "n"), rows or [[NONE] * 4])
