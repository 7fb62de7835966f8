"""What it would take to answer many rows: calls, tokens, money, hours. Knows no LM and no store."""

from __future__ import annotations

from pydantic import Field
from rich.console import RenderableType

from optimize.climb.preflight import Preflight
from optimize.report.sections import NONE, Section
from optimize.report.text import bullets, duration, table
from optimize.stats.records import Record

MILLION = 1_000_000


class LmCost(Record):
    """One LM with the program's prompt. rate: LM calls a second; usd: null where the price is not
    known.
    """

    lm: str
    usd: float | None = Field(description="for all rows")
    rate: float
    measured: bool = Field(description="the rate: in the last run; else assumed")
    seconds: float = Field(description="for all rows, at that rate")


class Costs(Record):
    """Estimates for so many rows. program: champion or zero-shot. The first LM is its own."""

    rows: int
    program: str
    calls: float = Field(description="a row")
    tokens_in: float = Field(description="a row, told by the letters of its prompt")
    tokens_out: float = Field(description="a row, told by the letters of gold outputs")
    lms: list[LmCost]
    tuned_saves: float | None = Field(
        None, description="US dollars a million rows, as measured by the last fine-tune"
    )


class Checked(Preflight):
    """The checks, with what is wrong with the cap on calls, and what the program would cost in use
    where that was asked.
    """

    low_cap: str = ""
    applying: Costs | None = None


def costs_shown(found: Costs, task: str) -> list[RenderableType]:
    """A table, a line an LM, and what a cheaper one would save."""
    rows = [
        [
            c.lm,
            f"{found.rows * found.tokens_in / MILLION:.1f}",
            f"{found.rows * found.tokens_out / MILLION:.1f}",
            NONE if c.usd is None else f"${c.usd:,.2f}",
            duration(c.seconds),
            f"{c.rate:.1f}, {'measured' if c.measured else 'assumed'}",
        ]
        for c in found.lms
    ]
    columns = ("LM", "M tokens in", "M out", "cost", "time", "calls a second")
    said = [
        f"{found.rows:,} rows answered by the {found.program}: {found.rows * found.calls:,.0f} "
        f"calls, some {found.tokens_in:.0f} tokens in and {found.tokens_out:.0f} out a row. "
        f"`optimize apply {task} ROWS --pilot` measures it."
    ]
    told = bullets([*said, *_savings(found, task)])
    return ["", told, table(Section("", (), columns, rows))]


def _savings(found: Costs, task: str) -> list[str]:
    own, *others = found.lms
    out = []
    for other in others:
        if own.usd is not None and other.usd is not None and other.usd < own.usd:
            saved = MILLION * (own.usd - other.usd) / found.rows
            out.append(
                f"{other.lm} would save ${saved:,.2f} a million rows over {own.lm}; `optimize "
                f"recheck {task} --lm {other.lm}` says whether it scores as well."
            )
    if found.tuned_saves is not None and found.tuned_saves > 0:
        out.append(
            f"The tuned LM saves ${found.tuned_saves:,.2f} a million rows over the best prompt "
            "program, as its fine-tune has measured."
        )
    return out
