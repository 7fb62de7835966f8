"""What a gate judges, and what it says of each thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field

from optimize.climb.plan import Plan
from optimize.climb.preflight import Preflight
from optimize.climb.verdict import Family
from optimize.config import RunConfig, command_line
from optimize.finetune.steps import TraceCount
from optimize.scoring.failures import Diagnosis
from optimize.stats.records import Record, ScoreRecord
from optimize.task import Task


class Criterion(Record):
    """One thing fine-tuning hangs on.

    passed: null where it is a warning. source: where the value comes from.
    """

    name: str
    passed: bool | None
    value: str
    threshold: str
    source: str
    advice: str = Field("", description="what would meet it, where it is not met")
    command: str = Field(default="", description="the command for that, where there is one")

    def __str__(self) -> str:
        return f"{self.name}: {self.value} ({self.threshold}). {self.remedy}".strip()

    @property
    def remedy(self) -> str:
        """What to do, in one or two sentences."""
        return " ".join(filter(None, [self.advice, self.command and f"Next: {self.command}"]))


@dataclass(frozen=True)
class Case:
    """What a gate judges, all of it on record. best: the corrected val score. on_test: probability,
    by the test rows alone, that the best program is at the target; None where they were not read.
    levers: gain of each rung that won.

    families: of the levers that were scored. reasons: the program reasons before it answers.
    teacher: another LM's val score with the same prompt, where it was asked. steps: the names of
    the program's steps whose outputs the rows do not label. traces: rows that can teach these; None
    where nobody has counted them. knobs: of the climb's run, as far as they differ from their
    defaults. cap: the knob of the one that left the fewest calls in the end.
    """

    verdict: str
    target: float
    best: ScoreRecord
    on_test: float | None
    levers: Mapping[str, float]
    families: Sequence[Family]
    preflight: Preflight
    diagnosis: Diagnosis
    reasons: bool
    teacher: ScoreRecord | None = None
    steps: Sequence[str] = ()
    traces: TraceCount | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    cap: str = ""

    def command(self, name: str, task: Task, **changed: Any) -> str:
        """The command with the flags of the climb's run, some of them changed."""
        return command_line(name, task.name, {**self.knobs, **changed})

    @property
    def higher_cap(self) -> dict[str, float]:
        """As `higher_cap` has it."""
        return higher_cap(self.preflight.cost.plan, self.cap, self.knobs)


def higher_cap(plan: Plan, cap: str, knobs: Mapping[str, Any]) -> dict[str, float]:
    """The cap that ended a climb, surely higher. cap: as the climb has it on record; where it has
    none, the one that the plan took for it. knobs: of the climb's run.
    """
    cap = cap or plan.cap
    given = plan.given if cap == plan.cap else RunConfig.model_fields[cap].default
    return plan.raised(cap, knobs.get(cap, given))
