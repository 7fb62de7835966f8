"""The record of one run, and how it reads in a terminal. Knows no LM and no MLflow; rich is imported here and in cli."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from optimize.ladder import Attempt
from optimize.stats import Interval


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScoreRecord(_Record):
    """A mean score in 0…1 with its 95 % interval, on n scored rows."""

    score: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, interval: Interval) -> ScoreRecord:
        return cls(score=interval.mean, low=interval.low, high=interval.high, n=interval.n)


class GainRecord(_Record):
    """A paired difference of two programs on the same n rows, with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, interval: Interval) -> GainRecord:
        return cls(mean=interval.mean, low=interval.low, high=interval.high, n=interval.n)


class AttemptRecord(_Record):
    rung: str
    family: str
    val: ScoreRecord | None = None
    gain: GainRecord | None = Field(None, description="over the incumbent of its time, on val")
    promoted: bool = False
    missing: int = Field(0, description="val rows whose call failed; they are not zeros")
    format: str | None = None
    lm_calls: int = Field(0, description="calls sent; those answered from the cache are not among them")
    cached_calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost_usd: float | None = Field(None, description="null: the LM's price is not known")
    seconds: float = 0.0
    skipped: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, attempt: Attempt) -> AttemptRecord:
        usage = attempt.usage
        return cls(
            rung=attempt.rung,
            family=attempt.family,
            val=ScoreRecord.of(attempt.evaluation.interval) if attempt.evaluation else None,
            gain=GainRecord.of(attempt.gain) if attempt.gain else None,
            promoted=attempt.promoted,
            missing=attempt.evaluation.missing if attempt.evaluation else 0,
            format=attempt.program.format if attempt.program else None,
            lm_calls=usage.calls,
            cached_calls=usage.asked - usage.calls,
            tokens_in=usage.tokens_in,
            tokens_out=usage.tokens_out,
            cost_usd=usage.cost_usd,
            seconds=round(attempt.seconds, 2),
            skipped=attempt.skipped or None,
            error=attempt.error or None,
        )


class TestRecord(_Record):
    """Scores on the held-out test rows, read once. tuned: null unless an LM was fine-tuned."""

    __test__ = False  # not a pytest class

    baseline: ScoreRecord
    prompt: ScoreRecord
    tuned: ScoreRecord | None = None
    prompt_gain: GainRecord = Field(description="best prompt program over the baseline")
    tuned_gain: GainRecord | None = Field(None, description="tuned program over the best prompt program")


class GateRecord(_Record):
    """Whether fine-tuning is the right next step, and why or why not."""

    open: bool
    reasons: list[str]


class ForgettingRecord(_Record):
    """General questions answered right by the base and by the tuned LM."""

    base: float
    tuned: float
    n: int
    drop: GainRecord = Field(description="tuned minus base, paired")


class Report(_Record):
    """One run, complete: what `--json` prints and `report.json` holds."""

    version: Literal[1] = 1
    task: str
    verdict: str
    reason: str
    target: float
    target_met: bool
    levers: list[str] = Field(description="rungs that made the best prompt program, in order")
    test: TestRecord
    attempts: list[AttemptRecord]
    gate: GateRecord
    tuned_kept: bool | None = Field(None, description="whether the tuned program won; null if none was trained")
    forgetting: ForgettingRecord | None = None
    lm: str
    teacher: str
    seed: int
    rows: dict[str, int]
    data_hash: str
    notes: list[str] = []
    lm_calls: int
    cost_usd: float | None
    seconds: float
    program: str
    next: str


def score_text(record: ScoreRecord | None) -> str:
    return f"{record.score:.2f} [{record.low:.2f}, {record.high:.2f}]" if record else "–"


def with_n(record: ScoreRecord | None) -> str:
    """The score where no column of its own says how many rows it stands on."""
    return f"{score_text(record)} n={record.n}" if record else "–"


def gain_text(record: GainRecord | None) -> str:
    return f"{record.mean:+.2f} [{record.low:+.2f}, {record.high:+.2f}]" if record else ""


