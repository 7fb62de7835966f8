"""The use case `run`: check the data, climb, decide, fine-tune or hand off if the gate opens,
settle on test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import dspy

from optimize.climb.climb import Climb, Setup, climb
from optimize.climb.preflight import Preflight, preflight
from optimize.climb.rungs import LADDER, Rung
from optimize.climb.verdict import without_headroom
from optimize.commands.finish import Findings, settle
from optimize.commands.gate import case_of
from optimize.commands.handoff import bundle
from optimize.commands.session import Both, Session, tracked_run
from optimize.commands.tune import tune, tuning_calls
from optimize.finetune import BACKENDS
from optimize.finetune.gate import gate
from optimize.report.record import AttemptRecord, HeadroomRecord, Report, VerdictRecord
from optimize.report.sentences import preflight_sentences, verdict_sentences
from optimize.scoring.failures import diagnose
from optimize.scoring.headroom import ANSWERS, calls_needed, headroom
from optimize.stats.records import ScoreRecord


def run(session: Session, rungs: Sequence[Rung] = LADDER) -> Report:
    """Check the data, climb, decide, fine-tune or hand off if the gate opens, settle on test,
    record everything.
    """
    after = (tuning_calls(session) if session.config.finetune in BACKENDS else 0) + _headroom_calls(
        session
    )
    checked = preflight(session.task, session.splits, session.config, after)
    for line in preflight_sentences(checked, session.target):
        session.watch.noted(line)
    with tracked_run(session, "run") as tracked, dspy.context(lm=session.lm):
        setup = Setup(
            session.task,
            session.splits,
            session.teacher,
            session.meter,
            session.target,
            session.config.threads,
            session.config.seed,
            after=after,
            repeats=session.config.repeats,
        )
        found = climb(setup, rungs, Both(tracked, session.watch))
        found, room = _with_headroom(session, found)
        findings = findings_of(session, found, checked, room)
        opened = gate(session.task, case_of(session.task, findings), session.config.waive)
        if opened.open and session.config.finetune in BACKENDS:
            tuned = tune(session, findings.best, findings.best_val)
            for attempt in tuned.attempts:
                Both(tracked, session.watch).finished(attempt)
            findings = replace(findings, tuned=tuned)
        report = settle(session, tracked, findings, opened)
        if opened.open and session.config.finetune == "bundle":
            tracked.attach(bundle(session, report, findings.best)[0])
        return report


def findings_of(
    session: Session, found: Climb, checked: Preflight, room: HeadroomRecord | None = None
) -> Findings:
    """What a climb has found, before the gate and the test rows."""
    best, evaluation = found.best.program, found.best.evaluation
    assert best and evaluation
    verdict, numbers = found.decision.verdict, VerdictRecord.of(found.decision, found.history)
    return Findings(
        verdict=verdict,
        reason=verdict_sentences(verdict, session.target, numbers, room),
        target=session.target,
        numbers=numbers,
        preflight=checked,
        diagnosis=diagnose(best, session.splits.train, session.splits.val, evaluation.outcomes),
        levers=tuple(found.levers),
        attempts=tuple(map(AttemptRecord.of, found.attempts)),
        best=best,
        best_val=evaluation,
        headroom=room,
    )


def _headroom_calls(session: Session) -> int:
    if not session.config.headroom:
        return 0
    # a chat answer may take two calls
    return 2 * calls_needed(len(session.splits.val), session.config.teacher is not None)


def _with_headroom(session: Session, found: Climb) -> tuple[Climb, HeadroomRecord | None]:
    """The climb with its verdict in the light of what prompting may bring out at best, where that
    was asked for.
    """
    if not session.config.headroom or found.decision.verdict == "reached":
        return found, None
    assert found.best.program
    session.watch.started("headroom")
    teacher = session.teacher if session.config.teacher else None
    room = headroom(found.best.program, session.splits.val, teacher, session.asking)
    ceilings = [room.best, *([room.teacher] if room.teacher else [])]
    record = HeadroomRecord(
        answers=ANSWERS,
        best=ScoreRecord.of(room.best),
        teacher=ScoreRecord.of(room.teacher) if room.teacher else None,
    )
    return replace(
        found, decision=without_headroom(found.decision, ceilings, session.target)
    ), record
