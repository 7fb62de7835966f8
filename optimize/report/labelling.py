"""Rows chosen to be labelled, and what came of it: as records, and as they read in a terminal.

What a program answered is in none of what is shown before a person has: people take over what they
are shown (Berzak et al. 2016, Anchoring and agreement in syntactic annotations).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from optimize.data.fields import closed_set, is_optional
from optimize.data.read import LABELLED
from optimize.files import to_text
from optimize.report.sections import Section
from optimize.report.text import bullets, table
from optimize.report.untrusted import visible
from optimize.stats.records import Record, ScoreRecord
from optimize.task import Task

Why = Literal["disagree", "unsure", "spread"]
WHY: dict[Why, str] = {
    "disagree": "that the programs answer differently",
    "unsure": "that the program is less sure of",
    "spread": "each of another kind",
}
LEFT_OUT = {
    "labelled": "with outputs already",
    "known": "in train, val or test",
    "near": "nearly the same as a row of train, val or test",
    "copies": "nearly the same as another row of the file",
    "skipped": "skipped before",
    "unread": "that cannot be read",
}
BEFORE = ("labelled", "known", "skipped", "unread")  # known before a sample is drawn
RANDOM = (
    "Rows labelled here go to train alone: val and test stay random samples, or no score holds."
)


class ChosenRow(Record):
    place: str = Field(description="file and line")
    columns: dict[str, Any] = Field(description="of the row as it was given, inputs among them")
    why: Why
    disagreement: float | None = Field(
        None, description="0…1, of the programs that were asked; null: not known"
    )


class Choice(Record):
    """What `optimize label` has chosen: what its `--json` prints."""

    task: str
    file: str
    rows: int = Field(description="of the file")
    sampled: int = Field(description="of these, looked at: all without a label, or a sample")
    fit: int = Field(description="of these, those that may be labelled: neither known nor copies")
    left_out: dict[str, int] = Field(description="rows not taken, by why")
    problem: str = Field("", description="of the first row that cannot be read")
    programs: list[str] = Field(description="that were asked, the champion first; none: spread")
    asked: int = Field(0, description="rows that they were asked")
    failed: int = Field(0, description="of these, rows without two answers, or without one")
    disagreed: int = Field(0, description="of these, rows that they answered differently")
    by: str = Field(description="what told rows apart: words, or an embedder")
    chosen: list[ChosenRow]
    lm_calls: int = 0
    cost_usd: float | None = 0.0


class Labelling(Record):
    """What came of labelling the chosen rows."""

    task: str
    labelled: int = Field(description="of the chosen rows, now and before")
    skipped: int
    left: int
    agreement: ScoreRecord | None = Field(
        None, description="of the champion's answers with these labels; no score of the champion"
    )
    file: str
    in_all: int = Field(description="rows of that file")


def choice_lines(found: Choice) -> list[str]:
    """What was looked at, what was left out, and why these rows."""
    drawn = found.sampled + sum(n for why, n in found.left_out.items() if why in BEFORE)
    some = f"a random sample of {found.sampled:,} looked at, " if drawn < found.rows else ""
    out = [f"{found.rows:,} rows in {found.file}: {some}{found.fit:,} may be labelled."]
    left = [f"{n:,} {LEFT_OUT[why]}" for why, n in found.left_out.items()]
    out += [f"Left out: {'; '.join(left)}."] if left else []
    out += [f"The first that cannot be read: {found.problem}"] if found.problem else []
    if found.programs:
        named = ", ".join(found.programs)
        told = f"; {found.disagreed} are answered differently" if len(found.programs) > 1 else ""
        lost = f" {found.failed} have too few answers to tell." if found.failed else ""
        out += [f"{found.asked} rows asked of {named}{told}.{lost}"]
    kinds = {why: sum(row.why == why for row in found.chosen) for why in WHY}
    why = ", ".join(f"{n} {WHY[kind]}" for kind, n in kinds.items() if n)
    return [*out, f"Chosen: {why}. They are told apart by {found.by}.", RANDOM]


def choice_shown(found: Choice, task: Task) -> RenderableType:
    """The chosen rows, a line each."""
    names = list(task.signature.input_fields)
    rows = [
        [r.place, r.why, " · ".join(_line(to_text(r.columns.get(n))) for n in names)]
        for r in found.chosen
    ]
    section = Section("", columns=("row", "why", "inputs"), rows=rows)
    return Group(table(section), "", bullets(choice_lines(found)))


def _line(text: str) -> str:
    return " ".join(visible(text).split())[:100]


def label_plan(rows: int, programs: list[str], calls: int, usd: float | None) -> str:
    """What is about to be asked."""
    cost = "unknown price" if usd is None else f"some ${usd:.2f}"
    more = (
        f", and twice as many more if the LM does not tell how sure it is ({cost} each time)"
        if len(programs) == 1
        else f" ({cost})"
    )
    named = ", ".join(programs)
    return f"Asks {rows} rows of {named}: at least {calls} calls{more}. --no-lm asks none."


def row_shown(task: Task, columns: Mapping[str, Any], place: str, at: str) -> RenderableType:
    """A row's inputs in full. at: which of the rows it is."""
    grid = Table.grid(padding=(0, 1))
    for name in task.signature.input_fields:
        grid.add_row(Text(name, style="dim"), Text(visible(to_text(columns.get(name)))))
    return Group(Text(f"\n{at} · {visible(place)}", style="bold"), grid)


