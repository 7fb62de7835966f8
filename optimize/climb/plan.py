"""Which rungs a cap on LM calls pays for, told before the first call is made."""

from __future__ import annotations

from pydantic import Field

from optimize import lm as lms
from optimize.climb.rungs import ladder
from optimize.climb.rungs.base import least_calls, searched, share
from optimize.config import RunConfig
from optimize.data.judging_rows import lent
from optimize.data.rows import Splits
from optimize.stats.records import Record
from optimize.task import Task

# a climb of fewer levers than this hardly tells what prompting can do; rows below which a val or a
# test score says little
FEW, LEAST_VAL, LEAST_TEST = 2, 24, 40


class PlannedRung(Record):
    """A lever of the ladder."""

    rung: str
    calls: int = Field(description="that it may take, val rows included; 0: there are too few")


class FewerRows(Record):
    """So many val and test rows leave calls for the cheapest levers."""

    val: int
    test: int
    rungs: list[str]


class Plan(Record):
    """least: calls without which val and test rows cannot be asked, at one a row: some programs
    take but one of their steps. enough: with these hardly a rung is skipped for want of them.
    """

    rungs: list[PlannedRung]
    least: int = 0
    enough: int
    fewer_rows: FewerRows | None = Field(
        default=None, description="where the rows leave hardly a lever its calls: what would"
    )

    @property
    def paid(self) -> list[str]:
        """The levers that have calls."""
        return [rung.rung for rung in self.rungs if rung.calls]


def planned(task: Task, splits: Splits, config: RunConfig, after: int) -> Plan:
    """What a climb would do with its calls.

    after: calls that are kept for what follows, beside the test rows.
    """
    plan = _shared_out(task, splits, config, after)
    if len(plan.paid) >= min(FEW, len(plan.rungs)):
        return plan
    val, test = len(splits.val), len(splits.test)
    for part in range(9, 0, -1):
        fewer = splits.at_most(max(LEAST_VAL, val * part // 10), max(LEAST_TEST, test * part // 10))
        paid = _shared_out(task, fewer, config, after).paid
        if len(paid) >= FEW:
            found = FewerRows(val=len(fewer.val), test=len(fewer.test), rungs=paid)
            return plan.model_copy(update={"fewer_rows": found})
    return plan


def _shared_out(task: Task, splits: Splits, config: RunConfig, after: int) -> Plan:
    """As optimize/climb/attempts.py does it: two calls for each step of the chat baseline's rows,
    one for those of the others; a judge takes one an answer.
    """
    thinks = lms.thinks(config.lm, config.api_base)
    rungs = [r.priced(task) for r in ladder(splits) if not r.why_not(task, thinks)]
    val, test = config.repeats * len(splits.val), config.repeats * len(splits.test)
    judge, each = int(bool(task.judge)), least_calls(task)
    fixed = (2 * each - judge) * (val + test) + each * test + after
    left, learn = config.max_calls - fixed, len(lent(task, splits)[0])

    def needed(search: int) -> list[int]:
        return [rung.needs(val, test, search, each) for rung in rungs]

    needs = needed(searched(learn, left // max(1, len(rungs)) // each - val))
    found = []
    for number, rung in enumerate(rungs):
        calls = share(needs[number:], left) - rung.on_test(test, each)
        calls = calls if calls > rung.judged(val, each) else 0
        found.append(PlannedRung(rung=rung.name, calls=calls))
        left -= calls
    return Plan(
        rungs=found,
        least=(1 + judge) * (val + 2 * test),
        enough=fixed + sum(needed(searched(learn))),
    )
