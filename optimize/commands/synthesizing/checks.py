"""Which candidates are kept: five checks, the cheap ones first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import dspy

from optimize.climb.rungs.base import fits
from optimize.climb.rungs.demos import without_step_for_rows
from optimize.commands.session import Session
from optimize.data.gold import Unscorable, scores_alone
from optimize.data.inputs import input_text, input_texts
from optimize.data.read import read_row
from optimize.data.split import folded
from optimize.data.synthetic import faults
from optimize.errors import UserCodeError, WorkbenchError
from optimize.lm.endpoint import warm
from optimize.program.guide import Guide
from optimize.program.program import Program, student
from optimize.program.retrieval import Neighbours, Passages
from optimize.program.votes import HEAT
from optimize.program.writing import Draw, label_values
from optimize.scoring.evaluate import FEWEST, Asking, evaluate
from optimize.scoring.evaluation import Outcome

ASKED = 3  # times that a candidate is labelled; all must agree with its own outputs
DEMOS = (8, 4, 2, 0)  # rows of people that the labeller is shown, as far as it has room
PASSAGES = 3
SAMPLE = 200  # train rows whose gold answers show what the metric gives at least
TINY = 1e-9


@dataclass(frozen=True)
class Written:
    """A candidate. fault: the first check that it failed, by its name in the record; empty: none so
    far. row: once it is one.
    """

    draw: Draw
    answer: Mapping[str, Any]
    fault: str = ""
    row: dspy.Example | None = None
    gold: float = 1.0


def outcomes(program: Program, rows: Sequence[dspy.Example], asking: Asking) -> Sequence[Outcome]:
    """The outcome of each row; of a handful of rows all may fail, and nothing is known of them.

    Raises WorkbenchError where most of more rows fail.
    """
    try:
        return evaluate(program, rows, asking).outcomes
    except WorkbenchError as error:
        if len(rows) >= FEWEST:
            raise
        return [Outcome(None, {}, error=str(error))] * len(rows)


@dataclass(frozen=True)
class Checks:
    """learn: rows of people that the labeller is shown."""

    session: Session
    learn: tuple[dspy.Example, ...]

    def judged(self, candidates: Sequence[Written], known: Sequence[dspy.Example]) -> list[Written]:
        """The candidates, each with what is wrong with it. known: synthetic rows there are."""
        found = [self.valid(w) for w in candidates]
        task, splits = self.session.task, self.session.splits
        sound = [n for n, w in enumerate(found) if not w.fault]
        rows = [row for n in sound if (row := found[n].row)]
        for n, fault in zip(sound, faults(task, splits, known, rows), strict=True):
            found[n] = replace(found[n], fault=fault)
        found = [w if w.fault else self._scored(w) for w in found]
        return self._confirmed(found)

    def valid(self, found: Written) -> Written:
        """The candidate as a row of the signature, or invalid."""
        if found.fault:
            return found
        task, draw = self.session.task, found.draw
        given = dict(found.answer)
        if draw.label is not None:
            given[str(task.label)] = label_values(task)[draw.label]
        try:
            named = {name: given[name] for name in task.fields if name in given}
            row = read_row(task, named, f"candidate {draw.number}")
        except WorkbenchError:
            return replace(found, fault="invalid")
        # "Banking" for banking: confirmed by any labeller, and no message of anybody's
        bare = {folded(text) for text in input_texts(task, row)} & {folded(draw.label or "")}
        return replace(found, row=row, fault="invalid" if bare else "")

    @cached_property
    def _least(self) -> float | None:
        """The least that the metric gives a train row's own outputs; None: it cannot be told."""
        rows = self.session.splits.train[:SAMPLE]
        try:
            golds = [self._outputs(row) for row in rows]
            return min(s.value for s in scores_alone(self.session.task, rows, golds))
        except Unscorable:
            return None

    def _outputs(self, row: dspy.Example) -> dict[str, Any]:
        return {name: row[name] for name in self.session.task.signature.output_fields}

    def _scored(self, found: Written) -> Written:
        """The candidate with the metric's score of its own outputs, or refused."""
        if self._least is None or not found.row:
            return found
        try:
            (score,) = scores_alone(self.session.task, [found.row], [self._outputs(found.row)])
        except (Unscorable, UserCodeError):
            return replace(found, fault="refused")
        refused = score.value < self._least - TINY
        return replace(found, gold=score.value, fault="refused" if refused else "")

    def _confirmed(self, found: list[Written]) -> list[Written]:
        """Labelled by the teacher without their outputs in view, again while it agrees; keeping
        what a majority says would keep what the teacher itself is unsure of.
        """
        session = self.session
        if any(not w.fault for w in found):
            session.watch.started("labelling them again")
        for number in range(ASKED):
            left = [n for n, w in enumerate(found) if not w.fault]
            rows = [row for n in left if (row := found[n].row)]
            if not rows:
                break
            lm = warm(session.teacher, HEAT) if number else session.teacher
            asking = Asking(
                session.task, session.config.in_flight, 1, session.watch.scored, anew=number
            )
            with dspy.context(lm=lm):
                found_again = outcomes(self._labeller, rows, asking)
            for n, o in zip(left, found_again, strict=True):
                if o.score is None:
                    found[n] = replace(found[n], fault="failed")
                elif o.score < found[n].gold - TINY:
                    found[n] = replace(found[n], fault="unconfirmed")
        return found

    @cached_property
    def _labeller(self) -> Program:
        """The task's program as well as it can be set up without a climb: with the guide, the rows
        of people nearest to the input, and passages where there is a corpus.
        """
        task, rows = self.session.task, tuple(dict(e) for e in self.learn)
        program = student(task)
        program.format = "json"
        program.guide = Guide(task.guide) if task.guide else None
        if task.corpus and isinstance(program.inner, dspy.Predict | dspy.ChainOfThought):
            program.use_passages(Passages(PASSAGES, task.corpus))
        texts = tuple(input_text(task, row) for row in rows)
        for k in () if without_step_for_rows(task) else DEMOS:
            program.neighbours = Neighbours(k, texts, rows) if k else None
            with dspy.context(lm=self.session.teacher):
                if fits(program, self.learn[:SAMPLE]):
                    break
        return program
