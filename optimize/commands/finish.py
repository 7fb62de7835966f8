"""Settle: read the test rows, once, with the programs found; keep the best, write and register the
report.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optimize import lm as lms
from optimize.climb.verdict import SURE, confirms
from optimize.commands.memory import tests_read, tunings_read
from optimize.commands.next_step import next_step
from optimize.commands.on_test import on_test
from optimize.commands.report import export, page_of
from optimize.commands.session import Session
from optimize.config import TASK_LM
from optimize.data.baselines import baseline_scores
from optimize.data.rows import row_hash
from optimize.errors import (
    BudgetExhausted,
    LmRefused,
    ShareExhausted,
    StoreFailed,
    UserCodeError,
    WorkbenchError,
)
from optimize.finetune.accept import DecisionRecord, accept, level
from optimize.finetune.effects import EffectsRecord, effects
from optimize.finetune.gate import GateRecord
from optimize.finetune.tuned import Tuned
from optimize.program.program import Program, save, student
from optimize.report.chart import draw, names
from optimize.report.record import (
    AttemptRecord,
    ClimbRecord,
    JudgeRecord,
    Report,
    TestRecord,
    TrainingRowsRecord,
    UsageRecord,
    score_record,
)
from optimize.report.rows import row_table
from optimize.scoring.evaluation import Evaluation
from optimize.secrets import redacted
from optimize.stats.intervals import mean_interval, paired_gain
from optimize.stats.judge import chance_at_least, corrected_gain
from optimize.stats.reads import readings
from optimize.stats.records import GainRecord, RowScores, ScoreRecord
from optimize.stats.winner import corrected_best
from optimize.store.open import without_password
from optimize.store.write import Run

PAGE = "report.html"
# what ends a command elsewhere
STOPPING = (UserCodeError, BudgetExhausted, ShareExhausted, LmRefused, StoreFailed)
Baselines = Mapping[str, Sequence[float]]  # each baseline's scores on test, row by row


@dataclass(frozen=True)
class Findings:
    """What a command knows before the test rows are read.

    best_val: the best prompt program's on val. tested: zero-shot and it on test. failed: what went
    wrong since the climb.
    """

    climb: ClimbRecord
    gate: GateRecord
    best: Program
    best_val: Evaluation
    tested: Mapping[str, Evaluation]
    tuned: Tuned | None = None
    failed: tuple[str, ...] = ()


Handoff = Callable[[Report], object]


@contextlib.contextmanager
def surviving(failed: list[str], what: str) -> Iterator[None]:
    """Work that comes after the climb. Whatever goes wrong in it is put on the list, because a
    climb that was paid for, and test rows that are read once, must not be lost with it.
    """
    try:
        yield
    except (Exception, *STOPPING) as error:
        logging.getLogger(__name__).debug(what, exc_info=True)
        told = isinstance(error, (WorkbenchError, *STOPPING))
        kind = "" if told else f"{type(error).__name__}: "
        reason = without_password(redacted(str(error).strip()))[:500] or "no reason given"
        failed.append(f"{what} failed: {kind}{reason}")


def settle(
    session: Session, tracked: Run, findings: Findings, handoff: Handoff | None = None
) -> Report:
    """All programs on test, once; the tuned LM is accepted if it wins on val and on test and
    nothing that must not has broken.

    The report is written first; what else there is to do may fail and is told in it. handoff:
    writes one, given the report.
    """
    tuned, failed = findings.tuned, list(findings.failed)
    programs, found = _programs(session, findings), dict(findings.tested)
    if tuned:
        with surviving(failed, "Reading the test rows with the tuned LM"):
            found = on_test(session, {n: p for n, p in programs.items() if n not in found}, found)
    baselines = baseline_scores(
        session.task, session.splits.train, session.splits.test, session.vectors
    )
    judged = None
    if tuned and "tuned" in found:
        with surviving(failed, "The judgement of the tuned LM"):
            judged = _judged(session, tuned, found, baselines)
    kept = "tuned" if judged and judged.decision.accepted else "prompt"
    session.watch.started("writing the report")
    path = session.folder("programs") / f"{tracked.id}.json"
    report = _noted(session, _report(session, findings, found, baselines, judged, path), failed)
    tracked.settle(report, programs[kept], findings.best)
    known = len(failed)
    _keep(session, tracked, findings, found, kept, failed)
    with surviving(failed, f"Writing the program to {path}"):
        knobs = session.config.model_dump(include=set(TASK_LM), exclude_none=True)
        save(programs[kept], path, knobs)
    with surviving(failed, "Registering the program"):
        tracked.register(report, _row_scores(session, "test", found, kept), programs[kept])
    report = _shown(session, tracked, report, failed)
    if handoff:
        with surviving(failed, "The hand-off"):
            handoff(report)
    if failed[known:]:
        report = _noted(session, report, failed)
        tracked.settle(report, programs[kept], findings.best)
    return report


def _shown(session: Session, tracked: Run, report: Report, failed: list[str]) -> Report:
    """The report with its pictures and its page beside it, as far as they could be made."""
    for chart in report.charts:
        with surviving(failed, f"The picture {chart}"):
            draw(report, session.home / chart)
            tracked.attach(session.home / chart)
    assert report.page
    with surviving(failed, "The page"):
        path = session.home / report.page
        path.parent.mkdir(parents=True, exist_ok=True)
        export(page_of(report, tracked.found), "html", path)
        tracked.attach(path)
        return report
    return report.model_copy(update={"page": None})


def _keep(
    session: Session,
    tracked: Run,
    findings: Findings,
    found: Mapping[str, Evaluation],
    kept: str,
    failed: list[str],
) -> None:
    """Put on record what later commands read: the score of each row, and the tuned weights."""
    tuned, val = findings.tuned, {"prompt": findings.best_val}
    if tuned and tuned.chosen.evaluation:
        val = {"prompt": tuned.prompt_val, "tuned": tuned.chosen.evaluation}
    with surviving(failed, "Keeping the scores of each row"):
        for side, evaluated in (("val", val), ("test", found)):
            tracked.scores(side, _row_scores(session, side, evaluated, kept))
    with surviving(failed, "Keeping the answers to the test rows"):
        splits = session.splits
        tracked.answers(row_table(session.task, splits.train, splits.test, found))


def _row_scores(
    session: Session, side: str, found: Mapping[str, Evaluation], kept: str
) -> RowScores:
    """Every program's scores, and those of the one that is kept as `final`."""
    both = {**found, "final": found[kept]}
    programs = {name: list(e.scores) for name, e in both.items()}
    return RowScores(rows=_hashes(session, side), programs=programs)


