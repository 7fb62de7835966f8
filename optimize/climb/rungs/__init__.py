"""The ladder: each rung pulls one lever on a copy of the incumbent. Cheapest first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from optimize.climb.rungs import demos, instructions, tuned
from optimize.climb.rungs.base import (
    BOOTSTRAP,
    PASSES,
    Context,
    Skip,
    Starved,
    steps,
)
from optimize.climb.rungs.guide import guide, without_guide
from optimize.climb.rungs.output_format import output_format
from optimize.climb.rungs.passages import passages, without_corpus
from optimize.climb.rungs.reasoning import reasoning, with_own_steps
from optimize.climb.rungs.search import demo_search
from optimize.climb.rungs.votes import ANSWERS, votes
from optimize.climb.verdict import Family
from optimize.data.rows import Splits
from optimize.program.program import Program
from optimize.task import Task

__all__ = [
    "LADDER",
    "ON_TUNED",
    "SYNTHETIC",
    "Context",
    "Rung",
    "Skip",
    "Starved",
    "ladder",
]


@dataclass(frozen=True)
class Rung:
    """A lever, its family (what kind of failure it mends) and the function that pulls it.

    unfit: why it can do nothing for a task, known before a call is spent; empty where it can.
    passes: over the rows that compare candidates, and `once` examples beside them, with which it
    can do something. a_step: passes more for each further step of a program. dearer: how many times
    as many calls its program makes for an example; judge: those of a judge beside them, who is
    asked about the answer that is given alone.
    """

    name: str
    family: Family
    pull: Callable[[Program, Context], Program]
    unfit: Callable[[Task], str] = lambda task: ""
    passes: int = PASSES
    once: int = 0
    a_step: int = 0
    dearer: float = 1
    judge: int = 0

    def why_not(self, task: Task, thinks: bool) -> str:
        """Why it can do nothing for a task and its LM, which thinks by itself or does not."""
        own = "the LM reasons by itself" if thinks and self.family == "reasoning" else ""
        return self.unfit(task) or own

    def priced(self, task: Task) -> Rung:
        """With what this task's program takes for the search, and a judge for an answer."""
        more = self.a_step * (steps(task) - 1)
        return replace(self, judge=int(bool(task.judge)), passes=self.passes + more)

    def on_test(self, test: int, calls: float = 1.0) -> int:
        """LM calls that its program takes more for so many test rows than what it is made of."""
        return math.ceil((self.dearer - 1) * (calls - self.judge) * test)

    def judged(self, val: int, calls: float = 1.0) -> int:
        """LM calls that so many val rows take, at `calls` an example."""
        return math.ceil((self.dearer * (calls - self.judge) + self.judge) * val)

    def needs(self, val: int, test: int, search: int, calls: float = 1.0) -> int:
        """LM calls with which it can do something, those included that it leaves to the test rows.
        search: rows that compare candidates.
        """
        own = math.ceil(calls * (self.passes * search + self.once))
        return self.judged(val, calls) + self.on_test(test, calls) + own


LADDER: tuple[Rung, ...] = (
    Rung("output_format", "format", output_format),
    Rung("guide", "guide", guide, without_guide),
    Rung("nearest_demos", "demos", demos.nearest, demos.without_step_for_rows),
    Rung("demo_search", "demos", demo_search),
    Rung("bootstrapped_demos", "demos", demos.bootstrapped, once=2 * BOOTSTRAP),
    Rung("passages", "retrieval", passages, without_corpus),
    Rung("reasoning", "reasoning", reasoning, with_own_steps, passes=5, once=2 * BOOTSTRAP + 1),
    Rung("mipro", "instructions", instructions.mipro, once=2 * BOOTSTRAP),
    Rung("simba", "instructions", instructions.simba, once=instructions.SIMBA_STEP),
    Rung("gepa", "instructions", instructions.gepa),
    Rung("copro", "instructions", instructions.copro, once=3, a_step=instructions.COPRO[1]),
    Rung("votes", "votes", votes, passes=1, dearer=ANSWERS),
)
# on a tuned LM: the likeliest first, each a program that val judges
ON_TUNED: tuple[Rung, ...] = (
    Rung("nearest_demos", "demos", tuned.nearest, demos.without_step_for_rows, passes=0),
    Rung("guide", "guide", tuned.whole_guide, without_guide, passes=0),
    Rung("drawn_demos", "demos", tuned.drawn, demos.without_step_for_rows, passes=0),
    Rung("instruction", "instructions", tuned.instruction, passes=0),
)

SYNTHETIC = Rung("synthetic_rows", "demos", demos.with_synthetic, demos.without_step_for_rows)
AFTER = "bootstrapped_demos"  # the last lever whose demos are train rows alone


def ladder(splits: Splits) -> tuple[Rung, ...]:
    """The rungs for these rows: one more where some are synthetic, so that what these are worth is
    told beside the best program without them.
    """
    place = 1 + next(n for n, rung in enumerate(LADDER) if rung.name == AFTER)
    return (*LADDER[:place], SYNTHETIC, *LADDER[place:]) if splits.synthetic else LADDER
