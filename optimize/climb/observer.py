"""One rung's outcome, and what those who watch a command are told. Knows no screen and no store."""

from __future__ import annotations

from dataclasses import dataclass

from optimize.climb.verdict import Family, History
from optimize.lm.meter import Meter
from optimize.lm.usage import Usage
from optimize.program.program import Program
from optimize.scoring.evaluation import Evaluation
from optimize.stats.intervals import Gain
from optimize.stats.judge import corrected_gain


@dataclass(frozen=True)
class Attempt:
    """One rung's outcome against the incumbent of its time. gain: paired, on val; None for the
    baseline.

    skipped or error say why there is no evaluation; starved: that was want of LM calls; unfit: it
    can do nothing for such a task. grown: LM calls of a larger search, with which it may come
    again; 0: it had the largest.
    promoted: it became the incumbent. calls: LM calls an example takes. beyond: its outcomes on
    judging rows beyond val, where it was asked on some.
    """

    rung: str
    family: Family
    program: Program | None = None
    evaluation: Evaluation | None = None
    gain: Gain | None = None
    usage: Usage = Usage()  # noqa: RUF009 (frozen)
    seconds: float = 0.0
    skipped: str = ""
    starved: bool = False
    grown: int = 0
    unfit: bool = False
    error: str = ""
    promoted: bool = False
    calls: float = 1.0
    beyond: Evaluation = Evaluation(())  # noqa: RUF009 (frozen)

    @property
    def change(self) -> Gain | None:
        """The gain corrected for the judge's errors: what people would see."""
        judge = self.evaluation.judge if self.evaluation else None
        return corrected_gain(self.gain, judge) if self.gain else None


class Observer:
    """What a command tells those who watch. Each method may be left out."""

    def counts(self, meter: Meter, threads: int) -> None: ...

    def noted(self, line: str) -> None: ...

    def started(self, rung: str) -> None: ...

    def scored(self, done: int, total: int, note: str = "") -> None: ...

    def finished(self, attempt: Attempt) -> None: ...

    def decided(self, history: History) -> None: ...
