"""The fallback as use cases: judge the gate, hand off or fine-tune, after a climb and without climbing again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import dspy

from optimize.errors import WorkbenchError
from optimize.evaluate import Outcome, evaluate
from optimize.finetune import BACKENDS
from optimize.finetune.bundle import write_bundle
from optimize.finetune.criteria import Case
from optimize.finetune.gate import GateRecord, gate
from optimize.finetune.manifest import Facts, Manifest
from optimize.ladder import Attempt, Observer
from optimize.plateau import History
from optimize.program import Program, load, student
from optimize.report import Report
from optimize.session import Session
from optimize.settle import Findings, settle
from optimize.task import Task, load_task
from optimize.tracking.read import last_run
from optimize.tracking.run import Run
from optimize.tuning import tune, tuned_lm


def gate_last(root: Path, name: str, waived: str | None) -> GateRecord:
    """The gate of the task's last climb, judged by the task as it is now."""
    task, (report, _) = load_task(name, root), last_run(root, name)
    return gate(task, case_of(task, report), waived)


def case_of(task: Task, report: Report | Findings) -> Case:
    """What the gate judges, from what is on record, or is about to be."""
    return Case(
        verdict=report.verdict,
        target=report.target,
        best=report.numbers.best,
        levers={a.rung: a.gain.mean for a in report.attempts if a.rung in report.levers and a.gain},
        families=[a.family for a in report.attempts if a.val],
        preflight=report.preflight,
        diagnosis=report.diagnosis,
        reasons=student(task).reasons,
        teacher=report.headroom.teacher if report.headroom else None,
    )


def finetune_last(session: Session) -> Report:
    """Fine-tune from the last climb, without climbing again; its calls are answered from the cache."""
    if session.config.finetune not in BACKENDS:
        raise WorkbenchError(
            f"{session.config.finetune!r} trains nothing: {', '.join(BACKENDS)}. `optimize handoff` writes rows for trainers elsewhere."
        )
    session, last, opened, best = _last(session)
    with tracked_run(session, "finetune") as tracked, dspy.context(lm=session.lm):
        session.watch.started("best prompt program")
        evaluation = evaluate(best, session.splits.val, session.asking)
        tuned = tune(session, best, evaluation)
        for attempt in tuned.attempts:
            Both(tracked, session.watch).finished(attempt)
        findings = Findings(
            verdict=last.verdict,
            reason=last.reason,
            target=session.target,
            numbers=last.numbers,
            preflight=last.preflight,
            diagnosis=last.diagnosis,
            levers=tuple(last.levers),
            attempts=tuple(a for a in last.attempts if a.family != "weights"),
            best=best,
            best_val=evaluation,
            headroom=last.headroom,
            tuned=tuned,
        )
        return settle(session, tracked, findings, opened)


def handoff_last(session: Session, pairs: bool) -> tuple[Path, Manifest]:
    """Write the hand-off of the last climb's best prompt program; raises WorkbenchError where the gate is closed.

    pairs: ask that program for the train rows as well, and make preference pairs of what it gets wrong.
    """
    session, last, opened, best = _last(session)
    report = last.model_copy(update={"gate": opened})
    outcomes: tuple[Outcome, ...] = ()
    if pairs:
        session.watch.started("best prompt program on train")
        with dspy.context(lm=session.lm):
            outcomes = evaluate(best, session.splits.train, replace(session.asking, repeats=1)).outcomes
    return bundle(session, report, best, outcomes)


def bundle(session: Session, report: Report, best: Program, outcomes: Sequence[Outcome] = ()) -> tuple[Path, Manifest]:
    """The hand-off's folder and what it says of itself."""
    test = {"zero-shot": report.test.baseline, "best prompt program": report.test.prompt, **report.test.references}
    before = {f"{name}, test": score for name, score in test.items()}
    facts = Facts(
        lm=report.lm,
        target=report.target,
        seed=report.seed,
        epochs=session.config.epochs,
        verdict=report.verdict,
        reason=report.reason,
        gate=report.gate,
        before={"best prompt program, val": report.numbers.best, **before},
    )
    folder = session.folder("handoff")
    return folder, write_bundle(folder, best, session.splits, facts, outcomes)


def _last(session: Session) -> tuple[Session, Report, GateRecord, Program]:
    """The session on the rows of the last climb, its report, its gate as it is now, and its best prompt program.

    Raises WorkbenchError where they cannot be tuned from.
    """
    report, path = last_run(session.root, session.task.name, "prompt_program.json")
    session = replace(session, splits=session.splits.at_most(report.rows["val"], report.rows["test"]))
    if report.data_hash != session.splits.digest:
        raise WorkbenchError(
            f"The rows of {session.task.name!r} changed since the last climb; run `optimize run {session.task.name}` again."
        )
    if report.lm != session.config.lm:
        raise WorkbenchError(f"The last climb was on LM {report.lm!r}, not {session.config.lm!r}; give --lm {report.lm}.")
    best = load(session.task, path, lambda tuned: tuned_lm(session, tuned, session.task.max_tokens))
    found = gate(session.task, case_of(session.task, report), session.config.waive)
    if not found.open:
        raise WorkbenchError(f"The fine-tune gate of the last climb is closed: {' '.join(found.reasons)}")
    return session, report, found, best


def tracked_run(session: Session, command: str) -> Run:
    knobs = session.config.model_dump(exclude={"api_key", "target"}, exclude_none=True) | {"target": session.target}
    return Run(session.root, session.task.name, command, knobs, session.splits)


class Both(Observer):
    """What the store and the screen are both told."""

    def __init__(self, tracked: Run, watch: Observer) -> None:
        self.tracked, self.watch = tracked, watch

    def started(self, rung: str) -> None:
        self.watch.started(rung)

    def scored(self, done: int, total: int, note: str = "") -> None:
        self.watch.scored(done, total, note)

    def finished(self, attempt: Attempt) -> None:
        self.tracked.finished(attempt)
        self.watch.finished(attempt)

    def decided(self, history: History) -> None:
        self.tracked.decided(history)
