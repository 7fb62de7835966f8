"""Which rungs a cap on LM calls pays for, told before the first call is made."""

from __future__ import annotations

from pydantic import Field

from optimize.climb.rungs import ladder
from optimize.climb.rungs.base import searched, share
from optimize.config import RunConfig
from optimize.data.judging_rows import lent
from optimize.data.rows import Splits
from optimize.stats.records import Record
from optimize.task import Task


class PlannedRung(Record):
    """A lever of the ladder."""

    rung: str
    calls: int = Field(description="that it may take, val rows included; 0: there are too few")


class Plan(Record):
    """least: calls without which val and test rows cannot be asked. enough: with these hardly a
    rung is skipped for want of them.
    """

    rungs: list[PlannedRung]
    least: int = 0
    enough: int


def planned(task: Task, splits: Splits, config: RunConfig, after: int) -> Plan:
    """What a climb would do with its calls, as optimize/climb/attempts.py shares them out: two for
    a row of the chat baseline, one for one of the others.

    after: calls that are kept for what follows, beside the test rows. A judge takes one an answer.
    """
    rungs = [rung for rung in ladder(splits) if not rung.unfit(task)]
    val, test = config.repeats * len(splits.val), config.repeats * len(splits.test)
    judge = int(bool(task.judge))
    fixed = (2 + judge) * (val + test) + (1 + judge) * test + after
    left, learn = config.max_calls - fixed, len(lent(task, splits)[0])

    def needed(search: int) -> list[int]:
        return [rung.needs(val, test, search, 1.0 + judge) for rung in rungs]

    needs = needed(searched(learn, left // max(1, len(rungs)) - val))
    found = []
    for number, rung in enumerate(rungs):
        calls = share(needs[number:], left) - rung.on_test(test, 1.0 + judge)
        calls = calls if calls > rung.judged(val, 1.0 + judge) else 0
        found.append(PlannedRung(rung=rung.name, calls=calls))
        left -= calls
    return Plan(
        rungs=found,
        least=(1 + judge) * (val + 2 * test),
        enough=fixed + sum(needed(searched(learn))),
    )
