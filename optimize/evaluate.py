"""Score a program on examples, one by one. Knows neither optimizers nor splits."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from optimize.errors import WorkbenchError
from optimize.stats import Interval, mean_interval, paired_gain
from optimize.task import Task

Progress = Callable[[int, int], None]
BLOCKS = 3  # looks at a race
SMALLEST_BLOCK = 20


@dataclass(frozen=True)
class Outcome:
    """One example's result. score None: the call failed, so nothing is known; an unparsable answer scores 0."""

    score: float | None
    answer: dict[str, Any]
    feedback: str = ""
    error: str = ""


@dataclass(frozen=True)
class Evaluation:
    """Outcomes in devset order: of all examples, or of the first ones when a race was stopped."""

    outcomes: tuple[Outcome, ...]

    @property
    def scores(self) -> tuple[float | None, ...]:
        return tuple(o.score for o in self.outcomes)

    @property
    def interval(self) -> Interval:
        return mean_interval([s for s in self.scores if s is not None])

    @property
    def missing(self) -> int:
        return sum(s is None for s in self.scores)


def evaluate(
    program: dspy.Module, examples: Sequence[dspy.Example], task: Task, threads: int, progress: Progress = lambda done, total: None
) -> Evaluation:
    """The program's outcomes on the examples. Raises WorkbenchError when most calls fail: that is no evaluation."""
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(threads) as pool:
        work = [pool.submit(contextvars.copy_context().run, _outcome, program, e, task) for e in examples]
        try:
            for future in work:
                outcomes.append(future.result())
                progress(len(outcomes), len(work))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    evaluation = Evaluation(tuple(outcomes))
    if evaluation.missing > len(outcomes) / 2:
        first = next(o.error for o in outcomes if o.score is None)
        raise WorkbenchError(f"{evaluation.missing} of {len(outcomes)} calls failed, so there is no score. The first: {first}")
    return evaluation


def race(
    program: dspy.Module,
    incumbent: Evaluation,
    examples: Sequence[dspy.Example],
    task: Task,
    threads: int,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Evaluate a challenger in blocks, and stop once the upper end of its paired gain is below zero."""
    size = max(SMALLEST_BLOCK, -(-len(examples) // BLOCKS))
    so_far: tuple[Outcome, ...] = ()
    while len(so_far) < len(examples):
        seen = len(so_far)

        def shown(done: int, _: int, seen: int = seen) -> None:
            progress(seen + done, len(examples))

        block = evaluate(program, examples[seen : seen + size], task, threads, shown)
        so_far += block.outcomes
        if paired_gain(incumbent.scores, [o.score for o in so_far]).high < 0:
            break
    return Evaluation(so_far)


def _outcome(program: dspy.Module, example: dspy.Example, task: Task) -> Outcome:
    try:
        prediction = program(**example.inputs())
    except AdapterParseError as error:  # the LM answered, and the program could not use it: that is the program's score
        return Outcome(0.0, {"unparsable": str(error.lm_response)}, "The answer could not be parsed.", "unparsable answer")
    except Exception as error:
        return Outcome(None, {}, error=f"{type(error).__name__}: {str(error).strip()[:300]}")
    score = task.score(example, prediction)
    return Outcome(score.value, dict(prediction), score.feedback)


def float_metric(task: Task) -> Callable[..., float | bool]:
    """The metric as DSPy's optimizers want it: a float, or, when a demo is bootstrapped (a trace is given), a bool."""

    def metric(example: dspy.Example, prediction: dspy.Prediction, trace: object = None) -> float | bool:
        value = task.score(example, prediction).value
        return value >= 1.0 if trace is not None else value

    return metric


def feedback_metric(task: Task) -> Callable[..., dspy.Prediction]:
    """The metric in GEPA's five-argument form: the score with its feedback."""

    def metric(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> dspy.Prediction:
        score = task.score(gold, pred)
        return dspy.Prediction(score=score.value, feedback=score.feedback or f"This scored {score.value:.2f} of 1.")

    return metric
