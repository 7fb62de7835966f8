"""The use case `run`: check the data, climb, decide, fine-tune or hand off if the gate opens,
settle on test.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dspy

from optimize.climb.climb import Climb, climb
from optimize.climb.preflight import Preflight, preflight
from optimize.climb.rungs import LEFT_OUT, Rung, ladder
from optimize.climb.rungs.base import steps
from optimize.climb.verdict import (
    COVERAGE,
    confirmed,
    contenders,
    rows_to_confirm,
    without_headroom,
)
from optimize.commands.costs import call_rate
from optimize.commands.finish import Findings, settle, surviving
from optimize.commands.gate import judge
from optimize.commands.handoff import bundle
from optimize.commands.lock import task_lock
from optimize.commands.memory import Memory, remembered
from optimize.commands.on_test import check_scored_batch, on_test
from optimize.commands.session import Both, Session, tracked_run
from optimize.commands.since import since_last_run
from optimize.commands.traces import Traced, trace_calls
from optimize.commands.tune import tune, tuning_calls
from optimize.data.rows import row_hash
from optimize.errors import BudgetExhausted, ShareExhausted, WorkbenchError
from optimize.finetune import BACKENDS
from optimize.finetune.handoff.bundle import Material
from optimize.lm.reach import check_reachable
from optimize.program.program import student
from optimize.report.record import (
    AttemptRecord,
    ClimbRecord,
    HeadroomRecord,
    JudgeRecord,
    Report,
    VerdictRecord,
)
from optimize.report.sentences import preflight_sentences
from optimize.report.verdicts import verdict_sentences
from optimize.scoring.evaluation import Evaluation
from optimize.scoring.failures import diagnose
from optimize.scoring.headroom import ANSWERS, calls_needed, headroom
from optimize.stats.intervals import known, mean_interval
from optimize.stats.judge import chance_at_least
from optimize.stats.reads import readings
from optimize.stats.records import ScoreRecord
from optimize.store.champion import champion
from optimize.store.write import Run

PLANNED = 0.25  # of the calls of a climb: what it was planned with is as good to know as these


def run(session: Session, rungs: Sequence[Rung] | None = None) -> Report:
    """Check the data, climb, decide, fine-tune or hand off if the gate opens, settle on test,
    record everything. rungs: default: the ladder.
    """
    rungs = ladder(session.splits, session.config.without) if rungs is None else rungs
    check_reachable(session.config)
    if session.config.batch:
        check_scored_batch(student(session.task), session.config)
    found_before = checked(session)
    check_cap(session, found_before)
    for line in preflight_sentences(found_before, session.target):
        session.watch.noted(line)
    with task_lock(session, "run") as session:
        session = session.held_against_people()
        return _run(session, rungs, found_before)


def _run(session: Session, rungs: Sequence[Rung], found_before: Preflight) -> Report:
    with tracked_run(session, "run") as tracked, dspy.context(lm=session.lm):
        last = session.home, session.task.name, tracked.id
        if changed := since_last_run(*last, session.judge is not None):
            session.watch.noted(changed)
        finetune = session.config.finetune
        found, climbed, tested = _climbed(session, tracked, rungs, found_before)
        best, evaluation = found.best.program, found.best.evaluation
        assert best and evaluation
        judged = judge(session, climbed, best, going_on=finetune != "never")
        findings = Findings(judged.climb, judged.gate, best, evaluation, tested)
        if judged.gate.open and finetune in BACKENDS:
            findings = _tuned(session, tracked, findings, judged.traced)
        handoff = None
        if judged.gate.open and finetune == "bundle":
            traces = judged.traced.traces if judged.traced else None

            def handoff(report: Report) -> None:
                tracked.attach(bundle(session, report, best, Material(traces=traces))[0])

        return settle(session, tracked, findings, handoff)


def _climbed(
    session: Session, tracked: Run, rungs: Sequence[Rung], checks: Preflight
) -> tuple[Climb, ClimbRecord, dict[str, Evaluation]]:
    """The climb, what is on record of it, and its two programs' answers to the test rows."""
    memory, plan = remembered(session), checks.cost.plan
    tokens, usd, minutes = (
        plan.each.get(k, 0.0) for k in ("max_tokens", "budget_usd", "max_minutes")
    )
    session.meter.expect((tokens, usd, minutes), PLANNED * plan.allowed)
    known = {"rivals": memory.rivals, "constant": checks.constant, "varied": checks.varied}
    setup = session.setup(calls_after(session), **known)
    found = climb(setup, rungs, Both(tracked, session.watch))
    left = setup.left(found.attempts[0], found.best) + _headroom_calls(session)
    found, room = _with_headroom(session, found, left)
    assert found.best.program
    tested = on_test(session, {"zero_shot": student(session.task), "prompt": found.best.program})
    found, said = _confirmed(session, found, tested["prompt"], memory)
    return found, climb_record(session, found, checks, room, **said), tested


