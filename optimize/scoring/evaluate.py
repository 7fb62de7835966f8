"""Score a program on examples, one by one. Knows neither optimizers nor splits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from statistics import fmean
from typing import Any

import dspy

from optimize import usercode
from optimize.errors import BudgetExhausted, WorkbenchError
from optimize.lm.heard import listening
from optimize.lm.metered import apart, one_example
from optimize.lm.usage import Usage
from optimize.scoring.evaluation import UNPARSABLE, Evaluation, Outcome
from optimize.stats.intervals import differences
from optimize.stats.race import hopeless
from optimize.task import Task
from optimize.threads import in_threads

Progress = Callable[[int, int], None]
Job = tuple[dspy.Example, int]  # an example, and the place of its answer in the cache
Spread = Callable[[Callable[[Job], Outcome], Sequence[Job], int], Iterator[Outcome]]
LOGPROBS = "logprobs"  # where DSPy puts a prediction's tokens
BLOCK = 12  # rows asked between two looks at a race
ANEW = 1_000_000  # beyond every number that a repeat, or a program's own calls, give a place

FEWEST = 8  # rows asked, below which a cap leaves no score


@dataclass(frozen=True)
class Asking:
    """How examples are asked: how many at once, how often each, and who watches. task: whose metric
    scores them.

    to_the_cap: those that a cap on the run no longer allows are missing, instead of ending it.
    spread: how the asking of many is spread over threads, as `in_threads` does.
    anew: a number above 0 has the LM asked again, whatever it has answered before; the same number
    once more is answered from the cache.
    """

    task: Task
    threads: int
    repeats: int = 1
    progress: Progress = lambda done, total: None
    to_the_cap: bool = False
    anew: int = 0
    spread: Spread = in_threads


def evaluate(
    program: dspy.Module,
    examples: Sequence[dspy.Example],
    asking: Asking,
    before: tuple[Outcome, ...] | None = None,
) -> Evaluation:
    """The program's outcomes on the examples; those whose call failed are asked once more when all
    others are done.

    before: those of examples that it was asked earlier, which come first; a few examples are then
    one look of several, and tell nothing yet of how calls fare.
    Raises WorkbenchError when most calls fail: that is no evaluation.
    """
    repeats, place = asking.repeats, ANEW * asking.anew
    jobs = [(e, place + repeat) for e in examples for repeat in range(repeats)]
    found = _outcomes(
        program, jobs, asking, lambda done: asking.progress(done // repeats, len(examples))
    )
    failed = [n for n, outcome in enumerate(found) if outcome.score is None and not outcome.unread]
    capped = sum(outcome.capped for outcome in found)
    asked = len(found) - capped
    if asked < min(FEWEST, len(found)):
        capped_by = next(outcome.error for outcome in found if outcome.capped)
        raise WorkbenchError(
            f"A cap left room for {asked} of {len(found)} answers: too few for a score. What was "
            f"answered is kept, and the same command with a higher cap goes on. {capped_by}"
        )
    _check_answered(found, before, repeats)
    again = _outcomes(program, [jobs[n] for n in failed], asking, lambda done: None)
    for n, outcome in zip(failed, again, strict=True):
        found[n] = outcome
    names = asking.task.signature.output_fields
    each = (_together(found[n : n + repeats], names) for n in range(0, len(found), repeats))
    return Evaluation((*(before or ()), *each), asking.task.confusion)


def _check_answered(
    found: Sequence[Outcome], before: Sequence[Outcome] | None, repeats: int
) -> None:
    """Raises WorkbenchError where most calls failed. That a row is longer than the LM reads is no
    failure, unless it is all that is known.
    """
    earlier = [outcome for outcome in before or () for _ in range(repeats)]
    asked = [o for o in (*earlier, *found) if not o.capped]
    missing = [o for o in asked if o.score is None]
    failed = [o for o in missing if not o.unread]
    readable = len(asked) - (len(missing) - len(failed))
    most = len(failed) > readable / 2 and (before is None or len(asked) >= FEWEST)
    if most or (before is None and len(missing) == len(asked)):
        first = (failed or missing)[0].error
        told = f"{len(missing)} of {len(asked)} calls failed, so there is no score."
        raise WorkbenchError(f"{told} The first: {first}")


def race(
    program: dspy.Module,
    incumbent: Evaluation,
    examples: Sequence[dspy.Example],
    asking: Asking,
    errors: Callable[[float], float],
) -> Evaluation:
    """Evaluate a challenger block by block, and stop once it will hardly gain as much over the
    incumbent on all the examples as it must to be built on (optimize.stats.race).

    errors: how many standard errors that is for a program that takes so many LM calls an example.
    The examples must be in random order. With many calls in flight blocks are longer, since each
    ends with a wait for its slowest row.
    """
    so_far: tuple[Outcome, ...] = ()
    block = max(BLOCK, 2 * asking.threads)
    while len(so_far) < len(examples):
        seen = len(so_far)

        def shown(done: int, _: int, seen: int = seen) -> None:
            asking.progress(seen + done, len(examples))

        more, told = examples[seen : seen + block], replace(asking, progress=shown)
        found = evaluate(program, more, told, so_far)
        so_far = found.held_to(incumbent.scores).outcomes
        both = differences(incumbent.scores, [o.score for o in so_far])
        calls = sum(o.asked for o in so_far) / len(so_far) / asking.repeats
        if hopeless(both, len(examples) - (len(so_far) - len(both)), errors(calls)):
            break
    return Evaluation(so_far, asking.task.confusion)


def _outcomes(
    program: dspy.Module,
    jobs: Sequence[Job],
    asking: Asking,
    progress: Callable[[int], None],
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for outcome in asking.spread(partial(_outcome, program, asking), jobs, asking.threads):
        outcomes.append(outcome)
        progress(len(outcomes))
    return outcomes


def _outcome(program: dspy.Module, asking: Asking, job: Job) -> Outcome:
    start, (example, repeat) = time.perf_counter(), job
    with one_example(repeat) as spent, listening() as said:
        try:
            outcome = _scored(program, example, asking.task)
        except BudgetExhausted as error:
            if not asking.to_the_cap:
                raise
            outcome = Outcome(None, {}, error=f"not asked: {error}", capped=True)
    usage, seconds = spent.usage(), time.perf_counter() - start
    sent = (usage.asked - usage.cached) / usage.asked if usage.calls else 0
    return replace(
        outcome,
        said=tuple(said.texts),
        cut=said.cut,
        usage=usage,
        asked_anew=sent,
        seconds=seconds / (sent or 1),
        unread=_is_unread(outcome, usage),
        again=said.again,
    )


def _is_unread(outcome: Outcome, usage: Usage) -> bool:
    """Whether there is no answer for the one reason that the LM does not read so much."""
    told = outcome.score is not None or outcome.answer or outcome.capped
    return not told and 0 < usage.too_long == usage.failed


def _scored(program: dspy.Module, example: dspy.Example, task: Task) -> Outcome:
    try:
        with usercode.on_row(lambda: task.row_name(example)):
            prediction = program(**example.inputs())
    # the LM answered, and the program could not use it: that is the program's score
    except dspy.AdapterParseError as error:
        return Outcome(
            0.0,
            {"unparsable": str(error.lm_response)},
            "The answer could not be parsed.",
            UNPARSABLE,
        )
    except Exception as error:
        return Outcome(None, {}, error=usercode.told(error))
    sure = taken_confidence(prediction, task)
    answer = dict(prediction)
    with apart() as judging:
        try:
            score = task.score(example, prediction)
        # the metric asks an LM as well, and that call failed; its own errors are no `Exception`
        except usercode.LM_FAILURES as error:
            return Outcome(None, answer, error=usercode.told(error), scoring=judging.usage())
    scoring = judging.usage()
    return Outcome(score.value, answer, score.feedback, scoring=scoring, confidence=sure)


def taken_confidence(prediction: dspy.Prediction, task: Task) -> float | None:
    """The probability of all the tokens that an LM wrote, one after the other, as it told them with
    the prediction; None where it told none, or wrote more than the answer.

    They are taken out of the prediction, since a metric may compare all that is in it.
    """
    if LOGPROBS not in prediction or LOGPROBS in task.fields:
        return None
    told = prediction[LOGPROBS]
    del prediction[LOGPROBS]
    if set(prediction.keys()) - task.fields.keys():  # reasoning, say, whose words are no answer
        return None
    tokens = told["content"] if told else None
    return math.exp(math.fsum(token["logprob"] for token in tokens)) if tokens else None


def _together(repeats: Sequence[Outcome], outputs: Mapping[str, Any]) -> Outcome:
    """One example's outcomes as one: the mean of the scores there are, the first answer, all that
    was spent. outputs: what is an answer, by name; steps before it may be put otherwise.
    """
    if len(repeats) == 1:
        return repeats[0]
    scores = tuple(o.score for o in repeats if o.score is not None)
    mean = math.fsum(scores) / len(scores) if scores else None
    first = next((o for o in repeats if o.score is not None), repeats[0])
    usage = reduce(add, (o.usage for o in repeats))
    scoring = reduce(add, (o.scoring for o in repeats))
    said = [
        [o.answer[n] for n in outputs] if outputs.keys() <= o.answer.keys() else o.answer
        for o in (first, *repeats)
        if o.score is not None
    ]
    same = [one == said[0] for one in said[1:]]
    sure = first.confidence if first.confidence is not None or not same else sum(same) / len(same)
    anew = [o for o in repeats if o.asked_anew]
    return replace(
        first,
        score=mean,
        usage=usage,
        scoring=scoring,
        asked_anew=sum(o.asked_anew for o in anew),
        cut=max(o.cut for o in repeats),
        again=sum(o.again for o in repeats),
        seconds=fmean(o.seconds for o in anew or repeats),
        repeats=scores,
        confidence=sure,
    )
