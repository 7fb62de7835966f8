"""Which rungs the caps of a run pay for, told before the first call is made."""

from __future__ import annotations

from pydantic import Field

from optimize import lm as lms
from optimize.climb.allowed import Allowed, allowed
from optimize.climb.climb import FINALISTS, KEPT
from optimize.climb.rungs import Rung, ladder, rows_that_compare
from optimize.climb.rungs.base import least_calls, searched
from optimize.climb.rungs.sizes import share
from optimize.config import RunConfig
from optimize.data.judging_rows import lent
from optimize.data.rows import Splits
from optimize.stats.records import Record
from optimize.task import Task

# a climb of fewer levers than this hardly tells what prompting can do; rows below which a val or a
# test score says little
FEW, LEAST_VAL, LEAST_TEST = 2, 24, 40
# of its share, what a lever takes at least: races end early, and equal questions are asked once
TAKEN = 0.5


class PlannedRung(Record):
    """A lever of the ladder."""

    rung: str
    calls: int = Field(description="that it may take, val rows included; 0: there are too few")
    if_left: bool = Field(
        default=False, description="it has calls only if levers before it leave some of theirs"
    )
    small: bool = Field(
        default=False, description="it has what is left in the end, less than is useful to it"
    )


class FewerRows(Record):
    """So many val and test rows leave calls for the cheapest levers."""

    val: int
    test: int
    rungs: list[str]


class Plan(Record):
    """least: calls without which val and test rows cannot be asked, at one a row: some programs
    take but one of their steps. enough: with these hardly a rung is skipped for want of them; most:
    more can be of no use. allowed: those that the caps come to; cap: the knob that allows no more,
    given: its value. each: what a call takes of every cap, by its knob.
    """

    rungs: list[PlannedRung]
    least: int = 0
    enough: int
    most: int = 0
    allowed: int = 0
    cap: str = "max_calls"
    given: int | float = 0
    each: dict[str, float] = {}  # noqa: RUF012 (frozen)
    full: str = Field(
        "", description="flags with which `enough` calls are allowed; empty: they are"
    )
    fewer_rows: FewerRows | None = Field(
        default=None, description="where the rows leave hardly a lever its calls: what would"
    )

    @property
    def paid(self) -> list[str]:
        """The levers that have calls whatever the others take."""
        return [r.rung for r in self.rungs if r.calls and not (r.if_left or r.small)]

    def raised(self, cap: str, given: float) -> dict[str, float]:
        """The cap that ended a climb, by its knob, higher: the others are there for a reason of
        their own.
        """
        return {cap: max(2 * given, self.enough) if cap == "max_calls" else 2 * given}

    @property
    def hopeless(self) -> bool:
        """Whether no lever can have calls."""
        return bool(self.rungs) and not any(rung.calls for rung in self.rungs)


def planned(
    task: Task, splits: Splits, config: RunConfig, after: int, per_minute: float | None = None
) -> Plan:
    """What a climb would do with its calls.

    after: calls that are kept for what follows, beside the test rows. per_minute: as `allowed` has
    it.
    """
    caps = allowed(task, splits, config, per_minute)
    plan = _shared_out(task, splits, config, after, caps)
    if len(plan.paid) >= min(FEW, len(plan.rungs)):
        return plan
    val, test = len(splits.val), len(splits.test)
    for part in range(9, 0, -1):
        fewer = splits.at_most(max(LEAST_VAL, val * part // 10), max(LEAST_TEST, test * part // 10))
        paid = _shared_out(task, fewer, config, after, caps).paid
        if len(paid) >= FEW:
            found = FewerRows(val=len(fewer.val), test=len(fewer.test), rungs=paid)
            return plan.model_copy(update={"fewer_rows": found})
    return plan


def _shared_out(task: Task, splits: Splits, config: RunConfig, after: int, caps: Allowed) -> Plan:
    """As optimize/climb/attempts.py does it, at one call for each step of a row; a judge takes one
    an answer.
    """
    thinks = lms.thinks(config.lm, config.api_base)
    rungs = [r.priced(task) for r in ladder(splits, config.without) if not r.why_not(task, thinks)]
    val, test = config.repeats * len(splits.val), config.repeats * len(splits.test)
    judge, each, (learn, spare) = int(bool(task.judge)), least_calls(task), lent(task, splits)
    fixed = each * (val + 2 * test) + after
    more = FINALISTS * each * config.repeats * len(spare)
    left = max(0, caps.calls - fixed)
    rows = rows_that_compare(rungs, len(learn), _without(left, more), val, test, each)
    # chat's answers may take two calls, and all rows that compare be asked
    demands = [rung.demand(val, test, searched(len(learn)), each) for rung in rungs]
    twice = fixed + more + (each - judge) * (val + test)
    enough = twice + sum(demand.useful for demand in demands)
    return Plan(
        rungs=_rungs(rungs, (val, test, rows, each), left, more),
        least=(1 + judge) * (val + 2 * test),
        enough=enough,
        most=twice + sum(demand.most for demand in demands),
        allowed=caps.calls,
        cap=caps.knob,
        given=getattr(config, caps.knob),
        each=caps.each,
        full=caps.for_calls(enough, config),
    )


def _without(left: float, more: int) -> int:
    """Calls left without those that are kept for judging rows beyond val, as a climb keeps them."""
    return int(left - min(more, KEPT * left))


def _rungs(
    rungs: list[Rung], taken: tuple[int, int, int, int], left: int, more: int
) -> list[PlannedRung]:
    """What each may take where those before it take the whole of their shares; else what it may if
    they take some part.
    """
    on_test = [rung.on_test(taken[1], taken[-1]) for rung in rungs]
    demands = [rung.demand(*taken) for rung in rungs]
    found, surely, maybe = list[PlannedRung](), left, float(left)
    for number, (rung, demand) in enumerate(zip(rungs, demands, strict=True)):
        part = share(demands[number:], _without(surely, more))
        if paid := part >= demand.useful:
            surely -= part - on_test[number]
        else:
            part = share(demands[number:], _without(maybe, more))
        given = part >= demand.useful
        maybe -= TAKEN * part if given else 0
        calls = part - on_test[number] if given else 0
        found.append(PlannedRung(rung=rung.name, calls=calls, if_left=given and not paid))
    if any(plan.if_left for plan in found):
        return found  # what is left goes to these, or to the first one
    over = _without(surely, more)
    for number, (rung, plan) in enumerate(zip(rungs, found, strict=True)):
        if not plan.calls and rung.small().demand(*taken).useful <= over:
            calls = over - on_test[number]
            found[number] = plan.model_copy(update={"calls": calls, "small": True})
            break
    return found
