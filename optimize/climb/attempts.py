"""One rung tried: its lever pulled on the incumbent, the result raced; an Attempt in any case."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import dspy

from optimize import usercode
from optimize.climb.observer import Attempt, Observer
from optimize.climb.rungs import Context, Rung, Skip, Starved
from optimize.climb.rungs.base import rows_a_set, steps
from optimize.climb.rungs.sizes import Demand, share
from optimize.climb.setup import Setup
from optimize.climb.verdict import COVERAGE, Tried, errors_asked, is_cheaper, promotes
from optimize.errors import BudgetExhausted, ShareExhausted, WorkbenchError
from optimize.files import to_json
from optimize.lm.usage import Usage
from optimize.program.program import Program, student
from optimize.scoring.evaluate import FEWEST, evaluate, race
from optimize.scoring.evaluation import Evaluation
from optimize.scoring.failures import (
    again_sentence,
    cut_answers,
    cut_sentence,
    unread_sentence,
)
from optimize.stats.intervals import commonest, known, paired_gain
from optimize.task import Task

SLACK = 1.25  # a rung is sized for its share and stopped hard this far beyond it
# calls of a search, to those it had, with which it may come again: levers grow in steps of half as
# much to twice as much, and less would mostly ask what has been answered
GROWN = 1.5
OFTEN = 1.2  # calls for one, from which an LM is taken not to keep to a format
CUT_SHARE = 0.1  # of the baseline's answers: beyond, that they were cut is told at once


def baseline(setup: Setup, watch: Observer) -> Attempt:
    """The zero-shot student.

    Without a score for it there is nothing to climb from, so failures are the caller's.
    """
    watch.started("zero_shot")
    before, start = setup.meter.usage(), time.perf_counter()
    program = student(setup.task)
    try:
        evaluation = evaluate(program, setup.splits.val, setup.asking(watch))
    except BudgetExhausted as error:
        need = 2 * steps(setup.task) * setup.repeats * len(setup.splits.val)
        raise WorkbenchError(
            f"{error} Not even the baseline fits: it needs up to {need} calls."
        ) from None
    except WorkbenchError as error:
        raise WorkbenchError(
            f"{error} Once that is mended the same command goes on: what was answered is kept."
        ) from None
    usage = setup.meter.usage() - before
    calls = usage.asked / len(evaluation.outcomes) / setup.repeats
    seconds = time.perf_counter() - start
    attempt = Attempt(
        "zero_shot",
        "baseline",
        program,
        evaluation,
        usage=usage,
        seconds=seconds,
        promoted=True,
        calls=calls,
    )
    _note(evaluation, calls_for_one(attempt), watch)
    watch.finished(attempt)
    return attempt


def _note(baseline: Evaluation, calls: float, watch: Observer) -> None:
    """What its answers say of the climb to come. calls: that one of them took in place of one."""
    cut, at = cut_answers(baseline.outcomes)
    if cut > CUT_SHARE * len(baseline.outcomes):
        watch.noted(cut_sentence(cut, len(baseline.outcomes), at))
    if baseline.unread:
        watch.noted(unread_sentence(baseline.unread, "val"))
    if calls >= OFTEN:
        watch.noted(again_sentence(calls))


def tried_rung(
    setup: Setup,
    rung: Rung,
    incumbent: Attempt,
    learn: tuple[dspy.Example, ...],
    left: int,
    after: Sequence[Rung],
    watch: Observer,
) -> Attempt:
    """Pull one lever on a copy of the incumbent and race the result. Whatever happens is an
    Attempt.

    left: LM calls for this rung and those that come after it. What cheap ones leave or skip goes to
    the later ones.
    """
    assert incumbent.program
    spent, start = setup.meter.usage(), time.perf_counter()
    attempt, part, most = Attempt(rung.name, rung.family), 0, 0
    try:
        rung = _as_dear(rung, incumbent)
        part, then, most = _shared_out(setup, rung, incumbent, learn, left, after)
        if (grown := math.ceil(GROWN * part)) <= most:
            attempt = replace(attempt, grown=grown)
        context = _context(setup, incumbent, learn, part)
        shown = partial(watch.scored, note="LM calls at most")
        with setup.meter.share(min(int(part * SLACK), left - then, left), shown):
            program = rung.pull(incumbent.program, context)
        _check_search(setup.meter.usage() - spent)
        attempt = replace(attempt, **_raced(setup, program, incumbent, watch))
    except Skip as skip:
        attempt = replace(attempt, skipped=str(skip), starved=isinstance(skip, Starved), grown=0)
    except (BudgetExhausted, ShareExhausted) as error:
        # it was not tried to its end, and a higher cap would let it
        ended = isinstance(error, BudgetExhausted) or part < most
        attempt = replace(attempt, error=str(error), starved=ended)
    except Exception as error:  # a rung that crashes is an outcome; the climb goes on
        ours = isinstance(error, WorkbenchError)
        attempt = replace(attempt, error=str(error) if ours else usercode.told(error), grown=0)
    return replace(attempt, usage=setup.meter.usage() - spent, seconds=time.perf_counter() - start)


def _check_search(asked: Usage) -> None:
    """Raises WorkbenchError where most of what a search asked brought no answer: DSPy's optimizers
    take that for wrong answers, and what they return says nothing of the lever.
    """
    # a request that failed may have been made again, and answered
    sent, answered = asked.asked - asked.cached, asked.calls - asked.failed
    failed = sent - answered - asked.too_long
    if sent >= FEWEST and failed > sent / 2:
        raise WorkbenchError(f"{failed} of {sent} calls of its search failed")


def _shared_out(
    setup: Setup,
    rung: Rung,
    incumbent: Attempt,
    learn: tuple[dspy.Example, ...],
    left: int,
    after: Sequence[Rung],
) -> tuple[int, int, int]:
    """LM calls for the rung's search, those that its program will take, and the most that such a
    search could use. Raises Starved where there are fewer than are useful.
    """
    val, test, search, calls, a_set = taken = _taken(setup, incumbent, learn)
    demands = [r.demand(*taken) for r in (rung, *after)]
    part, then = share(demands, left), rung.then(val, test, calls)
    if part < demands[0].useful:
        rows = f"the {len(setup.splits.val)} val rows"
        what = f"its least search and {rows}" if demands[0].useful > then else rows
        raise Starved(f"{what} take {demands[0].useful} LM calls, its share is {part}")
    most = rung.searches(search, calls, a_set).most
    return min(part - then, most, left), then, most


def demand(setup: Setup, rung: Rung, incumbent: Attempt, learn: tuple[dspy.Example, ...]) -> Demand:
    """LM calls of a rung that builds on the incumbent."""
    rung = _as_dear(rung, incumbent)
    return rung.demand(*_taken(setup, incumbent, learn))


def _taken(
    setup: Setup, incumbent: Attempt, learn: tuple[dspy.Example, ...]
) -> tuple[int, int, int, float, int]:
    """What a rung's calls hang on, as Rung.demand takes it."""
    val, test = (setup.repeats * len(rows) for rows in (setup.splits.val, setup.splits.test))
    search = min(setup.search, len(learn) // 3)
    calls = max(1.0, incumbent.calls, setup.chat_calls)
    return val, test, search, calls, rows_a_set(_right(incumbent))


def _right(incumbent: Attempt) -> float:
    """Share of its answers that are wholly right: those that a bootstrapping teacher may show."""
    scores = known(incumbent.evaluation.scores) if incumbent.evaluation else []
    return sum(score >= 1 for score in scores) / len(scores) if scores else 0.0


def _context(
    setup: Setup, incumbent: Attempt, learn: tuple[dspy.Example, ...], budget: int
) -> Context:
    return Context(
        setup.task,
        learn,
        setup.teacher,
        budget,
        max(1.0, incumbent.calls),
        setup.threads,
        setup.seed,
        setup.search,
        setup.embedder,
        setup.splits.synthetic,
        _right(incumbent),
        setup.chat_calls > 0,
    )


def _as_dear(rung: Rung, incumbent: Attempt) -> Rung:
    """The rung as dear as its program will be where the LM does not keep to chat: another format
    ends the second calls, and reasoning in this one may have every answer asked for again.
    """
    assert incumbent.program
    calls = calls_for_one(incumbent)
    if incumbent.program.format != "chat" or calls < OFTEN:
        return rung
    dearer = {"format": 1 / calls, "reasoning": 2 / calls}
    return replace(rung, dearer=dearer.get(rung.family, rung.dearer))


def calls_for_one(attempt: Attempt) -> float:
    """LM calls in place of one, as an answer that could not be read is asked for again."""
    assert attempt.evaluation
    outcomes = attempt.evaluation.outcomes
    asked, again = sum(o.usage.asked for o in outcomes), sum(o.again for o in outcomes)
    return asked / (asked - again) if asked > again else 1.0


def _raced(setup: Setup, program: Program, incumbent: Attempt, watch: Observer) -> dict[str, Any]:
    """What an Attempt is to say of a program that was raced against the incumbent on val."""
    assert incumbent.evaluation
    rows, before = setup.splits.val, setup.meter.usage()

    def errors(calls: float) -> float:
        return errors_asked(is_cheaper(calls, incumbent.calls))

    evaluation = race(program, incumbent.evaluation, rows, setup.asking(watch), errors)
    gain = paired_gain(incumbent.evaluation.scores, evaluation.scores)
    calls = (setup.meter.usage() - before).asked / len(evaluation.outcomes) / setup.repeats
    whole = len(evaluation.outcomes) == len(rows) and evaluation.coverage >= COVERAGE
    return {
        "program": program,
        "evaluation": evaluation,
        "gain": gain,
        "promoted": whole and promotes(gain, is_cheaper(calls, incumbent.calls)),
        "calls": calls,
    }


def on_record(attempt: Attempt, task: Task) -> Tried:
    assert attempt.evaluation
    scores = attempt.evaluation.scores + attempt.beyond.scores
    same = _same(attempt.evaluation, task)
    unread = attempt.evaluation.unread + attempt.beyond.unread
    told = attempt.rung, attempt.family, scores, attempt.promoted, attempt.calls
    return Tried(*told, same, unread)


def _same(found: Evaluation, task: Task) -> float:
    """Share of the answers that are equal to the commonest one."""
    names = list(task.signature.output_fields)
    return commonest(
        to_json({n: o.answer.get(n) for n in names})
        for o in found.outcomes
        if o.score is not None and not o.error
    )
