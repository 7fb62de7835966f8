"""What every rung is given, and how it declines. A rung never sees val or test rows."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dspy

from optimize.errors import WorkbenchError
from optimize.evaluate import Evaluation, evaluate
from optimize.lm.meter import MeteredLM
from optimize.program import Program, render
from optimize.task import Task

SEARCH = 24  # train rows a rung holds back to compare its own candidates, at most a third of train: enough for a handful

PROMPT_CHARS = 5000  # demos and passages must fit a small LM's context: 2048 tokens, of JSON at worst, with the answer
BOOTSTRAP = 24  # train rows a bootstrapping teacher may be asked on for one demo set; a weak one is asked on all of them


class Skip(Exception):
    """This rung cannot help this task; the message says why."""


class Starved(Skip):
    """This rung would need more LM calls than its share."""


@dataclass(frozen=True)
class Context:
    """What a rung may use. budget: the LM calls it may make; it is stopped hard some way beyond.

    calls: how many calls the incumbent makes for one example (a format that does not parse asks twice).
    """

    task: Task
    train: tuple[dspy.Example, ...]
    teacher: MeteredLM
    budget: int
    calls: float
    threads: int
    seed: int

    def halves(self) -> tuple[list[dspy.Example], list[dspy.Example]]:
        """(rows to learn from, rows to compare candidates on): the same for every rung, so that their calls are shared."""
        rows = list(self.train)
        random.Random(self.seed).shuffle(rows)
        size = min(SEARCH, len(rows) // 3)
        return rows[size:], rows[:size]

    def affordable(self, examples_each: int, least: int, most: int, overhead: int = 0) -> int:
        """How many passes over `examples_each` examples fit the budget, at most `most`; raises Starved below `least`.

        overhead: examples that are answered once, whatever the number of passes.
        """
        fits = int((self.budget / self.calls - overhead) // max(1, examples_each))
        if fits < least:
            raise Starved(f"needs {math.ceil((overhead + least * examples_each) * self.calls)} LM calls, its share is {self.budget}")
        return min(most, fits)

    def compare(self, candidates: Sequence[Program], rows: list[dspy.Example]) -> list[tuple[Program, Evaluation]]:
        """The better half of the candidates, each with its evaluation on train rows held back, best first look first.

        Successive halving (Karnin et al., 2013) in two rounds: all candidates answer the first third of the rows,
        the better half (the earlier ones on a tie) the rest as well. For choosing inside a rung only.
        """
        first = math.ceil(len(rows) / 3)
        looks: list[tuple[Program, Evaluation]] = []
        failures: list[WorkbenchError] = []
        for candidate in candidates:
            try:
                looks.append((candidate, evaluate(candidate, rows[:first], self.task, self.threads)))
            except WorkbenchError as error:  # most of its calls fail; another candidate's may not
                failures.append(error)
        if not looks:
            raise failures[0]
        looks.sort(key=lambda look: -look[1].interval.mean)
        kept = looks[: math.ceil(len(looks) / 2)]
        rest = [evaluate(candidate, rows[first:], self.task, self.threads) for candidate, _ in kept]
        return [(candidate, Evaluation(look.outcomes + more.outcomes)) for (candidate, look), more in zip(kept, rest, strict=True)]

    def best(self, candidates: Sequence[Program], rows: list[dspy.Example]) -> Program:
        """The candidate with the best mean score on train rows held back."""
        return candidates[0] if len(candidates) == 1 else max(self.compare(candidates, rows), key=lambda c: c[1].interval.mean)[0]


def fits(program: Program, rows: Sequence[dspy.Example]) -> bool:
    """Whether the whole prompt stays within PROMPT_CHARS for each of these rows."""
    return all(len(render(program, row)) <= PROMPT_CHARS for row in rows)


def fitting(candidates: list[Program], rows: Sequence[dspy.Example]) -> list[Program]:
    """The candidates that fit; the first one where none does."""
    return [candidate for candidate in candidates if fits(candidate, rows)] or candidates[:1]


def fresh(student: Program) -> Program:
    """A copy an optimizer may compile: DSPy refuses a module that was compiled before."""
    copy: Program = student.deepcopy()
    copy._compiled = False
    return copy


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """DSPy's optimizers print and log their progress; the climb has its own."""
    loggers = [logging.getLogger(name) for name in ("dspy", "optuna", "gepa")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
