"""Write the fine-tuning hand-off of the last climb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import dspy

from optimize.commands.gate import last_climb
from optimize.commands.session import Session
from optimize.finetune.handoff.bundle import write_bundle
from optimize.finetune.handoff.manifest import Facts, Manifest
from optimize.program.program import Program
from optimize.report.record import Report
from optimize.scoring.evaluate import Outcome, evaluate


def handoff_last(session: Session, pairs: bool) -> tuple[Path, Manifest]:
    """Write the hand-off of the last climb's best prompt program; raises WorkbenchError where the
    gate is closed.

    pairs: ask that program for the train rows as well, and make preference pairs of what it gets
    wrong.
    """
    session, last, opened, best = last_climb(session)
    report = last.model_copy(update={"gate": opened})
    outcomes: tuple[Outcome, ...] = ()
    if pairs:
        session.watch.started("best prompt program on train")
        with dspy.context(lm=session.lm):
            outcomes = evaluate(
                best, session.splits.train, replace(session.asking, repeats=1)
            ).outcomes
    return bundle(session, report, best, outcomes)


def bundle(
    session: Session, report: Report, best: Program, outcomes: Sequence[Outcome] = ()
) -> tuple[Path, Manifest]:
    """The hand-off's folder and what it says of itself."""
    test = {
        "zero-shot": report.test.zero_shot,
        "best prompt program": report.test.prompt,
        **report.test.baselines,
    }
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
