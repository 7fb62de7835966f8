"""The gate of a climb, and what is needed to go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optimize.commands.session import Session
from optimize.commands.traces import Traced, traced
from optimize.commands.tune import tuned_lm
from optimize.config import JUDGE_LM, TASK_LM, RunConfig, command_line, load_config
from optimize.errors import WorkbenchError
from optimize.finetune import finetune_command, untrainable
from optimize.finetune.criteria.case import Case
from optimize.finetune.gate import GateRecord, gate
from optimize.finetune.steps import unlabelled
from optimize.program.program import Program, parse_program, student
from optimize.report.record import ClimbRecord, Report
from optimize.store.read import NoRun, last_run
from optimize.task import Task, load_task


def gate_last(root: Path, name: str, config: RunConfig) -> tuple[GateRecord, str]:
    """The gate of the task's last climb, judged by the task as it is now, and the command that goes
    on where it is open.
    """
    task, (report, _) = load_task(name, root), last_run(root, name)
    climb = _aimed(report.climb, config)
    knobs = climb.knobs | {k: v for k, v in config.given.items() if k in ("target", "waive")}
    following = (
        command_line("handoff", name, knobs)
        if untrainable(config.model_copy(update=knobs))
        else finetune_command(name, knobs)
    )
    return gate(task, case_of(task, climb), config.waive), following


def case_of(task: Task, climb: ClimbRecord) -> Case:
    """What the gate judges, from what is on record, or is about to be."""
    program = student(task)
    return Case(
        verdict=climb.verdict,
        target=climb.target,
        best=climb.numbers.best,
        on_test=climb.numbers.on_test,
        levers={a.rung: a.gain.mean for a in climb.attempts if a.rung in climb.levers and a.gain},
        families=[a.family for a in climb.attempts if a.val],
        preflight=climb.preflight,
        diagnosis=climb.diagnosis,
        reasons=program.reasons,
        teacher=climb.headroom.teacher if climb.headroom else None,
        steps=unlabelled(program),
        traces=climb.traces,
        knobs=climb.knobs,
        cap=climb.cap,
    )


@dataclass(frozen=True)
class Judged:
    """A climb with its gate, and the traces that were made on the way, if any."""

    climb: ClimbRecord
    gate: GateRecord
    traced: Traced | None = None


def judge(session: Session, climb: ClimbRecord, best: Program, going_on: bool = True) -> Judged:
    """The gate. Where all else in it is open and the program has steps without labels, their
    traces are made and counted as well.

    going_on: whether rows will be made at all; without it nothing is asked.
    """
    waived, case = session.config.waive, case_of(session.task, climb)
    found = gate(session.task, replace(case, traces=None), waived)
    if not (found.open and case.steps and going_on):
        return Judged(climb, gate(session.task, case, waived))
    made = traced(session, best)
    climb = climb.model_copy(update={"traces": made.count})
    return Judged(climb, gate(session.task, case_of(session.task, climb), waived), made)


@dataclass(frozen=True)
class LastClimb:
    """The session on the rows and the target of the task's last climb, the report of that, its gate
    as it is now, and its best prompt program.
    """

    session: Session
    report: Report
    judged: Judged
    best: Program


def config_of_climb(root: Path, task: str, given: Mapping[str, Any]) -> RunConfig:
    """The configuration of a session on the LM and the judge of the task's last climb, where no
    other LM is named, and where there is one: the first may still be under way.
    """
    with suppress(NoRun):
        report, _ = last_run(root, task)
        if given.get("lm") in (None, report.lm):
            return load_config(root, knobs_of(report), **given)
    return load_config(root, **given)


def knobs_of(report: Report) -> dict[str, Any]:
    """Which LM a climb asked, who judged, by how many rows, its target and what must not break, as
    the configuration has it; what the climb did not name is a default, whatever the project's file
    says by now.
    """
    recorded = {
        knob: report.knobs.get(knob, RunConfig.model_fields[knob].default)
        for knob in (*TASK_LM, *JUDGE_LM, "val_rows", "test_rows", "no_regression_on", "without")
    }
    return recorded | {"lm": report.lm, "target": report.target}


def last_climb(session: Session) -> LastClimb:
    """Raises WorkbenchError where there is none that can be tuned from."""
    task = session.task.name
    report, run = last_run(session.root, task)
    rows, config = report.rows, session.config
    session = replace(session, splits=session.splits.at_most(rows["val"], rows["test"]))
    if report.data_hash != session.splits.digest:
        raise WorkbenchError(
            f"The rows of {task!r}, or its judge, changed since the last climb; climb again: "
            f"{command_line('run', task, report.knobs)}"
        )
    if report.lm != config.lm:
        raise WorkbenchError(
            f"The last climb was on LM {report.lm!r}, not {config.lm!r}; give --lm {report.lm}."
        )
    climb = _aimed(report.climb, config)
    session = replace(session, task=replace(session.task, target=climb.target))
    text, where = run.text("prompt_program.json"), f"prompt_program.json of run {run.id}"
    tokens = session.task.max_tokens
    best = parse_program(session.task, text, where, lambda name: tuned_lm(session, name, tokens))
    judged = judge(session, climb, best)
    if not judged.gate.open:
        raise WorkbenchError(
            f"The fine-tune gate of the last climb is closed: {' '.join(judged.gate.reasons)}"
        )
    return LastClimb(session, report, judged, best)


def _aimed(climb: ClimbRecord, config: RunConfig) -> ClimbRecord:
    """The climb at the target asked for. What stays below a target stays below a higher one; of any
    other its verdict says nothing.

    Raises WorkbenchError for such a one.
    """
    if config.target in (None, climb.target):
        return climb
    if climb.verdict != "plateau" or config.target < climb.target:
        again = command_line("run", climb.task, climb.knobs | {"target": config.target})
        raise WorkbenchError(
            f"The last climb of {climb.task!r} was judged by its target {climb.target:g}; whether "
            f"prompting reaches {config.target:g} it does not say. Leave out --target, or climb "
            f"for that one (what was answered is cached): {again}"
        )
    return climb.model_copy(update={"target": config.target})
