"""The ladder: each rung pulls one lever on a copy of the incumbent. Cheapest first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from optimize.climb.rungs import demos, instructions, tuned
from optimize.climb.rungs.base import (
    BOOTSTRAP,
    PASSES,
    WANTED,
    Context,
    Skip,
    Starved,
    searched,
    steps,
    unheld,
)
from optimize.climb.rungs.guide import guide, without_guide
from optimize.climb.rungs.output_format import output_format
from optimize.climb.rungs.passages import passages, without_corpus
from optimize.climb.rungs.reasoning import REASONS, reasoning, with_own_steps
from optimize.climb.rungs.search import demo_search
from optimize.climb.rungs.sizes import Demand, Size
from optimize.climb.rungs.votes import ANSWERS, votes
from optimize.climb.verdict import Family
from optimize.config import Lever
from optimize.data.rows import Splits
from optimize.program.program import Program
from optimize.task import Task

__all__ = [
    "LADDER",
    "LEFT_OUT",
    "SYNTHETIC",
    "Context",
    "Rung",
    "Skip",
    "Starved",
    "ladder",
    "on_tuned",
    "rows_that_compare",
]


@dataclass(frozen=True)
class Rung:
    """A lever, its family (what kind of failure it mends) and the function that pulls it.

    unfit: why it can do nothing for a task, known before a call is spent; empty where it can.
    useful: the least search that can tell something; least: one with which it can do anything at
    all, where that is less; most: the largest it makes, where it can its authors'; a_step: passes
    more of each for each further step of a program. dearer: how many times as many calls its
    program makes for an example; judge: those of a judge beside them, who is asked about the answer
    that is given alone. grown: LM calls of its search below which it does not come again.
    holds_back: whether rows that compare are held back from what it shows.
    """

    name: str
    family: Family
    pull: Callable[[Program, Context], Program]
    unfit: Callable[[Task], str] = lambda task: ""
    useful: Size = Size(passes=PASSES)  # noqa: RUF009 (frozen)
    most: Size = Size(passes=WANTED)  # noqa: RUF009 (frozen)
    least: Size | None = None
    a_step: tuple[int, int] = (0, 0)
    dearer: float = 1
    judge: int = 0
    grown: int = 0
    holds_back: bool = True

    def why_not(self, task: Task, thinks: bool) -> str:
        """Why it can do nothing for a task and its LM, which thinks by itself or does not."""
        own = REASONS if thinks and self.family == "reasoning" else ""
        return self.unfit(task) or own

    def priced(self, task: Task) -> Rung:
        """With what this task's program takes for the search, and a judge for an answer."""
        further = steps(task) - 1
        useful, most = (
            replace(size, passes=size.passes + more * further)
            for size, more in zip((self.useful, self.most), self.a_step, strict=True)
        )
        return replace(self, judge=int(bool(task.judge)), useful=useful, most=most)

    def small(self) -> Rung:
        """The same at its least."""
        return self if self.least is None else replace(self, useful=self.least, grown=0)

    def on_test(self, test: int, calls: float = 1.0) -> int:
        """LM calls that its program takes more for so many test rows than what it is made of."""
        return math.ceil((self.dearer - 1) * (calls - self.judge) * test)

    def judged(self, val: int, calls: float = 1.0) -> int:
        """LM calls that so many val rows take, at `calls` an example."""
        return math.ceil((self.dearer * (calls - self.judge) + self.judge) * val)

    def searches(self, search: int, calls: float = 1.0, a_set: int = BOOTSTRAP) -> Demand:
        """LM calls of its search alone. search: rows that compare candidates; a_set: train rows
        that a teacher is asked for a set of demos.
        """
        largest = search if self.holds_back else unheld(search)
        useful, most = (
            math.ceil(calls * size.examples(rows, a_set))
            for size, rows in ((self.useful, search), (self.most, largest))
        )
        return Demand(max(useful, self.grown), max(useful, most, self.grown))

    def demand(
        self, val: int, test: int, search: int, calls: float = 1.0, a_set: int = BOOTSTRAP
    ) -> Demand:
        """The same with the val rows, and with what its program leaves to the test rows."""
        own, then = self.searches(search, calls, a_set), self.then(val, test, calls)
        # a format that ends second calls may free more than it takes
        return Demand(max(1, own.useful + then), max(1, own.most + then))

    def then(self, val: int, test: int, calls: float = 1.0) -> int:
        """LM calls that its program takes once it is made."""
        return self.judged(val, calls) + self.on_test(test, calls)


