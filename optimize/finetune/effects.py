"""What the tuning changed beside the score: slices, classes, confidence, invented ids, and what an
answer costs. Asks no LM.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import dspy
from pydantic import Field

from optimize.data.rows import Splits
from optimize.files import to_json
from optimize.scoring.calibration import (
    ConfidenceRecord,
    RangeRecord,
    brier_change,
    confidence,
)
from optimize.scoring.corpus_use import Knowledge
from optimize.scoring.evaluation import Evaluation
from optimize.scoring.failures import confusions
from optimize.scoring.slices import SliceRecord, by_slice, slices
from optimize.stats.intervals import LEVEL, Interval, z
from optimize.stats.records import Record, ScoreRecord
from optimize.task import Task

Pair = tuple[Evaluation, Evaluation]  # of the best prompt program, and of the tuned one


class ClassesRecord(Record):
    """Accuracy, and precision, recall and F1 as means over the labels.

    An unparsable answer is right for none.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    confusions: dict[str, int] = Field(description="label → answer, the most frequent first")


class PriceRecord(Record):
    """What an answer takes on average, as measured; a right one: the same for each point of the
    score.

    usd: null where the LM's price is not known. seconds: with as many calls in flight as the run
    had.
    """

    tokens_in: float
    tokens_out: float
    seconds: float
    usd: float | None
    seconds_right: float | None = Field(description="null where no answer was right")
    usd_right: float | None


class OodRecord(Record):
    """Rows out of the distribution, asked of the best prompt program and of the tuned one.

    score: on those that have a right answer; an answer to any other row scores 0. sure: the mean
    confidence. told_apart: the chance that a test row is answered with more confidence than one of
    these (AUROC; 0.5: the LM does not notice).
    """

    n: int
    score_before: float
    score_after: float
    sure_before: float | None
    sure_after: float | None
    told_apart_before: ScoreRecord | None
    told_apart_after: ScoreRecord | None


class EffectsRecord(Record):
    """Best prompt program (before) against tuned program (after), on the test rows."""

    slices: list[SliceRecord] = Field(description="the worst gain first")
    classes_before: ClassesRecord | None = Field(
        None, description="null where the output is no label"
    )
    classes_after: ClassesRecord | None = None
    confidence_before: ConfidenceRecord | None = Field(
        None, description="null where the LM does not tell how sure it is"
    )
    confidence_after: ConfidenceRecord | None = None
    brier_change: RangeRecord | None = Field(
        default=None, description="change of the Brier score, paired; below 0 is better"
    )
    invented_before: float | None = Field(
        None,
        description="share of invented ids; null where the corpus has none or no answer names one",
    )
    invented_after: float | None = None
    ood: OodRecord | None = Field(None, description="null without ood.jsonl")
    price_before: PriceRecord | None = Field(None, description="null where the cache answered all")
    price_after: PriceRecord | None = None
    train_seconds: float | None = Field(
        description="what the tuning took; null where another trainer did it"
    )
    in_flight: int = Field(
        description="calls at once, which share the machine: an answer keeps it busy for its "
        "seconds divided by them"
    )
    pays_after: int | None = Field(
        description="answers after which the seconds saved make up for the training; null: none "
        "are saved, or what it took is unknown"
    )


def effects(
    task: Task,
    splits: Splits,
    test: Pair,
    ood: Pair | None,
    train_seconds: float | None,
    in_flight: int,
) -> EffectsRecord:
    """Of evaluations of all test rows, and of the ood rows, before and after.

    train_seconds: what the tuning took, set-up included; None: unknown.
    """
    rows, (before, after), known = splits.test, test, Knowledge(task)
    costs = price(before), price(after)
    saved = costs[0].seconds - costs[1].seconds if costs[0] and costs[1] else 0.0
    pays = train_seconds is not None and saved > 0
    return EffectsRecord(
        slices=by_slice(slices(task, splits.train, rows), before.scores, after.scores),
        classes_before=classes(task, rows, before),
        classes_after=classes(task, rows, after),
        confidence_before=confidence(before),
        confidence_after=confidence(after),
        brier_change=brier_change(before, after),
        invented_before=known.invented_share(before.outcomes),
        invented_after=known.invented_share(after.outcomes),
        ood=_ood(test, ood) if ood else None,
        price_before=costs[0],
        price_after=costs[1],
        train_seconds=None if train_seconds is None else round(train_seconds, 1),
        in_flight=in_flight,
        pays_after=round((train_seconds or 0.0) * in_flight / saved) if pays else None,
    )


