"""What the tuning changed beside the score: slices, classes, the gap to train rows, and what an answer costs. Asks no LM."""

from __future__ import annotations

from collections.abc import Sequence

import dspy
from pydantic import Field

from optimize.devset import Splits
from optimize.evaluate import Evaluation
from optimize.files import to_json
from optimize.records import Record
from optimize.slices import SliceRecord, by_slice, slices
from optimize.task import Task


class ClassesRecord(Record):
    """Accuracy, and precision, recall and F1 as means over the labels. An unparsable answer is right for none."""

    accuracy: float
    precision: float
    recall: float
    f1: float


class PriceRecord(Record):
    """What an answer takes on average, as measured; a right one: the same for each point of the score.

    usd: null where the LM's price is not known. seconds: with as many calls in flight as the run had.
    """

    tokens_in: float
    tokens_out: float
    seconds: float
    usd: float | None
    seconds_right: float | None = Field(description="null where no answer was right")
    usd_right: float | None


class EffectsRecord(Record):
    """Best prompt program (before) against tuned program (after), on the test rows."""

    slices: list[SliceRecord] = Field(description="the worst gain first")
    classes_before: ClassesRecord | None = Field(None, description="null where the output is no label")
    classes_after: ClassesRecord | None = None
    price_before: PriceRecord | None = Field(None, description="null where the cache answered all")
    price_after: PriceRecord | None = None
    train_seconds: float
    pays_after: int | None = Field(description="answers after which the seconds saved make up for the training; null: none are saved")


def effects(task: Task, splits: Splits, before: Evaluation, after: Evaluation, train_seconds: float, in_flight: int) -> EffectsRecord:
    """Of two evaluations of all test rows. train_seconds: what the tuning took, set-up included. in_flight: calls at once, which share
    the machine: an answer keeps it busy for its seconds divided by them.
    """
    rows = splits.test
    costs = price(before), price(after)
    saved = costs[0].seconds - costs[1].seconds if costs[0] and costs[1] else 0.0
    return EffectsRecord(
        slices=by_slice(slices(task, splits.train, rows), before.scores, after.scores),
        classes_before=classes(task, rows, before),
        classes_after=classes(task, rows, after),
        price_before=costs[0],
        price_after=costs[1],
        train_seconds=round(train_seconds, 1),
        pays_after=round(train_seconds * in_flight / saved) if saved > 0 else None,
    )


def classes(task: Task, rows: Sequence[dspy.Example], found: Evaluation) -> ClassesRecord | None:
    """scikit-learn's figures over the rows with an answer; None where the output is no label."""
    if not (label := task.label):
        return None
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    pairs = [(to_json(e[label]), to_json(o.answer.get(label))) for e, o in zip(rows, found.outcomes, strict=True) if o.score is not None]
    gold, answers = (list(side) for side in zip(*pairs, strict=True))
    figures = precision_recall_fscore_support(gold, answers, labels=sorted(set(gold)), average="macro", zero_division=0)
    precision, recall, f1 = (float(figure) for figure in figures[:3])
    return ClassesRecord(accuracy=float(accuracy_score(gold, answers)), precision=precision, recall=recall, f1=f1)


def price(found: Evaluation) -> PriceRecord | None:
    """Means over the rows that were asked anew: what the cache answered says nothing. None where that is all."""
    asked = [o for o in found.outcomes if o.usage.calls]
    if not asked:
        return None
    n, points = len(asked), sum(o.score or 0.0 for o in asked)
    usd = [o.usage.cost_usd for o in asked]
    total = None if any(cost is None for cost in usd) else sum(cost or 0.0 for cost in usd)
    seconds = sum(o.seconds for o in asked)
    return PriceRecord(
        tokens_in=sum(o.usage.tokens_in for o in asked) / n,
        tokens_out=sum(o.usage.tokens_out for o in asked) / n,
        seconds=seconds / n,
        usd=None if total is None else total / n,
        seconds_right=seconds / points if points else None,
        usd_right=total / points if points and total is not None else None,
    )
