"""Many rows answered by a task's best program: what was found, what it took, what the rest will
take. Knows no LM and no files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from pydantic import Field
from rich.console import Group, RenderableType
from rich.text import Text

from optimize.report.runs import ID
from optimize.report.sections import Section
from optimize.report.text import bullets, duration, table
from optimize.stats.records import Record

Z = 1.96  # of a 95 % interval


class Estimate(Record):
    """A sum over all rows to come, with its 95 % interval."""

    sum: float
    low: float
    high: float

    @classmethod
    def of(cls, sample: Sequence[float], rows: int) -> Estimate:
        """From as many rows as the sample has, for so many; the interval is that of the mean."""
        mean = fmean(sample)
        spread = Z * stdev(sample) / math.sqrt(len(sample)) if len(sample) > 1 else 0.0
        return cls(sum=rows * mean, low=rows * max(0.0, mean - spread), high=rows * (mean + spread))


class Forecast(Record):
    """What the rows to come will take, told by those that were asked first."""

    asked: int = Field(description="rows of the pilot that an LM was asked for, not cached ones")
    rows: int = Field(description="to come")
    seconds: float
    calls: Estimate
    tokens: Estimate
    cost_usd: Estimate | None = Field(None, description="null: some price is not known")
    batches: int = Field(0, description="one after the other, at half the price; 0: none")


class Applied(Record):
    """All rows of a file, or those so far, answered. answered + failed = rows written."""

    task: str
    run: str | None
    lm: str
    out: str
    rows: int = Field(description="in the file")
    answered: int
    failed: int
    resumed: int = Field(0, description="rows that were written by an earlier command")
    errors: list[str] = Field(description="the first few different ones")
    confident: int = Field(description="rows whose answer has a confidence")
    below: float | None = Field(None, description="rows less sure than this go to the review file")
    review: str | None = None
    reviewed: int = 0
    left_out: list[str] = Field(
        [], description="columns that only later rows have, and this form of file cannot hold"
    )
    forecast: Forecast | None = None
    elsewhere: bool = Field(
        default=False, description="by workers on other machines: no cache here has the answers"
    )
    calls: int
    cached_calls: int
    tokens: int
    cost_usd: float | None
    seconds: float

    @property
    def written(self) -> int:
        return self.answered + self.failed


def forecast_lines(found: Forecast) -> list[str]:
    """As bullets under a table, or one after the other on a screen."""
    lines = [f"{found.rows:,} rows are left; forecast from {found.asked} rows that were asked:"]
    time = f"about {duration(found.seconds)}"
    if found.batches:
        each = "1 batch" if found.batches == 1 else f"{found.batches} batches, one after the other"
        time = f"{each} (a provider takes up to 24 hours for one)"
    cost = "at an unknown price"
    if found.cost_usd:
        cost = _range(found.cost_usd, "${:,.2f}") + (" by batch" if found.batches else "")
    calls, tokens = _range(found.calls, "{:,.0f}"), _range(found.tokens, "{:,.0f}")
    return [*lines, f"{time}, {cost}, {calls} calls, {tokens} tokens."]


def _range(found: Estimate, form: str) -> str:
    low, middle, high = (form.format(value) for value in (found.low, found.sum, found.high))
    return middle if low == high else f"{middle} [{low}, {high}]"


def applied_shown(found: Applied) -> RenderableType:
    """Counts as a table, then what is to be said of them."""
    known = found.written or 1
    rows = [
        ["answered", f"{found.answered:,}", f"{found.answered / known:.1%}"],
        ["failed", f"{found.failed:,}", f"{found.failed / known:.1%}"],
    ]
    if found.review:
        sure = f"to review (below {found.below:g}, or failed)"
        rows.append([sure, f"{found.reviewed:,}", f"{found.reviewed / known:.1%}"])
    counts = Section("", columns=("rows", "n", "share"), rows=rows)
    end = f"{found.written:,} of {found.rows:,} rows are in {found.out}."
    return Group(table(counts), "", bullets(_lines(found)), "", Text(end, style="bold"))


def _lines(found: Applied) -> list[str]:
    made = f"the best program so far, of run {(found.run or '')[:ID]}"
    zero = f"the zero-shot program, nothing is optimized yet: optimize run {found.task}"
    lines = [f"program: {made if found.run else zero}", f"LM {found.lm}: {_spent(found)}"]
    if found.resumed:
        lines += [f"{found.resumed:,} of them were there from an earlier command"]
    if found.below is not None and not found.confident:
        lines += [
            "this program or its LM tells no confidence: only rows that failed are to be reviewed"
        ]
    elif found.below is not None and found.confident < found.answered:
        lines += [f"{found.answered - found.confident:,} answers have no confidence"]
    lines += [f"to review: {found.review}"] if found.review else []
    lines += [f"failed: {error}" for error in found.errors]
    if found.failed and found.elsewhere:
        lines += [
            "give the rows that failed in a file of their own to ask them again: --again would pay "
            "for all, as the workers' answers are in no cache here"
        ]
    elif found.failed:
        lines += ["--again asks again where a call failed; all else comes from the cache"]
    if found.left_out:
        names = ", ".join(found.left_out)
        lines += [f"columns that only later rows have are left out ({names}); .jsonl keeps them"]
    return lines + (forecast_lines(found.forecast) if found.forecast else [])


def _spent(found: Applied) -> str:
    if not found.calls:
        return "no call made" + (", all from the cache" if found.cached_calls else "")
    price = "unknown price" if found.cost_usd is None else f"${found.cost_usd:,.4f}"
    cached = f" ({found.cached_calls:,} more from the cache)" if found.cached_calls else ""
    took = duration(found.seconds)
    return f"{found.calls:,} calls{cached}, {found.tokens:,} tokens, {price}, {took}"
