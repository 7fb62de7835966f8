"""The comparison of a sweep's cells as one page: one file, no network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from optimize.report import swept
from optimize.report.html import svg
from optimize.report.html.charts import Bar
from optimize.report.html.front import Choice, cost_front
from optimize.report.html.render import written
from optimize.report.html.svg import Figure
from optimize.report.sections import NONE, Section
from optimize.report.sweep import SettingRecord, SweepRecord, TaskRecord


@dataclass(frozen=True)
class _Part:
    """What the page says of a task."""

    found: TaskRecord
    lines: Sequence[str]
    bars: Sequence[Bar]
    seeds: Sequence[Bar]
    scale: Markup
    numbers: Section
    figures: Sequence[Figure]


def sweep_page(found: SweepRecord, made: str) -> str:
    """The whole file. made: when, as a person reads it."""
    commands = [[str(c.number), c.command] for c in found.cells if c.found]
    return written(
        "sweep.html",
        sweep=found,
        made=made,
        spent=swept.spent_sentence(found),
        read=swept.read_sentence(found),
        marks=swept.MARKS,
        summary=[_summary(task) for task in found.tasks],
        tasks=[_part(task, found) for task in found.tasks],
        cells=swept.cells_section(found.cells),
        commands=Section("Commands", (), ("cell", "command"), commands),
    )


def _summary(task: TaskRecord) -> list[str]:
    best = task.best
    if best is None:
        return [task.task, "every cell failed", NONE, NONE, NONE, NONE]
    met = f"{best.met} of {len(best.seeds)}"
    due = ", ".join(f"cell {number}" for number in task.due) or "none"
    return [task.task, best.setting, str(best.test), f"{task.target:g}", met, due]


def _part(task: TaskRecord, found: SweepRecord) -> _Part:
    return _Part(
        task,
        swept.task_sentences(task, found.cells),
        [_bar(task, n, s) for n, s in enumerate(task.settings)],
        [bar for n, s in enumerate(task.settings) for bar in _seeds(task, n, s)],
        svg.scale(task.target) if task.settings else Markup(),
        swept.task_section(task),
        [figure for figure in (_costs(task),) if figure],
    )


def _kind(task: TaskRecord, setting: SettingRecord) -> str:
    return "built kept" if setting is task.best else "tried"


def _bar(task: TaskRecord, number: int, setting: SettingRecord) -> Bar:
    drawn = svg.interval(setting.test, task.target, _kind(task, setting))
    gain = str(setting.behind) if setting.behind else ""
    return Bar(str(number), setting.setting, drawn, str(setting.test), gain, f"{setting.calls:,}")


def _seeds(task: TaskRecord, number: int, setting: SettingRecord) -> list[Bar]:
    if len(setting.seeds) < 2:
        return []
    kind = _kind(task, setting)
    return [
        Bar(str(number), f"seed {seed}", svg.interval(score, task.target, kind), str(score))
        for seed, score in zip(setting.seeds, setting.scores, strict=True)
    ]


def _costs(task: TaskRecord) -> Figure | None:
    """Test score over what an answer costs, with the settings that nothing cheaper beats."""
    choices = [
        Choice(str(n), s.setting, _kind(task, s), s.test, s.price, s.on_front)
        for n, s in enumerate(task.settings)
        if s.price
    ]
    return cost_front("Cost against quality", "LM", "test", choices, task.target)
