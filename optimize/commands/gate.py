"""The gate of a task's last climb, and what is needed to go on from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from optimize.commands.finish import Findings
from optimize.commands.session import Session
from optimize.commands.tune import tuned_lm
from optimize.errors import WorkbenchError
from optimize.finetune.criteria import Case
from optimize.finetune.gate import GateRecord, gate
from optimize.program.program import Program, read_program, student
from optimize.report.record import Report
from optimize.store.read import last_run
from optimize.task import Task, load_task


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


def last_climb(session: Session) -> tuple[Session, Report, GateRecord, Program]:
    """The session on the rows of the last climb, its report, its gate as it is now, and its best
    prompt program.

    Raises WorkbenchError where they cannot be tuned from.
    """
    report, path = last_run(session.root, session.task.name, "prompt_program.json")
    session = replace(
        session, splits=session.splits.at_most(report.rows["val"], report.rows["test"])
    )
    if report.data_hash != session.splits.digest:
        raise WorkbenchError(
            f"The rows of {session.task.name!r} changed since the last climb; run `optimize run "
            f"{session.task.name}` again."
        )
    if report.lm != session.config.lm:
        raise WorkbenchError(
            f"The last climb was on LM {report.lm!r}, not {session.config.lm!r}; give --lm "
            f"{report.lm}."
        )
    best = read_program(
        session.task, path, lambda tuned: tuned_lm(session, tuned, session.task.max_tokens)
    )
    found = gate(session.task, case_of(session.task, report), session.config.waive)
    if not found.open:
        raise WorkbenchError(
            f"The fine-tune gate of the last climb is closed: {' '.join(found.reasons)}"
        )
    return session, report, found, best