def output_shown(task: Task, name: str) -> RenderableType:
    """What an output may hold: its labels by number, or its type."""
    labels, numbers = by_number(task, name)
    if labels:
        lines = [f"{n} {visible(text)}" for n, text in numbers.items()] or labels
        more = ["(nothing: none)"] if is_optional(task.signature.output_fields[name]) else []
        return Columns([Text(line) for line in (*lines, *more)], padding=(0, 3))
    return Text(f"{name}: {kind(task, name)}", style="dim")


def by_number(task: Task, name: str) -> tuple[list[str], dict[str, str]]:
    """The labels of an output, and which number stands for which; none where labels are numbers
    themselves.
    """
    labels = list(closed_set(task.signature.output_fields[name]))
    numeric = any(label.isdigit() for label in labels)
    return labels, {} if numeric else {str(n): label for n, label in enumerate(labels, 1)}


def kind(task: Task, name: str) -> str:
    """The type of an output, and what the signature says of it."""
    field = task.signature.output_fields[name]
    annotation = field.annotation
    plain = isinstance(annotation, type) and not getattr(annotation, "__args__", None)
    told = annotation.__name__ if plain and annotation else str(annotation).replace("typing.", "")
    said = str((field.json_schema_extra or {}).get("desc", ""))
    json = "" if annotation in (str, int, float, bool) else ", as JSON"
    return f"{told}{json}" + ("" if said in ("", f"${{{name}}}") else f" ({said})")


def labelled_lines(found: Labelling) -> list[str]:
    """What was done, how far the champion agrees, and what to do next."""
    left = f", {found.left} left: the same command goes on" if found.left else ""
    skip = f", {found.skipped} skipped" if found.skipped else ""
    rows = f"{found.labelled} row{'s' * (found.labelled != 1)} labelled"
    out = [f"{rows}{skip}{left}. In {found.file}: {found.in_all}, for train alone."]
    if found.agreement:
        out += [
            f"The best program agrees with {found.agreement.with_n} of these labels. That is not "
            "its score: the rows were chosen for being hard."
        ]
    return out


def labelled_shown(found: Labelling, following: str) -> RenderableType:
    """As a person reads it; following: the command that comes next."""
    return Group("", bullets(labelled_lines(found)), Text(f"Next: {following}", style="bold"))


def elsewhere(task: Task, path: str) -> str:
    """What to do with rows that were written to a file."""
    return (
        f"{path}: fill the outputs ({', '.join(task.signature.output_fields)}), then append its "
        f"lines to devsets/{task.name}/{LABELLED}."
    )
