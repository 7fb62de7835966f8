"""Rows that an LM wrote: how many survived which check. Knows no LM and no files."""

from __future__ import annotations

from pydantic import Field
from rich.console import Group, RenderableType
from rich.text import Text

from optimize.report.sections import Section
from optimize.report.text import bullets, duration, table
from optimize.stats.records import Record

SHOWN = 5  # labels named


class SynthesisPlan(Record):
    """What a command will ask for, told before the first call. usd: null where a price is not
    known.
    """

    rows: int = Field(description="to be written, beside those there are")
    there: int
    written: int = Field(description="candidates at most")
    asked: int = Field(description="how often a candidate that passes the other checks is labelled")
    calls: int = Field(description="at most, the cap on calls aside")
    cap: int
    tokens: int = Field(description="at most, read and written")
    usd: float | None
    labels: dict[str, int] = Field(description="candidates of each label; empty: no labels")


class Synthesis(Record):
    """What became of the candidates of one command. Each is counted where it failed first."""

    task: str
    teacher: str
    file: str
    written: int = 0
    failed: int = Field(
        default=0, description="calls without an answer: nothing is known of the row"
    )
    invalid: int = Field(default=0, description="answers that are no row of the signature")
    leak: int = Field(default=0, description="nearly a val, test or out-of-distribution row")
    duplicate: int = Field(default=0, description="nearly a train row or another synthetic one")
    refused: int = Field(
        default=0, description="the metric scores the row's own outputs low, or fails"
    )
    unconfirmed: int = Field(
        default=0, description="the teacher, not shown the outputs, gave others at least once"
    )
    spare: int = Field(default=0, description="sound, but more than were asked for; not kept")
    kept: int = 0
    total: int = Field(default=0, description="usable synthetic rows there are now")
    wanted: int
    labels: dict[str, tuple[int, int]] = Field(default={}, description="label → (written, kept)")
    ended: str = Field(default="", description="why there are fewer than wanted")
    calls: int = 0
    cached_calls: int = 0
    tokens: int = 0
    cost_usd: float | None = None
    seconds: float = 0.0


def plan_lines(plan: SynthesisPlan) -> list[str]:
    """What is asked for, and what it may take."""
    usd = "unknown price" if plan.usd is None else f"${plan.usd:.2f}"
    found = [
        f"Plan: {plan.rows} rows beside the {plan.there} there are. At most {plan.written} are "
        f"written, a call each; those that pass the other checks are labelled {plan.asked} times "
        f"without their own outputs in view. At most {plan.calls:,} calls (cap {plan.cap:,}; an "
        f"answer that cannot be read is asked for once more), some {plan.tokens / 1e6:.1f} M "
        f"tokens ({usd}): labelling shows other rows than writing, more or fewer."
    ]
    if plan.labels:
        few = sorted(plan.labels, key=lambda label: -plan.labels[label])
        told = ", ".join(f"{label} {plan.labels[label]}" for label in few[:SHOWN])
        more = f", … ({len(few)} labels)" if len(few) > SHOWN else ""
        found.append(f"Labels with the fewest train rows come first: {told}{more}.")
    return found


def plan_shown(plan: SynthesisPlan, prompt: str) -> RenderableType:
    """The plan, and the first prompt as the teacher would get it."""
    return Group(bullets(plan_lines(plan)), *([Text(f"\n{prompt.strip()}")] if prompt else []))


def synthesis_section(found: Synthesis) -> Section:
    counts = {
        "written": found.written,
        "− call failed": found.failed,
        "− no row of the signature": found.invalid,
        "− nearly a val or test row (leak)": found.leak,
        "− nearly a train or synthetic row": found.duplicate,
        "− refused by the metric": found.refused,
        "− outputs not confirmed": found.unconfirmed,
        "− more than asked for": found.spare,
        "kept": found.kept,
    }
    rows = [[name, str(n), _share(n, found.written)] for name, n in counts.items()]
    return Section("Candidates", columns=("rows", "n", "share"), rows=rows)


def synthesis_shown(found: Synthesis, following: str) -> RenderableType:
    """As a person reads it; following: the command that comes next."""
    cost = "unknown price" if found.cost_usd is None else f"${found.cost_usd:.2f}"
    lines = []
    if none := [label for label, (n, kept) in found.labels.items() if n and not kept]:
        more = f" and {len(none) - SHOWN} more" if len(none) > SHOWN else ""
        lines.append(f"No row was kept of {', '.join(none[:SHOWN])}{more}.")
    if found.ended:
        lines.append(f"Fewer than the {found.wanted} wanted: {found.ended}.")
    tables: list[RenderableType] = [table(synthesis_section(found)), ""] if found.written else []
    if found.total:
        lines.append("Read some of them before you use them: nobody but the LM has.")
    return Group(
        *tables,
        bullets(lines),
        Text(f"{found.total} synthetic rows in {found.file}, train only."),
        Text(
            f"{found.calls} LM calls, {found.cached_calls} more known ({cost}), "
            f"{found.tokens:,} tokens, {duration(found.seconds)}. Teacher {found.teacher}.",
            style="dim",
        ),
        Text(f"Next: {following}", style="bold"),
    )


def _share(n: int, of: int) -> str:
    return f"{n / of:.0%}" if of else ""
