"""A sweep as sentences and tables, for a terminal, a store and a page. Knows no screen."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from optimize.report.prices import Price, cost, in_usd
from optimize.report.sections import NONE, Section
from optimize.report.sweep import (
    CellRecord,
    PlannedSweep,
    SweepRecord,
    TaskRecord,
)

MARKS = (
    "◀ best on val. ● nothing as cheap scores better on test. seeds: standard deviation of their "
    "test scores."
)


def planned_section(found: PlannedSweep) -> Section:
    """The cells as a table, and what they take together."""
    columns = ("cell", "task", "LM", "seed", "calls at most", "so far")
    rows = [
        [str(c.number), c.task, c.setting, str(c.seed), f"{c.most:,}", c.outcome]
        for c in found.cells
    ]
    most, least = (sum(getattr(c, name) for c in found.cells) for name in ("most", "least"))
    gpus = f", {found.gpus:g} GPUs" if found.gpus else ""
    memory = f", {found.memory_gb:g} GB of memory" if found.memory_gb else ""
    lines = [
        f"{len(found.cells)} cells, {most:,} LM calls at most, {least:,} at least; answers from "
        "the cache are free.",
        f"Each takes {found.cpus:g} CPUs{gpus}{memory}.",
    ]
    if calls := found.budget_calls:
        short = f", {most - calls:,} fewer than they may take" if calls < most else ""
        lines.append(f"Budget of all cells together: {calls:,} LM calls{short}.")
    if found.budget_usd:
        lines.append(f"Budget of all cells together: ${found.budget_usd:g}.")
    return Section("Cells", lines, columns, rows)


def task_section(found: TaskRecord) -> Section:
    """Its settings, the best on val first."""
    usd = in_usd([s.price for s in found.settings if s.price])
    unit = "$/1,000" if usd else "tokens"
    columns = ("LM", "val", "test [95 %]", "to the best", "seeds", unit, "met")
    rows = [
        [
            f"{s.setting}{' ◀' if s is found.best else ''}",
            f"{s.val:.2f}",
            str(s.test),
            "" if s is found.best else str(s.behind or NONE),
            f"±{s.spread:.2f}" if s.spread is not None else NONE,
            price(s.price, usd) + (" ●" if s.on_front else ""),
            f"{s.met}/{len(s.seeds)}",
        ]
        for s in found.settings
    ]
    n = found.best.test.n if found.best else 0
    return Section(f"{found.task}: scores on {n} test rows", (), columns, rows)


def price(found: Price | None, usd: bool) -> str:
    if found is None:
        return NONE
    return f"{cost(found, usd):.2f}" if usd else f"{cost(found, usd):,.0f}"


def task_sentences(found: TaskRecord, cells: Sequence[CellRecord]) -> list[str]:
    """What to use, whether others are as good, and what is due."""
    out = []
    if best := found.best:
        out += [f"Best on val: {best.setting}. On test {best.test}, target {found.target:g}."]
        as_good = [
            s.setting for s in found.settings if s.behind and s.behind.low <= 0 <= s.behind.high
        ]
        worse = [s.setting for s in found.settings if s.behind and s.behind.high < 0]
        if as_good:
            out += [f"Not told apart from it by these test rows: {', '.join(as_good)}."]
        if worse:
            out += [f"Worse than it: {', '.join(worse)}."]
        if better := [s.setting for s in found.settings if s.behind and s.behind.low > 0]:
            out += [f"Better than it on test, though not on val: {', '.join(better)}."]
        if len(best.seeds) > 1 and len(found.settings) > 1:
            out += [_seeds_sentence(found)]
    if found.due:
        numbers = f"cell{'s' * (len(found.due) > 1)} {', '.join(map(str, found.due))}"
        out += [f"A fine-tune is due in {numbers}: a plateau below target, and the gate open."]
    out += [
        f"Cell {c.number} failed: {c.error}"
        for c in cells
        if c.task == found.task and c.error and not c.found
    ]
    out += [
        f"Cell {c.number} was cut short by the budget of the sweep; give it more, and the same "
        "command goes on."
        for c in cells
        if c.task == found.task and c.short
    ]
    return out


def _seeds_sentence(found: TaskRecord) -> str:
    best, second = found.settings[:2]
    gap, spread = (
        abs(best.test.score - second.test.score),
        max(best.spread or 0, second.spread or 0),
    )
    than = "more" if spread > gap else "less"
    return (
        f"One seed and another differ by {spread:.2f} (standard deviation), {than} than the first "
        f"two LMs do ({gap:.2f})."
    )


def following(found: SweepRecord) -> list[str]:
    """The commands that make the best of each task its champion: its answers are cached."""
    commands = []
    for task in found.tasks:
        best = [
            (c.found.val.score, c.command)
            for c in found.cells
            if task.best and c.task == task.task and c.found and c.setting == task.best.setting
        ]
        if best:
            commands.append(max(best)[1])
    return commands or [f"optimize sweep {shlex.quote(found.file)}"]


def cells_section(found: Sequence[CellRecord]) -> Section:
    columns = ("cell", "task", "LM", "seed", "verdict", "test [95 %]", "calls", "s")
    rows = [
        [
            str(c.number),
            c.task,
            c.setting,
            str(c.seed),
            c.outcome,
            str(c.found.test) if c.found else NONE,
            f"{c.calls:,}",
            f"{c.seconds:,.0f}",
        ]
        for c in found
    ]
    return Section("Cells", (), columns, rows)


def spent_sentence(found: SweepRecord) -> str:
    of = f" of {found.budget_calls:,}" if found.budget_calls else ""
    usd = f", ${found.usd:.2f}" if found.usd or found.budget_usd else ""
    usd += f" of ${found.budget_usd:g}" if found.budget_usd else ""
    return f"{found.calls:,}{of} LM calls{usd}, all cells and all tries together."


def read_sentence(found: SweepRecord) -> str:
    many = max((sum(len(s.seeds) for s in t.settings) for t in found.tasks), default=0)
    return (
        f"Test rows of a task were read by up to {many} programs. LMs are chosen on val; their "
        "differences on test allow for all pairs with the best (Bonferroni)."
    )


def markdown(found: SweepRecord) -> str:
    """For the description of a run."""
    lines = [f"**{found.outcome}.** {spent_sentence(found)}", ""]
    for task in found.tasks:
        lines += [f"### {task.task}", ""]
        lines += [f"- {line}" for line in task_sentences(task, found.cells)] + [""]
    return "\n".join(lines)