def _ood(test: Pair, ood: Pair) -> OodRecord:
    sure = [fmean(known) if (known := _sure(found)) else None for found in ood]
    apart = [
        _told_apart(_sure(inside), _sure(outside))
        for inside, outside in zip(test, ood, strict=True)
    ]
    return OodRecord(
        n=len(ood[0].outcomes),
        score_before=ood[0].interval.mean,
        score_after=ood[1].interval.mean,
        sure_before=sure[0],
        sure_after=sure[1],
        told_apart_before=apart[0],
        told_apart_after=apart[1],
    )


def _sure(found: Evaluation) -> list[float]:
    return [o.confidence for o in found.outcomes if o.confidence is not None]


def _told_apart(inside: Sequence[float], outside: Sequence[float]) -> ScoreRecord | None:
    """AUROC with the interval of Hanley & McNeil (1982), around the area with one more row on the
    smaller side that is told by a coin: where all are told apart theirs would claim certainty.
    """
    from sklearn.metrics import roc_auc_score

    if not inside or not outside:
        return None
    m, n = len(inside), len(outside)
    area = float(roc_auc_score([1] * m + [0] * n, [*inside, *outside]))
    fewer = min(m, n)
    middle = (area * fewer + 0.5) / (fewer + 1)
    one, two = middle / (2 - middle), 2 * middle**2 / (1 + middle)
    spread = middle * (1 - middle) + (m - 1) * (one - middle**2) + (n - 1) * (two - middle**2)
    half = z(LEVEL) * math.sqrt(max(0.0, spread) / (m * n))
    low, high = max(0.0, min(area, middle - half)), min(1.0, max(area, middle + half))
    return ScoreRecord.of(Interval(area, low, high, m + n))


def classes(task: Task, rows: Sequence[dspy.Example], found: Evaluation) -> ClassesRecord | None:
    """scikit-learn's figures over the rows with an answer; None where the output is no label."""
    if not (label := task.label):
        return None
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    pairs = [
        (to_json(e[label]), to_json(o.answer.get(label)))
        for e, o in zip(rows, found.outcomes, strict=True)
        if o.score is not None
    ]
    gold, answers = (list(side) for side in zip(*pairs, strict=True))
    figures = precision_recall_fscore_support(
        gold, answers, labels=sorted(set(gold)), average="macro", zero_division=0
    )
    precision, recall, f1 = (float(figure) for figure in figures[:3])
    mixed = confusions(task, rows, found.outcomes)
    return ClassesRecord(
        accuracy=float(accuracy_score(gold, answers)),
        precision=precision,
        recall=recall,
        f1=f1,
        confusions=mixed,
    )


def price(found: Evaluation) -> PriceRecord | None:
    """Means over the answers that were asked anew: what the cache answered says nothing. None where
    that is all.
    """
    asked = [o for o in found.outcomes if o.asked_anew]
    if not asked:
        return None
    n = sum(o.asked_anew for o in asked)
    points = sum((o.score or 0.0) * o.asked_anew for o in asked)
    usd = [o.usage.cost_usd for o in asked]
    total = None if any(cost is None for cost in usd) else sum(cost or 0.0 for cost in usd)
    seconds = sum(o.seconds * o.asked_anew for o in asked)
    return PriceRecord(
        tokens_in=sum(o.usage.tokens_in for o in asked) / n,
        tokens_out=sum(o.usage.tokens_out for o in asked) / n,
        seconds=seconds / n,
        usd=None if total is None else total / n,
        seconds_right=seconds / points if points else None,
        usd_right=total / points if points and total is not None else None,
    )
