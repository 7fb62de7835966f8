"""The rows of a run as CSV, a row a line, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from optimize.report.page import Page
from optimize.report.rows import Answers, RowTable
from optimize.report.untrusted import cell


def spreadsheet(page: Page) -> str:
    """Of every test and val row: inputs, gold, and answer, score, confidence and feedback of
    baseline and best program, and of a tuned one beside them.
    """
    found = io.StringIO()
    writer = csv.writer(found, lineterminator="\r\n")
    names = list(dict.fromkeys((page.first, *page.compared)))
    header: list[str] = []
    for side, table in page.tables.items():
        columns = {"side": [side] * len(table.rows), "row": [h[:12] for h in table.rows]}
        columns |= dict(_columns(table, names))
        if not header:
            header = list(columns)
            writer.writerow(map(cell, header))
        for n in range(len(table.rows)):
            row = (columns.get(name, []) for name in header)
            writer.writerow([cell(c[n]) if n < len(c) else "" for c in row])
    return found.getvalue()


def _columns(table: RowTable, names: list[str]) -> Iterator[tuple[str, list[str]]]:
    for name, found in table.inputs.items():
        yield f"input {name}" if name in ("side", "row") else name, found
    yield from ((f"gold {name}", found) for name, found in table.gold.items())
    for name in names:
        yield from _answers(name, table.programs.get(name), list(table.gold))


def _answers(
    name: str, found: Answers | None, fields: list[str]
) -> Iterator[tuple[str, list[str]]]:
    for field in fields:
        yield f"{name}: {field}", found.fields.get(field, []) if found else []
    yield f"{name}: score", _numbers(found.scores if found else [])
    yield f"{name}: confidence", _numbers(found.confidence if found else [])
    yield f"{name}: feedback", found.feedback if found else []


def _numbers(found: list[float | None]) -> list[str]:
    return ["" if value is None else f"{value:.6g}" for value in found]
