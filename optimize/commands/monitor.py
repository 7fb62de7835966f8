"""The use case `monitor`: is the best program still right on rows that are collected today?"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dspy

from optimize import lm as lms
from optimize.climb.holding import Labelled, labelled, watched
from optimize.climb.verdict import COVERAGE
from optimize.commands.drift import LEAST, Rows, drift
from optimize.commands.in_use import InUse, Recorded, check_cap, cost
from optimize.commands.lock import task_lock
from optimize.commands.session import Session, tracked_run
from optimize.config import RunConfig, command_line
from optimize.data.inputs import input_texts
from optimize.data.read import is_labelled, read_new
from optimize.errors import WorkbenchError
from optimize.files import to_text
from optimize.report.monitor import LabelChange, MonitorRecord
from optimize.report.record import score_record
from optimize.report.watched import monitor_plan
from optimize.scoring.calibration import RangeRecord
from optimize.scoring.evaluate import evaluate
from optimize.scoring.evaluation import Evaluation, Outcome
from optimize.scoring.metrics import scoring_labelled
from optimize.stats.intervals import LEVEL, Interval, known, mean_interval
from optimize.stats.judge import corrected, of_people
from optimize.stats.records import ScoreRecord
from optimize.stats.two_samples import drop_shown, mean_change
from optimize.task import PLACE, Task

DROP = 0.1  # of the score that the rows named for labelling are to show
MOST_TO_LABEL = 200


@dataclass(frozen=True)
class New:
    """Newly collected rows. known: inputs that the devset has already. left_out: how many rows
    these were. labelled: how many have labels. asked: those that the LM answers, the labelled ones
    first.
    """

    rows: Rows
    known: frozenset[tuple[str, ...]]
    left_out: int
    labelled: int
    asked: Rows


def monitor(found: InUse, config: RunConfig, path: Path, most: int) -> MonitorRecord:
    """most: rows that the LM is asked at most, those with labels before a random sample of the
    others.
    """
    with task_lock(found.session, "monitor") as session:
        found = found.at_work(session)
        session = found.session
        if config.lm != found.lm:
            session.watch.noted(
                f"The score on record is that of LM {found.lm}: what follows of scores compares "
                "LMs as well as rows."
            )
        new = _new(session, path, most)
        recorded = found.recorded()  # what the new rows are held against, before a call
        record = _record(found, new, recorded, _asked(found, config, new))
        with tracked_run(replace(session, config=config), "monitor") as tracked:
            tracked.monitored(record)
        return record


def _new(session: Session, path: Path, most: int) -> New:
    task = session.task
    seen = {input_texts(task, e) for side in session.splits.sides().values() for e in side}
    rows = [row for _, row in read_new(task, path)]
    fresh = [row for row in rows if input_texts(task, row) not in seen]
    if len(fresh) < LEAST:
        raise WorkbenchError(
            f"{path} has {len(fresh)} rows that devsets/{task.name} does not have; {LEAST} are the "
            "least that anything can be said of. No call was made."
        )
    drawn = random.Random(session.config.seed).sample(fresh, len(fresh))
    drawn.sort(key=lambda row: not is_labelled(task, row))
    labels = sum(is_labelled(task, row) for row in fresh)
    known = frozenset(input_texts(task, row) for row in rows) & seen
    return New(fresh, known, len(rows) - len(fresh), labels, drawn[:most])


def _asked(found: InUse, config: RunConfig, new: New) -> Evaluation:
    session, count = found.session, new.labelled
    if not new.asked:
        session.watch.noted(monitor_plan(len(new.rows), count, 0, 0, 0.0))
        return Evaluation(())
    with found.asking(config):
        program = found.program(config)
        needed = cost(program, new.asked, config)
        check_cap(needed, config, "--ask")
        told = len(new.rows), count, len(new.asked), needed.calls, needed.usd
        session.watch.noted(monitor_plan(*told))
        session.watch.started("new rows")
        asking = replace(session.asking, task=scoring_labelled(session.task))
        return evaluate(program, new.asked, asking)


def _record(found: InUse, new: New, recorded: Recorded, evaluation: Evaluation) -> MonitorRecord:
    session, task = found.session, found.session.task
    usage = session.meter.usage()
    answered = list(zip(new.asked, evaluation.outcomes, strict=True))
    tests, seen = drift(found, new.rows, new.known, answered)
    scored = [(e, o) for e, o in answered if is_labelled(task, e)]
    covered = is_covered([o for _, o in scored])
    numbers = _score(found, _once(task, recorded, new), scored) if covered else {}
    judged: Labelled | None = numbers.pop("judged", None)
    reached = found.report.target_met
    drifted = any(test.drifted for test in tests)
    whole = len(new.asked) >= new.labelled  # else asking what is labelled comes first
    told = covered and bool(tests or judged)
    verdict = watched(judged, drifted, found.tuned, reached, task.least_gain, told)
    return MonitorRecord(
        task=task.name,
        run=found.run.id,
        lm=session.config.lm,
        target=session.target,
        reached=reached,
        tuned=found.tuned,
        verdict=verdict,
        rows=len(new.rows),
        labelled=new.labelled,
        known=new.left_out,
        asked=len(new.asked),
        failed=evaluation.missing,
        before=ScoreRecord.of(corrected(mean_interval(known(recorded.scores)), task.confusion)),
        tests=tests,
        to_label=_to_label(found, recorded, new) if verdict == "relabel" and whole else [],
        retires=lms.retires(session.config.lm, session.config.api_base),
        climb=command_line("run", task.name, found.report.knobs),
        lm_calls=usage.calls,
        cost_usd=usage.cost_usd,
        seconds=round(time.perf_counter() - session.start, 1),
        **numbers,
        **seen,
    )


def is_covered(outcomes: Sequence[Outcome]) -> bool:
    """Whether enough of the labelled rows that were asked, and that the LM reads, have a score."""
    asked = [o for o in outcomes if not o.unread]
    failed = len([o for o in asked if o.score is None])
    return len(asked) < LEAST or failed <= max(1, (1 - COVERAGE) * len(asked))


def _once(task: Task, recorded: Recorded, new: New) -> Recorded:
    """The record without the inputs that came again: the new rows are without them as well, and
    what recurs may be easier than the rest.
    """
    pairs = zip(recorded.rows, recorded.scores, strict=True)
    kept = [(row, score) for row, score in pairs if input_texts(task, row) not in new.known]
    return Recorded(tuple(r for r, _ in kept), tuple(s for _, s in kept), recorded.gone)


def _score(
    found: InUse, recorded: Recorded, scored: Sequence[tuple[dspy.Example, Outcome]]
) -> dict[str, Any]:
    """What labelled rows say of the score; nothing where they are too few."""
    judge = found.session.task.confusion
    after = Evaluation(tuple(o for _, o in scored), judge)
    before = known(recorded.scores)
    if min(len(before), len(after.known)) < LEAST:
        return {}
    reached = found.report.target_met
    judged = labelled(found.session.target, before, after.known, reached, judge)
    drop = drop_shown(mean_interval(before).mean, len(before), len(after.known))
    return {
        "judged": judged,
        "score": score_record(after),
        "change": _range(judged.change),
        "chance": judged.chance,
        "worse": judged.worse,
        "missed": judged.missed,
        "drop_shown": of_people(drop, judge),
        "by_label": _by_label(found.session.task, recorded, scored),
    }


def _range(interval: Interval) -> RangeRecord:
    return RangeRecord(mean=interval.mean, low=interval.low, high=interval.high)


def _by_label(
    task: Task, recorded: Recorded, scored: Sequence[tuple[dspy.Example, Outcome]]
) -> list[LabelChange]:
    """The change on the rows of each gold label, where both sides have some."""
    if not task.label:
        return []
    before, after = dict[str, list[float]](), dict[str, list[float]]()
    old = zip(recorded.rows, recorded.scores, strict=True)
    for side, pairs in ((before, old), (after, ((e, o.score) for e, o in scored))):
        for row, score in pairs:
            if score is not None:
                side.setdefault(to_text(row[task.label]), []).append(score)
    both = sorted(before.keys() & after.keys())
    level = 1 - (1 - LEVEL) / max(1, len(both))
    return [
        LabelChange(
            label=label,
            n_before=len(before[label]),
            n=len(after[label]),
            before=mean_interval(before[label]).mean,
            after=mean_interval(after[label]).mean,
            change=_range(mean_change(before[label], after[label], level)),
        )
        for label in both
    ]


def _to_label(found: InUse, recorded: Recorded, new: New) -> list[str]:
    """Places of a random sample of the rows without labels, as many as show a drop of DROP: rows
    chosen for being odd would make the score look worse than it is.
    """
    task, before = found.session.task, known(recorded.scores)
    mean, have = mean_interval(before).mean, new.labelled
    wanted = next(
        (n for n in range(LEAST, MOST_TO_LABEL) if drop_shown(mean, len(before), n) <= DROP),
        MOST_TO_LABEL,
    )
    rows = [row for row in new.rows if not is_labelled(task, row)]
    chosen = random.Random(found.session.config.seed).sample(
        rows, min(len(rows), max(LEAST, wanted - have))
    )
    some = set(map(id, chosen))
    return [str(getattr(row, PLACE)) for row in rows if id(row) in some]