def _hashes(session: Session, side: str) -> list[str]:
    return [row_hash(session.task, e) for e in session.splits.sides()[side]]


def _noted(session: Session, report: Report, failed: Sequence[str]) -> Report:
    """The report with what failed, and the step that makes sense then."""
    report = report.model_copy(update={"failed": list(failed)})
    step = next_step(report, session)
    said = {"next": step.command, "next_first": step.first, "next_note": step.note}
    return report.model_copy(update=said)


def _programs(session: Session, findings: Findings) -> dict[str, Program]:
    """All that are asked on test."""
    programs, tuned = {"zero_shot": student(session.task), "prompt": findings.best}, findings.tuned
    for name, attempt in (("tuned", tuned.chosen), ("tuned_other", tuned.other)) if tuned else ():
        assert attempt.program
        programs[name] = attempt.program
    return programs


@dataclass(frozen=True)
class _Judged:
    """What became of the tuned LM."""

    decision: DecisionRecord
    effects: EffectsRecord


def _judged(
    session: Session, tuned: Tuned, found: Mapping[str, Evaluation], baselines: Baselines
) -> _Judged:
    test = before, after = found["prompt"], found["tuned"]
    rows = _hashes(session, "test")
    now = dict(zip(rows, after.scores, strict=True))
    tunings = readings(rows, [now, *tunings_read(session)])
    gain = paired_gain(before.scores, after.scores, level(tunings))
    assert tuned.chosen.change
    seen = effects(
        session.task, session.splits, test, tuned.ood, tuned.train_seconds, session.config.in_flight
    )
    decision = accept(
        tuned.chosen.rung,
        tuned.chosen.change,
        corrected_gain(gain, after.judge),
        tunings,
        tuned.forgetting,
        session.task.least_gain,
        min(before.answered, after.answered),
    )
    name, over = _over_best(baselines, after)
    return _Judged(decision.model_copy(update={"baseline": name, "over_baseline": over}), seen)


