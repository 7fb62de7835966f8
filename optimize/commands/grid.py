"""Several LoRAs on the same rows, of which val rows choose one."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize import lm as lms
from optimize.climb.rungs.base import least_calls
from optimize.climb.setup import CLOCK
from optimize.commands.session import Session
from optimize.finetune.epoch import Epoch
from optimize.finetune.lora.needs import Needs, duration
from optimize.finetune.lora.recipe import GridPoint, GridRecord, Recipe, choose, grid
from optimize.finetune.lora.train import curve
from optimize.finetune.lora.trainings import Trainings
from optimize.lm import embedded
from optimize.program.program import Program
from optimize.report.record import score_record
from optimize.scoring.evaluate import evaluate
from optimize.scoring.evaluation import Evaluation
from optimize.stats.winner import corrected_best
from optimize.store.write import Run


@dataclass(frozen=True)
class Point:
    """A LoRA of the grid in its program, on val; a skipped one has why. expected: seconds of its
    training as planned, 0 where it was trained before. took: seconds of all that it took now.
    """

    recipe: Recipe
    tuned: str = ""
    evaluation: Evaluation | None = None
    epochs: tuple[Epoch, ...] = ()
    skipped: str = ""
    expected: float = 0.0
    took: float = 0.0


@dataclass(frozen=True)
class Chosen:
    """The LoRA that val chose. seconds: of all trainings of the grid."""

    tuned: str
    epochs: tuple[Epoch, ...]
    seconds: float
    record: GridRecord


def grid_calls(session: Session) -> int:
    """LM calls on val beside those that the chosen one takes anyway."""
    trained = session.config.grid if session.config.finetune == "lora" else 1
    return (trained - 1) * val_calls(session)


def chosen(
    session: Session,
    tracked: Run,
    short: Program,
    trainings: Trainings,
    made_of: Mapping[str, Any],
    after: int,
) -> Chosen:
    """The LoRA that does best on val, or a smaller one that may be as good.

    short: the program that they are trained for. made_of: as a training's record has it. after: LM
    calls to leave, beside those that the chosen one takes on val. Trains as many as calls and
    minutes allow, the default first. The same command goes on after a stop: adapters that are there
    are not trained again, and val answers are cached.
    """
    points: list[Point] = []
    recipes = grid(session.config.grid, trainings.own.rate)
    _said(session, trainings, recipes)
    for number, recipe in enumerate(recipes, 1):
        why = _lacking(session, trainings, recipe, points, after)
        if why:
            session.watch.noted(f"Not trained: {recipe}. {why}")
            points.append(Point(recipe, skipped=why))
            continue
        session.watch.started(f"lora {number} of {len(recipes)}: {recipe}")
        points.append(_point(session, tracked, short, trainings, recipe, made_of))
    return _best([point for point in points if point.evaluation], points)


def _said(session: Session, trainings: Trainings, recipes: Sequence[Recipe]) -> None:
    """What the whole grid takes, before its first training."""
    missing = [recipe for recipe in recipes if not trainings.target(recipe).is_file()]
    calls = len(recipes) * val_calls(session)
    asked = f"{calls} LM calls on val, as far as they are not cached"
    if takes := calls * 60 * session.meter.average()[2]:
        asked += f" (at most {duration(takes)})"
    told = f"A grid of {len(recipes)} LoRA trainings, of which val chooses one"
    if not missing:
        session.watch.noted(f"{told}: all are trained already; {asked}.")
        return
    fitting = [recipe for recipe in missing if not trainings.lacking(recipe)]
    if not fitting:
        session.watch.noted(f"{told}: what is not trained yet would not fit into memory; {asked}.")
        return
    with session.meter.idle():
        trainings.measure(fitting[0])
    found = [trainings.needs(recipe) for recipe in fitting]
    memory, disk = max(n.memory for n in found), max(n.disk for n in found)
    most, left = Needs(memory, disk, sum(n.seconds for n in found)), _seconds_left(session)
    aside = {
        "are trained already": len(recipes) - len(missing),
        "would not fit into the memory that is free": len(missing) - len(found),
    }
    told += "".join(f", {many} {what}" for what, many in aside.items() if many)
    short = f" --max-minutes leaves {duration(left)}: as many are trained as fit."
    ending = short if left < most.seconds else ""
    session.watch.noted(f"{told}: {most} for the trainings; {asked}.{ending}")


def _lacking(
    session: Session,
    trainings: Trainings,
    recipe: Recipe,
    points: Sequence[Point],
    after: int,
) -> str:
    """Why this one is not trained; empty where calls, minutes and memory allow it. The first one
    is: without it there is no tuned LM.
    """
    if not any(point.evaluation for point in points):
        return ""
    need, usage = val_calls(session), session.meter.usage()
    calls = session.meter.max_calls - max(usage.different, usage.calls) - after
    if calls < need:
        return f"Its val rows take {need} LM calls, {max(0, calls)} are left (--max-calls)."
    if trainings.target(recipe).is_file():
        return ""
    if lacking := trainings.lacking(recipe):
        return lacking
    kept = CLOCK * 60 * after * session.meter.average()[2]
    left, takes = _seconds_left(session) - kept, _takes(trainings, recipe, points)
    if left < takes:
        return (
            f"It takes about {duration(takes)}, {duration(max(0.0, left))} are left before the "
            "rest must begin (--max-minutes)."
        )
    return ""


def _takes(trainings: Trainings, recipe: Recipe, points: Sequence[Point]) -> float:
    """Seconds, if what was said beforehand is wrong by as much as it was for those trained now."""
    now = [point for point in points if point.expected]
    said = sum(point.expected for point in now)
    return trainings.needs(recipe).seconds * (sum(p.took for p in now) / said if said else 1.0)


def _point(
    session: Session,
    tracked: Run,
    short: Program,
    trainings: Trainings,
    recipe: Recipe,
    made_of: Mapping[str, Any],
) -> Point:
    """Trained, and asked for the val rows; a run of its own on record."""
    start, known = time.perf_counter(), trainings.target(recipe).is_file()
    with tracked.training("lora", {**made_of, **recipe.params}) as log:
        with session.meter.idle():
            tuned = trainings.train(recipe, log)
        epochs = tuple(curve(tuned))
        log.trained(tuned, epochs)
        session.watch.started(f"lora with {recipe}, on val")
        program = short.deepcopy()
        program.tuned = tuned
        adapted = lms.adapted_lm(session.config, session.meter, tuned, session.task.max_tokens)
        program.lm = lms.telling(adapted)
        evaluation = evaluate(program, session.splits.val, session.asking)
        log.judged(score_record(evaluation))
    embedded.stop(Path(tuned))
    expected = 0.0 if known else trainings.needs(recipe).seconds
    took = time.perf_counter() - start
    return Point(recipe, tuned, evaluation, epochs, expected=expected, took=took)


def _best(tried: Sequence[Point], points: Sequence[Point]) -> Chosen:
    evaluations = [point.evaluation for point in tried if point.evaluation]
    scores = [evaluation.scores for evaluation in evaluations]
    number = choose(scores, [Path(point.tuned).stat().st_size for point in tried])
    best = max(range(len(tried)), key=lambda n: evaluations[n].interval.mean)
    others = [one for n, one in enumerate(scores) if n != best]
    found = tried[number]
    record = GridRecord(
        points=[_record(point, point is found) for point in points],
        optimism=corrected_best(scores[best], others).optimism,
    )
    seconds = sum(_seconds(point) for point in tried)
    return Chosen(found.tuned, found.epochs, seconds, record)


def _record(point: Point, is_chosen: bool) -> GridPoint:
    return GridPoint(
        rank=point.recipe.rank,
        share=point.recipe.share,
        learning_rate=point.recipe.rate,
        val=score_record(point.evaluation) if point.evaluation else None,
        size=Path(point.tuned).stat().st_size if point.tuned else 0,
        seconds=round(_seconds(point), 1),
        chosen=is_chosen,
        skipped=point.skipped,
    )


def _seconds(point: Point) -> float:
    return sum(epoch.seconds for epoch in point.epochs)


def _seconds_left(session: Session) -> float:
    if not session.config.max_minutes:
        return math.inf
    return session.config.max_minutes * 60 - (time.perf_counter() - session.start)


def val_calls(session: Session) -> int:
    return session.config.repeats * least_calls(session.task) * len(session.splits.val)
