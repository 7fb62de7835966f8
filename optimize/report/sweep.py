"""What a sweep has found: the record of each cell, and task by task which LM is best.

Chosen on val, as everywhere; test rows have the last word. Knows no store and no screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

from pydantic import Field

from optimize.report.prices import Price, pareto
from optimize.report.record import InUseRecord
from optimize.stats.intervals import LEVEL, known, mean_interval, paired_gain
from optimize.stats.judge import Confusion, corrected, corrected_gain
from optimize.stats.records import GainRecord, Record, ScoreRecord


class PlannedCell(Record):
    """A cell before it is run."""

    number: int
    id: str
    task: str
    setting: str = Field(description="LM and knobs of the grid")
    seed: int
    most: int = Field(description="LM calls that it may send")
    least: int = Field(description="without which val and test rows cannot be asked")
    outcome: str = Field(description="what is known of it already")


class PlannedSweep(Record):
    """cpus, gpus, memory_gb: what a cell takes of a machine."""

    name: str
    cells: list[PlannedCell]
    budget_calls: int | None
    budget_usd: float | None
    cpus: float
    gpus: float
    memory_gb: float | None


class CellFound(Record):
    """What a cell's run has found."""

    run: str = Field(description="its id in the cell's own store")
    verdict: str
    target: float
    target_met: bool
    val: ScoreRecord = Field(description="corrected for having been chosen")
    test: ScoreRecord
    zero_shot: ScoreRecord
    levers: list[str]
    gate_open: bool
    rows: dict[str, float | None] = Field(
        description="content hash of a test row → score of the program kept"
    )
    price: Price | None = Field(description="of an answer; null: the cache had answered all")
    judge: Confusion | None = Field(None, description="how the judge of these scores errs")


class CellRecord(Record):
    """A cell: what was asked for, and what became of it."""

    number: int
    id: str
    task: str
    lm: str
    setting: str = Field(description="LM and knobs of the grid")
    seed: int
    command: str = Field(description="that makes the same run in the project itself")
    inputs: str = Field(description="hash of all that the result depends on")
    found: CellFound | None = Field(description="null: it failed, or was not run")
    error: str = ""
    code: int = Field(0, description="exit code of the same `optimize run`")
    short: bool = Field(False, description="the budget of the sweep has cut it short")
    calls: int = Field(0, description="LM calls sent, whenever and wherever it was at work")
    usd: float = 0.0
    seconds: float = Field(0.0, description="of its last life")

    @property
    def outcome(self) -> str:
        """In a word or two."""
        if self.found is None:
            return "failed" if self.error else "not run"
        return f"{self.found.verdict}{', budget cut it short' if self.short else ''}"


class SettingRecord(Record):
    """All seeds of one LM and one set of knobs on a task."""

    setting: str
    seeds: list[int]
    scores: list[ScoreRecord] = Field(description="on test, of each seed")
    spread: float | None = Field(description="standard deviation over seeds; null: one seed")
    val: float = Field(description="mean over seeds, by which settings are chosen")
    test: ScoreRecord = Field(description="of rows, each averaged over seeds")
    met: int = Field(description="seeds that met the target")
    calls: int
    usd: float
    price: Price | None
    on_front: bool = Field(description="nothing as cheap scores better on test")
    behind: GainRecord | None = Field(
        description="against the best, paired on the test rows that both answered; null: it is the "
        "best, or they share no row"
    )


class TaskRecord(Record):
    """settings: by val score, the best first. target: the highest of its cells."""

    task: str
    target: float
    settings: list[SettingRecord]
    due: list[int] = Field(description="cells whose fine-tune gate is open")
    failed: list[int]

    @property
    def best(self) -> SettingRecord | None:
        return self.settings[0] if self.settings else None


