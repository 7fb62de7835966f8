"""A run in Markdown, for a pull request: the report, one picture, and the rows that got worse."""

from __future__ import annotations

from optimize.report.page import Page, changes
from optimize.report.rows import Answers, RowTable
from optimize.report.text import markdown
from optimize.report.untrusted import code

SHOWN = 10  # rows of a kind
LONG = 120  # letters of a text


def pull_request(page: Page, picture: str) -> str:
    """picture: the file beside it."""
    first, *rest = markdown(page.report).split("\n")
    top = [f"## {page.report.task}", "", first, "", f"![The climb]({picture})"]
    return "\n".join([*top, *rest, *_moved(page), *_again(page)])


def _moved(page: Page) -> list[str]:
    if not page.judged:
        return []
    side, table = page.judged
    before, after = page.compared
    if before == after:
        return []
    better, worse = changes(table, before, after)
    out = [f"### Rows that changed, {before} → {after}", ""]
    out += [f"On {side}: {len(better)} rows better, {len(worse)} worse.", ""]
    for name, numbers in (("worse", worse), ("better", better)):
        if numbers:
            out += [f"| {name} | right answer | {before} | {after} |", "| --- | --- | --- | --- |"]
            out += [_line(page, table, n) for n in numbers[:SHOWN]]
            more = len(numbers) - SHOWN
            out += ["", f"… and {more} more", ""] if more > 0 else [""]
    return out


def _line(page: Page, table: RowTable, n: int) -> str:
    texts = [_together(table.inputs, n), _together(table.gold, n)]
    texts += [_said(found, n) for found in page.sides(table).values()]
    return "| " + " | ".join(code(text[:LONG]) for text in texts) + " |"


def _said(found: Answers, n: int) -> str:
    return _together(found.fields, n)


def _together(columns: dict[str, list[str]], n: int) -> str:
    if len(columns) == 1:
        return next(iter(columns.values()))[n]
    return "; ".join(f"{name}: {column[n]}" for name, column in columns.items())


def _again(page: Page) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in page.versions.items())
    again = [f"`{page.command}`", "", f"Run {page.run}, {page.made}; {versions}.", ""]
    return ["### Make it again", "", *again]