NONE = Size()  # nothing is searched: val judges its one program
# two of SIMBA's least steps, since it is the second one that mends what the first one made; and its
# authors' eight, of 32 rows and six candidates
SIMBA_LEAST, SIMBA_MOST = Size(6, 0, 2 * instructions.SIMBA_STEP), Size(18, 0, 8 * (13 * 32 + 7))
# what is useful, beside each lever where four passes, a race of eight candidates, are not
LADDER: tuple[Rung, ...] = (
    # an LM that cannot keep to one of four formats, and is asked twice, fails on most of eight rows
    Rung("output_format", "format", output_format, useful=Size(once=5 * 8), most=Size(once=5 * 24)),
    # it and the rules that fit; all versions with demos and without
    Rung("guide", "guide", guide, without_guide, Size(2), Size(PASSES), NONE),
    Rung(
        "nearest_demos",
        "demos",
        demos.nearest,
        demos.without_step_for_rows,
        most=Size(5),
        least=NONE,
        holds_back=False,
    ),
    # 64 candidates, each of which answers one row at least
    Rung("demo_search", "demos", demo_search, most=Size(7, 0, 64), least=Size(2)),
    # zero-shot, labelled and unshuffled ones, and four draws: the best of these gains 1.0 standard
    # deviation of a draw, that of its authors' sixteen 1.8
    Rung(
        "bootstrapped_demos",
        "demos",
        demos.bootstrapped,
        useful=Size(7, 5),
        most=Size(19, 17),
        least=Size(4, 2),
    ),
    Rung("passages", "retrieval", passages, without_corpus, most=Size(6), least=Size(3)),
    # as two calls an example: its three programs
    Rung("reasoning", "reasoning", reasoning, with_own_steps, Size(5, 2, 1), Size(5, 2, 1), NONE),
    # six of the nine pairs of three instructions and three demo sets
    Rung("mipro", "instructions", instructions.mipro, useful=Size(8, 2), most=Size(20, 11)),
    Rung("simba", "instructions", instructions.simba, useful=SIMBA_LEAST, most=SIMBA_MOST),
    # the program, four that reflection made of it and the rows that it reflects on
    Rung("gepa", "instructions", instructions.gepa, useful=Size(6), most=Size(20), least=Size(3)),
    # three instructions, then three that were made in view of how these did; for a further step as
    # many more, and those before them once more
    Rung(
        "copro",
        "instructions",
        instructions.copro,
        useful=Size(7, 0, 6),
        most=Size(31, 0, 30),
        a_step=(12, 90),
    ),
    Rung("votes", "votes", votes, useful=NONE, most=NONE, dearer=ANSWERS),
)
# on a tuned LM: the likeliest first, each a program that val judges
ON_TUNED: tuple[Rung, ...] = (
    Rung("nearest_demos", "demos", tuned.nearest, demos.without_step_for_rows, NONE, NONE),
    Rung("guide", "guide", tuned.whole_guide, without_guide, NONE, NONE),
    Rung("drawn_demos", "demos", tuned.drawn, demos.without_step_for_rows, NONE, NONE),
    Rung("instruction", "instructions", tuned.instruction, useful=Size(once=1), most=Size(once=1)),
)

SYNTHETIC = Rung(
    "synthetic_rows",
    "demos",
    demos.with_synthetic,
    demos.without_step_for_rows,
    most=Size(5),
)
LEFT_OUT = "left out by --without"
AFTER = "bootstrapped_demos"  # the last lever whose demos are train rows alone


def ladder(splits: Splits, without: Sequence[Lever] = ()) -> tuple[Rung, ...]:
    """The rungs for these rows: one more where some are synthetic, so that what these are worth is
    told beside the best program without them. without: those that are not to be tried.
    """
    place = 1 + next(n for n, rung in enumerate(LADDER) if rung.name == AFTER)
    rungs = (*LADDER[:place], SYNTHETIC, *LADDER[place:]) if splits.synthetic else LADDER
    return tuple(_left_out(rung) if rung.name in without else rung for rung in rungs)


def _left_out(rung: Rung) -> Rung:
    return replace(rung, unfit=lambda task: rung.unfit(task) or LEFT_OUT)


def on_tuned(task: Task, without: Sequence[Lever] = ()) -> list[Rung]:
    """The levers that can do something on a tuned LM of the task, and may be tried."""
    return [rung for rung in ON_TUNED if rung.name not in without and not rung.unfit(task)]


def rows_that_compare(
    rungs: Sequence[Rung], learn: int, left: int, val: int, test: int, each: int
) -> int:
    """On how many of so many train rows the rungs compare candidates: as many as an equal part of
    the calls left pays for, but no more than leave all of them what is useful.

    each: calls of an answer.
    """
    least = searched(learn)
    wanted = searched(learn, left // max(1, len(rungs)) // each - val)

    def fits(rows: int) -> bool:
        return sum(rung.demand(val, test, rows, each).useful for rung in rungs) <= left

    return next((rows for rows in range(wanted, least, -1) if fits(rows)), least)