def _over_best(baselines: Baselines, found: Evaluation) -> tuple[str | None, GainRecord | None]:
    """The best of the baselines without an LM, and a program's gain over it, pair by pair; None
    where there is none.
    """
    if not baselines:
        return None, None
    name = max(baselines, key=lambda n: sum(baselines[n]))
    return name, GainRecord.between(baselines[name], found.scores)


def _target_met(
    session: Session,
    findings: Findings,
    found: Mapping[str, Evaluation],
    judged: _Judged | None,
) -> bool:
    """Whether val and test rows say that the program that is kept is at the target."""
    tuned = findings.tuned
    if not (judged and judged.decision.accepted and tuned and tuned.chosen.evaluation):
        return findings.climb.verdict == "reached"
    judge, chosen = session.task.confusion, tuned.chosen.evaluation
    others = [a.evaluation.scores for a in tuned.attempts if a.evaluation and a is not tuned.chosen]
    luck = corrected_best(chosen.scores, others, len(chosen.scores)).optimism
    luck += tuned.grid.optimism if tuned.grid else 0.0
    val = chance_at_least(session.target, chosen.known, judge, -luck)
    rows = _hashes(session, "test")
    now = [dict(zip(rows, found[name].scores, strict=True)) for name in ("prompt", "tuned")]
    on_test = chance_at_least(session.target, found["tuned"].known, judge)
    return val >= SURE and confirms(on_test, readings(rows, [*now, *tests_read(session)]))


def _report(
    session: Session,
    findings: Findings,
    found: Mapping[str, Evaluation],
    baselines: Baselines,
    judged: _Judged | None,
    path: Path,
) -> Report:
    usage, climb, tuned = session.meter.usage(), findings.climb, findings.tuned
    charts = session.folder("charts").relative_to(session.home) / path.stem
    tried = map(AttemptRecord.of, tuned.attempts if tuned else ())
    return Report(
        **dict(climb) | {"attempts": [*climb.attempts, *tried], "judge": _raw(climb, found)},
        target_met=_target_met(session, findings, found, judged),
        test=_test_record(found, baselines, bool(tuned and tuned.helped)),
        gate=findings.gate,
        decision=judged.decision if judged else None,
        effects=judged.effects if judged else None,
        training=list(tuned.epochs) if tuned else [],
        training_rows=TrainingRowsRecord(task=tuned.rows, replayed=tuned.replayed)
        if tuned and tuned.rows
        else None,
        grid=tuned.grid if tuned else None,
        levers_on_tuned=list(map(AttemptRecord.of, tuned.levers)) if tuned else [],
        forgetting=list(tuned.forgetting) if tuned else [],
        lm_calls=usage.calls,
        cost_usd=usage.cost_usd,
        roles={r: UsageRecord.of(u) for r, u in session.meter.by_role().items()},
        seconds=round(time.perf_counter() - session.start, 1),
        lm_retires=lms.retires(session.config.lm, session.config.api_base),
        program=str(path.relative_to(session.home)),
        charts=[str(charts / name) for name in names(tuned=judged is not None)],
        page=str(charts / PAGE),
        next="",
    )


def _raw(climb: ClimbRecord, found: Mapping[str, Evaluation]) -> JudgeRecord | None:
    """What is known of the judge, with the scores on test as it gave them."""
    raw = {
        name: ScoreRecord.of(e.interval, e.coverage, unread=e.unread) for name, e in found.items()
    }
    return climb.judge and climb.judge.model_copy(update={"raw": raw})


def _test_record(
    found: Mapping[str, Evaluation], baselines: Baselines, levered: bool
) -> TestRecord:
    """levered: levers made the tuned program of what it was before, the other one."""

    def between(before: str, after: str) -> GainRecord:
        return GainRecord.between(found[before].scores, found[after].scores, found[after].judge)

    return TestRecord(
        **{name: score_record(e) for name, e in found.items()},
        over_baseline=_over_best(baselines, found["prompt"])[1],
        prompt_gain=between("zero_shot", "prompt"),
        tuned_gain=between("prompt", "tuned") if "tuned" in found else None,
        levers_gain=between("tuned_other", "tuned") if levered and "tuned" in found else None,
        baselines={n: ScoreRecord.of(mean_interval(s)) for n, s in baselines.items()},
    )
