"""Write the fine-tuning hand-off of the last climb."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import dspy

from optimize.commands.gate import last_climb
from optimize.commands.lock import task_lock
from optimize.commands.session import Session, check_one_step
from optimize.errors import WorkbenchError
from optimize.finetune import finetune_command, untrainable
from optimize.finetune.handoff.bundle import Material, write_bundle
from optimize.finetune.handoff.manifest import Facts, Manifest
from optimize.lm.reach import check_reachable
from optimize.program.program import Program
from optimize.report.record import Report
from optimize.scoring.evaluate import evaluate


def handoff_last(session: Session, pairs: bool) -> tuple[Path, Manifest, str]:
    """Write the hand-off of the last climb's best prompt program; its folder, what it says of it,
    and the command that trains here. Raises WorkbenchError where the gate is closed.

    pairs: ask that program for the train rows as well, and make preference pairs of what it gets
    wrong.
    """
    if pairs:
        check_one_step(session.task, "--pairs", "Leave --pairs out.")
        check_reachable(session.config)
    with task_lock(session, "handoff") as session:
        last = last_climb(session)
        session, traced = last.session, last.judged.traced
        material = Material(traces=traced.traces if traced else None)
        if pairs:
            session.watch.started("best prompt program on train")
            asking = replace(session.asking, repeats=1)
            with dspy.context(lm=session.lm):
                found = evaluate(last.best, session.splits.train, asking)
            material = replace(material, outcomes=found.outcomes)
        report = last.report.model_copy(
            update={"gate": last.judged.gate, "target": last.judged.climb.target}
        )
        return *bundle(session, report, last.best, material), _trains_here(session, report)


def bundle(
    session: Session, report: Report, best: Program, material: Material
) -> tuple[Path, Manifest]:
    """The hand-off's folder and what it says of itself. Raises WorkbenchError where it cannot be
    written.
    """
    test = {
        "zero-shot": report.test.zero_shot,
        "best prompt program": report.test.prompt,
        **report.test.baselines,
    }
    before = {f"{name}, test": score for name, score in test.items()}
    cannot = untrainable(session.config)
    facts = Facts(
        lm=report.lm,
        target=report.target,
        seed=report.seed,
        epochs=session.config.epochs,
        verdict=report.verdict,
        reason=report.reason,
        gate=report.gate,
        before={"best prompt program, judging rows": report.numbers.best, **before},
        finetune=f"# not in the project itself: {cannot}"
        if cannot
        else f"{_trains_here(session, report)}      # in the project itself",
    )
    folder = session.folder("handoff")
    try:
        return folder, write_bundle(folder, best, session.splits, facts, material)
    except OSError as error:
        raise WorkbenchError(
            f"The hand-off {folder} cannot be written: {error.strerror or error}."
        ) from error


def _trains_here(session: Session, report: Report) -> str:
    """As the climb was made, but for what this command was given."""
    return finetune_command(report.task, report.knobs | session.config.given)
