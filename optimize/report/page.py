"""What the page of a run is made of: the report, and the rows and prompts kept beside it.

Knows no store and no HTML.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from optimize.climb.verdict import WEIGHTS
from optimize.config import command_line
from optimize.report.prices import Price
from optimize.report.record import Report
from optimize.report.rows import Answers, RowTable
from optimize.report.sections import other_tuned
from optimize.scoring.calibration import ConfidenceRecord, confidence
from optimize.scoring.evaluation import Evaluation, Outcome
from optimize.scoring.slices import SliceRecord, by_slice
from optimize.stats.records import Record


class Material(Record):
    """What a run keeps beside its report. Programs go by the rung that made them, except on test.

    test: null where an older version made the run; its programs as TestRecord names them.
    prompts: as the LM gets them for the first val row.
    """

    run: str
    made: str = Field(description="when the run began: 2026-11-26 14:30 UTC")
    versions: dict[str, str]
    val: RowTable | None
    test: RowTable | None
    prompts: dict[str, str]
    prices: dict[str, Price]


class Step(Record):
    """A rung that was tried, and the rung whose program it changed; itself for the baseline."""

    rung: str
    before: str
    promoted: bool


class Page(Record):
    """Everything about one run. Programs go by the rung that made them.

    tables: rows by side, test first. first: the baseline. compared: the two programs that a reader
    wants to see side by side first. label: the output field that holds a label.
    """

    report: Report
    run: str
    made: str
    versions: dict[str, str]
    tables: dict[str, RowTable]
    prompts: dict[str, str]
    prices: dict[str, Price]
    steps: list[Step]
    first: str
    kept: str
    compared: tuple[str, str]
    label: str | None

    @property
    def command(self) -> str:
        """What makes such a run again."""
        return command_line("run", self.report.task, self.report.knobs)

    @property
    def judged(self) -> tuple[str, RowTable] | None:
        """The side on which both compared programs answered, with its rows."""
        for side, table in self.tables.items():
            if all(name in table.programs for name in self.compared):
                return side, table
        return None

    def sides(self, table: RowTable) -> dict[str, Answers]:
        """The compared programs' answers to a table's rows: one where nothing was built on the
        first.
        """
        return {name: table.programs[name] for name in self.compared}


def assemble(report: Report, found: Material) -> Page:
    best, first = report.numbers.rung, report.attempts[0].rung
    names = {"zero_shot": first, "prompt": best}
    judged = report.decision.tuned if report.decision else None
    if judged:
        names |= {"tuned": judged}
    if report.test.tuned_other:
        names |= {"tuned_other": other_tuned(report)}
    tables = {}
    if found.test:
        programs = {names.get(n, n): answers for n, answers in found.test.programs.items()}
        tables["test"] = found.test.model_copy(update={"programs": programs})
    if found.val:
        tables["val"] = found.val
    return Page(
        report=report,
        **found.model_dump(include={"run", "made", "versions", "prompts"}),
        prices=found.prices,
        tables=tables,
        steps=_steps(report),
        first=first,
        kept=judged if judged and report.decision and report.decision.accepted else best,
        compared=(best, judged) if judged else (first, best),
        label=_label(report, list(tables.values())),
    )


def _steps(report: Report) -> list[Step]:
    """The rungs with a score, each with the program it was raced against."""
    out, incumbent = [], report.attempts[0].rung
    for a in report.attempts:
        if a.val:
            before = report.numbers.rung if a.family == WEIGHTS else incumbent
            out.append(Step(rung=a.rung, before=before, promoted=a.promoted))
            incumbent = a.rung if a.promoted else incumbent
    return out


def _label(report: Report, tables: Sequence[RowTable]) -> str | None:
    """The output field that is a label: the task's only one, with the labels of its signature."""
    known = report.preflight.label_rows
    fields = list(tables[0].gold) if tables else []
    return fields[0] if known and len(fields) == 1 else None


def calibration(found: Answers) -> ConfidenceRecord | None:
    pairs = zip(found.scores, found.confidence, strict=True)
    return confidence(Evaluation(tuple(Outcome(s, {}, confidence=c) for s, c in pairs)))


def slice_gains(page: Page) -> list[SliceRecord]:
    """By kind of row, the worst gain of the two compared programs first."""
    if not page.judged:
        return []
    _, table = page.judged
    found = list(page.sides(table).values())
    before, after = found[0], found[-1]
    if len(before.scores) != len(after.scores):
        return []
    return by_slice(table.slices, before.scores, after.scores)


def changes(table: RowTable, before: str, after: str) -> tuple[list[int], list[int]]:
    """Row numbers that a step made better, and worse, of those that both programs were scored on;
    a race stopped early has fewer.
    """
    pairs = list(
        enumerate(zip(table.programs[before].scores, table.programs[after].scores, strict=False))
    )
    known = [(n, b, a) for n, (b, a) in pairs if b is not None and a is not None]
    return [n for n, b, a in known if a > b], [n for n, b, a in known if a < b]
