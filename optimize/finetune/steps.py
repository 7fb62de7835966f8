"""The steps of a program: which of them its rows label, and what the others said in runs that came
out right.

A row labels what the program answers, not what it says to itself on the way (ChainOfThought's
reasoning, a draft). An LM is taught that from its own runs that scored 1.0 (rejection sampling:
Zelikman et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dspy
from pydantic import Field

from optimize.data.inputs import input_text
from optimize.program.program import Program
from optimize.program.retrieval import PASSAGES
from optimize.scoring.evaluate import Asking, evaluate
from optimize.stats.records import Record


@dataclass(frozen=True)
class Call:
    """What one predictor, by its place among the program's, was given and answered."""

    predictor: int
    inputs: dict[str, Any]
    outputs: dict[str, Any]


Calls = tuple[Call, ...]  # of one row, in order; empty where its answer was not right


class TraceCount(Record):
    """Rows from whose right answers every step can be taught."""

    train: int = 0
    val: int = 0
    problem: str = Field(
        default="", description="why they could not be counted; empty where they were"
    )


@dataclass(frozen=True)
class Traces:
    """The calls behind each train and each val row, in the rows' order."""

    train: tuple[Calls, ...]
    val: tuple[Calls, ...]


def labelled(program: Program, predictor: dspy.Predict) -> bool:
    """Whether a row holds all that the predictor is given and answers."""
    task, signature = program.task.signature, predictor.signature
    return set(signature.output_fields) <= set(task.output_fields) and set(
        signature.input_fields
    ) - {PASSAGES} <= set(task.input_fields)


def unlabelled(program: Program) -> list[str]:
    """The names of the predictors that only traces can teach, as the task's module names them."""
    return [
        name.removeprefix("inner.").removeprefix("inner") or "the program"
        for name, predictor in program.named_predictors()
        if not labelled(program, predictor)
    ]


def right_calls(
    program: Program, examples: Sequence[dspy.Example], asking: Asking
) -> tuple[Calls, ...]:
    """Ask the program for each example, and keep the calls of the answers that score 1.0. Of a
    program that votes its first answer alone: the others may have come to theirs by wrong steps.

    Raises what `evaluate` raises.
    """
    single = program.deepcopy()
    single.votes = 0
    recorder = _Recorder(single)
    outcomes = evaluate(recorder, examples, asking).outcomes
    return tuple(
        recorder.calls.get(_key(program, e.inputs()), ()) if o.score == 1.0 else ()
        for e, o in zip(examples, outcomes, strict=True)
    )


def count(program: Program, traces: Traces) -> TraceCount:
    """Rows that show every step which only traces can teach; the scarcest step counts."""
    needed = {n for n, p in enumerate(program.predictors()) if not labelled(program, p)}

    def rows(side: Sequence[Calls]) -> int:
        shown = [{call.predictor for call in calls} for calls in side]
        return min((sum(n in seen for seen in shown) for n in needed), default=0)

    return TraceCount(train=rows(traces.train), val=rows(traces.val))


class _Recorder(dspy.Module):
    """A program that writes down the calls behind its last answer to each input."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program
        self.places = {id(p): n for n, p in enumerate(program.predictors())}
        self.calls: dict[str, Calls] = {}

    def forward(self, **inputs: Any) -> Any:
        seen: list[Any] = []
        with dspy.context(trace=seen):
            answer = self.program(**inputs)
        self.calls[_key(self.program, inputs)] = tuple(
            Call(self.places[id(predictor)], dict(given), dict(said))
            for predictor, given, said in seen
            if id(predictor) in self.places and set(predictor.signature.output_fields) <= set(said)
        )
        return answer


def _key(program: Program, inputs: Any) -> str:
    return input_text(program.task, inputs)
