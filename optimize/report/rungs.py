"""Records of a rung's prompt, and of what it made of each row. Knows no store and no screen."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from optimize.scoring.failures import Kind
from optimize.stats.records import GainRecord, Record, ScoreRecord


class RowRecord(Record):
    """A val row, and what a program made of it. row: begin of its content hash; inputs and gold as
    text; score null: the call failed; cut: tokens at which the answer was cut, 0: it was not.
    """

    row: str
    inputs: dict[str, str]
    gold: dict[str, str]
    answer: dict[str, Any]
    score: float | None
    feedback: str = ""
    error: str = ""
    cut: int = 0


class Shown(Record):
    """A program: what the LM gets of it for one val row, its scores and its knobs."""

    run: str
    task: str
    rung: str
    prompt: str = Field(description="as it is sent for the first val row")
    val: ScoreRecord | None = None
    test: ScoreRecord | None = Field(None, description="null unless the run kept this program")
    knobs: dict[str, Any] = Field(description="of the program and of the LM it was made for")


class Changed(Record):
    """A row that two programs scored differently."""

    row: str
    inputs: dict[str, str]
    gold: dict[str, str]
    before: dict[str, Any]
    after: dict[str, Any]
    score_before: float
    score_after: float
    feedback: str = ""

    @property
    def gained(self) -> float:
        return self.score_after - self.score_before


class Difference(Record):
    """Two programs of a task: their prompts, and the val rows that both have scored."""

    task: str
    before: str
    after: str
    lms: tuple[str, str] = Field(description="the LM of each")
    prompt: list[str] = Field(description="lines of a unified diff of the prompts for one val row")
    val_before: ScoreRecord | None = None
    val_after: ScoreRecord | None = None
    gain: GainRecord | None = Field(None, description="null where no row was scored by both")
    fixed: list[Changed]
    broken: list[Changed]


class WrongRows(Record):
    """Rows that went wrong in one way. lost: points of the score that they cost together."""

    kind: Kind
    meaning: str
    lever: str
    count: int
    lost: float
    rows: list[RowRecord]


class WrongRowsByKind(Record):
    """A program's val rows that are not wholly right, the costliest kind first. gone: rows that the
    run has scored and that are not in the devset any more; failed: rows whose call failed.
    """

    run: str
    task: str
    rung: str
    scored: int
    wrong: int
    gone: int
    failed: int
    kinds: list[WrongRows]


class Answered(Record):
    """One input, answered by a task's program. run: that made the program; null for the zero-shot
    one. unread: what the LM said, where that could not be read as the outputs.
    """

    task: str
    run: str | None
    lm: str
    inputs: dict[str, Any]
    answer: dict[str, Any]
    unread: str | None = None
    confidence: float | None = Field(
        None, description="probability that the LM gave its words; null: it does not tell"
    )
    demos: list[dict[str, Any]] = Field(description="that the prompt showed, in their order")
    prompt: str
    calls: int = Field(
        description="LM calls sent; those answered from the cache are not among them"
    )
    cached_calls: int
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    seconds: float
