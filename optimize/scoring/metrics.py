"""A task's metric in the forms that DSPy's optimizers want."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dspy

from optimize.task import Score, Task


def scoring_labelled(task: Task) -> Task:
    """The task with a metric that scores rows without outputs 0: no answer to them is known to be
    right.
    """
    outputs = task.signature.output_fields.keys()

    def scored(row: dspy.Example, answer: dspy.Prediction) -> Score | float:
        if outputs <= set(row.keys()):
            return task.score(row, answer)
        return Score(0.0, "No answer to this is known to be right.")

    return replace(task, metric=scored)


def float_metric(task: Task) -> Callable[..., float | bool]:
    """The metric as DSPy's optimizers want it: a float, or, when a demo is bootstrapped (a trace is
    given), a bool. No prediction, which is SIMBA's word for an answer that cannot be parsed,
    scores 0.
    """

    def metric(
        example: dspy.Example, prediction: dspy.Prediction | None, trace: object = None
    ) -> float | bool:
        value = task.score(example, prediction).value if prediction is not None else 0.0
        return value >= 1.0 if trace is not None else value

    return metric


def feedback_metric(task: Task) -> Callable[..., dspy.Prediction]:
    """The metric in GEPA's five-argument form: the score with its feedback."""

    def metric(
        gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None
    ) -> dspy.Prediction:
        score = task.score(gold, pred)
        return dspy.Prediction(
            score=score.value, feedback=score.feedback or f"This scored {score.value:.2f} of 1."
        )

    return metric