def attempts_table(attempts: list[AttemptRecord]) -> Table:
    """A line a rung, narrow enough for 80 columns; ▲ marks those that became the incumbent."""
    table = Table("  rung", "val score", "n", "gain over incumbent", "calls", "s", box=None, pad_edge=False)
    for a in attempts:
        what = score_text(a.val) if a.val else "skipped" if a.skipped else "failed"
        name = f"{'▲' if a.promoted and a.gain else ' '} {a.rung}"
        table.add_row(name, what, str(a.val.n) if a.val else "", gain_text(a.gain), str(a.lm_calls), f"{a.seconds:.0f}")
    return table


def _why(attempts: list[AttemptRecord]) -> list[str]:
    """Why rungs have no score."""
    return [f"{a.rung}: {a.skipped or a.error}" for a in attempts if a.skipped or a.error]


def _test_table(report: Report) -> Table:
    test = report.test
    table = Table("  on test", "score", "n", "gain over the line above", box=None, pad_edge=False)
    table.add_row("  zero-shot baseline", score_text(test.baseline), str(test.baseline.n))
    table.add_row("  best prompt program", score_text(test.prompt), str(test.prompt.n), gain_text(test.prompt_gain))
    if test.tuned:
        table.add_row("  tuned program", score_text(test.tuned), str(test.tuned.n), gain_text(test.tuned_gain))
    return table


def lines(report: Report) -> list[str]:
    """What the run means, a sentence a line."""
    out = [f"{report.verdict.upper()}: {report.reason}"]
    out += [f"Levers that won: {', '.join(report.levers) or 'none'}."]
    out += [f"Fine-tune gate {'open' if report.gate.open else 'closed'}: {' '.join(report.gate.reasons)}"]
    if report.tuned_kept is not None:
        lost = "is not surely better than the best prompt program and is not kept."
        out += ["The tuned program " + ("won and is kept." if report.tuned_kept else lost)]
    if report.forgetting:
        f = report.forgetting
        passed = f"the base LM passes {f.base:.0%}, the tuned LM {f.tuned:.0%} (change {gain_text(f.drop)})"
        out += [f"Forgetting: of {f.n} general questions {passed}."]
    out += [f"Note: {note}" for note in report.notes]
    return out


def verdict_line(report: Report) -> str:
    met = "met" if report.target_met else "not met"
    return f"Target {report.target} {met} on test."


def terminal(report: Report) -> RenderableType:
    """The end of a run as a person reads it: attempts, test scores, meaning, next command."""
    cost = "unknown price" if report.cost_usd is None else f"${report.cost_usd:.2f}"
    return Group(
        attempts_table(report.attempts),
        *[Text(line, style="dim") for line in _why(report.attempts)],
        "",
        _test_table(report),
        "",
        *[Text(line) for line in lines(report)],
        "",
        Text(verdict_line(report), style="bold green" if report.target_met else "bold yellow"),
        Text(f"{report.lm_calls} LM calls ({cost}), {report.seconds:.0f} s. LM {report.lm}, teacher {report.teacher}."),
        Text(f"Next: {report.next}", style="bold"),
    )


def markdown(report: Report) -> str:
    """The run's description in the MLflow UI."""
    rows = [f"| {a.rung} | {with_n(a.val)} | {gain_text(a.gain)} | {a.skipped or a.error or ''} |" for a in report.attempts]
    test = report.test
    return "\n".join(
        [
            f"**{verdict_line(report)}**",
            "",
            *[f"- {line}" for line in lines(report)],
            f"- Test: baseline {with_n(test.baseline)}, prompt {with_n(test.prompt)}, tuned {with_n(test.tuned)}",
            f"- Next: `{report.next}`",
            "",
            "| rung | val | gain | |",
            "| --- | --- | --- | --- |",
            *rows,
        ]
    )


def show(report: Report, console: Console) -> None:
    console.print(terminal(report))