def checked(session: Session) -> Preflight:
    """All checks that need no LM call, with what a run of this session may cost."""
    judged = len(session.judge.rows) if session.judge else 0
    given = session.task, session.splits, session.config, calls_after(session) + judged
    return preflight(*given, session.embedder, _per_minute(session))


def _per_minute(session: Session) -> float | None:
    """LM calls, as the champion's climb made them on this LM; None where none is known."""
    if not session.config.max_minutes:
        return None
    with contextlib.suppress(WorkbenchError):
        report = champion(session.root, session.task.name).read("report.json", Report)
        if report.lm == session.config.lm and (rate := call_rate(report)):
            return 60 * rate
    return None


def check_cap(session: Session, found: Preflight) -> None:
    """Raises WorkbenchError for a cap that would be spent and leave no report."""
    if problem := low_cap(session, found):
        raise WorkbenchError(f"{problem} No call was made.")


def low_cap(session: Session, found: Preflight) -> str:
    """What is wrong with such a cap; empty where it suffices."""
    cap, least = session.config.max_calls, found.cost.plan.least
    judged = len(session.judge.rows) if session.judge else 0
    if cap >= least + judged:
        return ""
    more = f", and its judge {judged} for the answers that people have judged" if judged else ""
    val, test = (found.rows[side] for side in ("val", "test"))
    return (
        f"--max-calls {cap} cannot pay for the rows: {val} val rows once and {test} test rows "
        f"for two programs take {least} calls{more}. Give more, or use fewer with --val-rows "
        "and --test-rows."
    )


def _confirmed(
    session: Session, found: Climb, test: Evaluation, memory: Memory
) -> tuple[Climb, dict[str, Any]]:
    """The climb with its verdict in the light of the test rows, and what is to be told of them."""
    enough = test.answered >= COVERAGE
    on_test = chance_at_least(session.target, test.known, test.judge) if enough else None
    rows = [row_hash(session.task, e) for e in session.splits.test]
    reads = readings(rows, [dict(zip(rows, test.scores, strict=True)), *memory.read])
    decision = confirmed(found.decision, on_test, reads)
    said: dict[str, Any] = {
        "on_test": on_test,
        "test_reads": reads,
        "climbs": len({found.history.tried, *memory.climbs}),
    }
    if enough and decision.verdict == "unconfirmed":
        needed = rows_to_confirm(test.interval, test.judge, session.target, reads)
        said["test_rows_needed"] = needed or 0
    return replace(found, decision=decision), said


def _tuned(session: Session, tracked: Run, findings: Findings, traced: Traced | None) -> Findings:
    """The findings with a tuned LM, or with why there is none."""
    failed: list[str] = []
    with surviving(failed, "Fine-tuning"):
        tuned = tune(session, tracked, findings.best, findings.best_val, traced)
        for attempt in tuned.attempts:
            Both(tracked, session.watch).finished(attempt)
        findings = replace(findings, tuned=tuned)
    return replace(findings, failed=tuple(failed))


