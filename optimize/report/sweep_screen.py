"""How a sweep reads in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from optimize.report import swept
from optimize.report.sweep import CellRecord, PlannedSweep, SweepRecord
from optimize.report.text import bullets, table


def sweep_shown(found: SweepRecord) -> RenderableType:
    """Task by task, then what it took and what comes next."""
    parts: list[RenderableType] = []
    for task in found.tasks:
        section = swept.task_section(task)
        parts += [Text(section.title, style="bold"), *([table(section)] if section.rows else [])]
        parts += [bullets(swept.task_sentences(task, found.cells)), ""]
    style = "bold green" if found.target_met else "bold yellow"
    return Group(
        *parts,
        Text(swept.MARKS, style="dim"),
        bullets([swept.spent_sentence(found), swept.read_sentence(found)]),
        Text(f"{found.outcome}.", style=style),
        Text(f"Page: {found.page}", style="dim"),
        *(Text(f"Next: {command}", style="bold") for command in swept.following(found)),
    )


def planned_shown(found: PlannedSweep) -> RenderableType:
    """The cells of a sweep before it is run, and what they may take."""
    section = swept.planned_section(found)
    return Group(table(section), "", bullets(section.lines))


def cell_shown(found: CellRecord) -> RenderableType:
    error = [Text(f"Error: {found.error}", style="red")] if found.error else []
    return Group(table(swept.cells_section([found])), *error)