class SweepRecord(InUseRecord):
    name: str
    file: str = Field(description="that asks for it")
    cells: list[CellRecord]
    tasks: list[TaskRecord]
    budget_calls: int | None
    budget_usd: float | None
    calls: int
    usd: float
    run: str = Field("", description="its run in the project's MLflow store")
    page: str = Field("", description="the comparison as one HTML file, below the project's root")

    @property
    def target_met(self) -> bool:
        return all(cell.found and cell.found.target_met for cell in self.cells)

    @property
    def outcome(self) -> str:
        met = sum(bool(cell.found and cell.found.target_met) for cell in self.cells)
        return f"{met} of {len(self.cells)} cells at the target"


def compared(cells: Sequence[CellRecord]) -> list[TaskRecord]:
    """Task by task, in the order of the cells."""
    return [
        _task(t, [c for c in cells if c.task == t]) for t in dict.fromkeys(c.task for c in cells)
    ]


def _task(task: str, cells: Sequence[CellRecord]) -> TaskRecord:
    done = [c for c in cells if c.found]
    groups = {
        s: [c for c in done if c.setting == s] for s in dict.fromkeys(c.setting for c in done)
    }
    rows = {s: averaged([c.found.rows for c in group if c.found]) for s, group in groups.items()}
    order = sorted(
        (s for s in groups if known([*rows[s].values()])), key=lambda s: -_val(groups[s])
    )
    every = dict.fromkeys(row for scores in rows.values() for row in scores)
    front = pareto([(s, price_of(groups[s]), [rows[s].get(r) for r in every]) for s in order])
    judge = next((c.found.judge for c in done if c.found), None)
    settings = [
        _setting(s, groups[s], rows[s], s in front, _behind(rows, order, s, judge), judge)
        for s in order
    ]
    return TaskRecord(
        task=task,
        target=max((c.found.target for c in done if c.found), default=math.nan),
        settings=settings,
        due=[c.number for c in done if c.found and c.found.gate_open],
        failed=[c.number for c in cells if not c.found],
    )


def averaged(found: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """Each row's mean score over those that have answered it; None where nobody has."""
    rows = dict.fromkeys(row for scores in found for row in scores)
    each = {row: known([scores.get(row) for scores in found]) for row in rows}
    return {row: fmean(some) if some else None for row, some in each.items()}


def _setting(
    setting: str,
    cells: Sequence[CellRecord],
    rows: Mapping[str, float | None],
    on_front: bool,
    behind: GainRecord | None,
    judge: Confusion | None,
) -> SettingRecord:
    found = [c.found for c in cells if c.found]
    scores, some = [f.test for f in found], known(list(rows.values()))
    return SettingRecord(
        setting=setting,
        seeds=[c.seed for c in cells],
        scores=scores,
        spread=stdev(s.score for s in scores) if len(scores) > 1 else None,
        val=_val(cells),
        test=ScoreRecord.of(corrected(mean_interval(some), judge), len(some) / len(rows)),
        met=sum(f.target_met for f in found),
        calls=sum(c.calls for c in cells),
        usd=sum(c.usd for c in cells),
        price=price_of(cells),
        on_front=on_front,
        behind=behind,
    )


def _val(cells: Iterable[CellRecord]) -> float:
    return fmean(c.found.val.score for c in cells if c.found)


def price_of(cells: Iterable[CellRecord]) -> Price | None:
    """Of an answer, on average over the seeds of which it is known."""
    prices = [c.found.price for c in cells if c.found and c.found.price]
    if not prices:
        return None
    usd = [p.usd for p in prices if p.usd is not None]
    whole = len(usd) == len(prices)
    return Price(tokens=fmean(p.tokens for p in prices), usd=fmean(usd) if whole else None)


def _behind(
    rows: Mapping[str, Mapping[str, float | None]],
    order: Sequence[str],
    setting: str,
    judge: Confusion | None,
) -> GainRecord | None:
    """Against the best, at a level that allows for all such comparisons (Bonferroni)."""
    best = rows[order[0]]
    shared = [row for row in best if row in rows[setting]]
    if setting == order[0] or not shared:
        return None
    level = 1 - (1 - LEVEL) / (len(order) - 1)
    pair = [best[r] for r in shared], [rows[setting][r] for r in shared]
    try:
        return GainRecord.of(corrected_gain(paired_gain(*pair, level), judge))
    except ValueError:  # no row that both have answered
        return None