def climb_record(
    session: Session,
    found: Climb,
    checked: Preflight,
    room: HeadroomRecord | None = None,
    **said: Any,
) -> ClimbRecord:
    """What a climb has found, before the gate. said: of the test rows, as VerdictRecord has it."""
    best, evaluation = found.best.program, found.best.evaluation
    assert best and evaluation
    verdict, numbers = (
        found.decision.verdict,
        VerdictRecord.of(
            found.decision,
            found.history,
            untried=found.untried,
            left=list(found.left),
            left_out=[a.rung for a in found.attempts if a.skipped == LEFT_OUT],
            **said,
        ),
    )
    return ClimbRecord(
        task=session.task.name,
        verdict=verdict,
        reason=verdict_sentences(verdict, session.target, numbers, room),
        target=session.target,
        numbers=numbers,
        preflight=checked,
        diagnosis=diagnose(best, session.splits.train, session.splits.val, evaluation.outcomes),
        headroom=room,
        judge=_judge_record(session, found),
        levers=list(found.levers),
        attempts=[AttemptRecord.of(attempt) for attempt in found.attempts],
        lm=session.config.lm,
        teacher=session.teacher_name,
        seed=session.config.seed,
        rows={name: len(rows) for name, rows in session.splits.sides().items()},
        data_hash=session.splits.digest,
        knobs=session.config.given,
        cap=session.meter.tightest(),
    )


def _judge_record(session: Session, found: Climb) -> JudgeRecord | None:
    history = found.history
    if not (session.judge and history.judge):
        return None
    best = history.tried[contenders(history.tried, history.val)[0]]
    raw = mean_interval(known(best.scores))
    return JudgeRecord.of(session.judge.told, history.judge, raw)


def calls_after(session: Session) -> int:
    """LM calls to keep for what comes after the climb, beside the test rows."""
    finetune = session.config.finetune
    if finetune == "never" or not (session.task.declared or session.config.waive):
        return _headroom_calls(session)  # the gate stays closed
    tuning = tuning_calls(session) if finetune in BACKENDS else 0
    return trace_calls(session) + tuning + _headroom_calls(session)


def _headroom_calls(session: Session) -> int:
    if not session.config.headroom or session.judge:
        return 0
    # a chat answer may take two calls a step
    each, teacher = 2 * steps(session.task), session.config.teacher is not None
    return each * calls_needed(len(session.splits.val), teacher)


def _with_headroom(
    session: Session, found: Climb, left: int
) -> tuple[Climb, HeadroomRecord | None]:
    """The climb with its verdict in the light of what prompting may bring out at best, where that
    was asked for. left: LM calls that it may take.
    """
    if not session.config.headroom or found.decision.verdict == "reached":
        return found, None
    if session.judge:
        session.watch.noted(
            "The headroom is not known: the best of several answers that a judge rates is often "
            "one that it passes by mistake."
        )
        return found, None
    assert found.best.program
    session.watch.started("headroom")
    teacher = session.teacher if session.config.teacher else None
    single = found.best.program.deepcopy()
    single.votes = 0  # the best of several answers, not of several votes
    asking = replace(session.asking, repeats=1)
    try:
        with session.meter.share(left):
            room = headroom(single, session.splits.val, teacher, asking)
    # the climb stands without it
    except (WorkbenchError, BudgetExhausted, ShareExhausted) as error:
        session.watch.noted(f"The headroom is not known: {error}")
        return found, None
    record = HeadroomRecord(
        answers=ANSWERS,
        best=ScoreRecord.of(room.best),
        teacher=ScoreRecord.of(room.teacher) if room.teacher else None,
    )
    decision = without_headroom(found.decision, record.ceilings, session.target)
    return replace(found, decision=decision), record
