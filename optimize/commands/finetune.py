"""Fine-tune from the last climb, without climbing again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import dspy

from optimize.climb.observer import Observer
from optimize.climb.verdict import History
from optimize.commands.finish import Findings, settle
from optimize.commands.gate import LastClimb, last_climb
from optimize.commands.lock import task_lock
from optimize.commands.on_test import on_test
from optimize.commands.session import Both, Session, check_method, open_session, tracked_run
from optimize.commands.tune import Trained, base_of, held_against, train
from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.finetune import BACKENDS
from optimize.finetune.steps import unlabelled
from optimize.finetune.training_rows import chat_rows, tuned_student
from optimize.finetune.trl.train import Plan, check_setup, planned
from optimize.lm.reach import check_reachable
from optimize.program.program import student
from optimize.report.record import Report
from optimize.scoring.evaluate import evaluate
from optimize.store.read import HISTORY, find_run
from optimize.store.write import Run


def finetune_last(session: Session) -> Report:
    """Fine-tune from the last climb, without climbing again; its calls come from the cache."""
    if session.config.finetune not in BACKENDS:
        raise WorkbenchError(
            f"{session.config.finetune!r} trains nothing: {', '.join(BACKENDS)}. `optimize "
            "handoff` writes rows for trainers elsewhere."
        )
    check_reachable(session.config)
    with task_lock(session, "finetune") as session:
        last = last_climb(session.held_against_people())
        return settle_tuned(
            last, "finetune", lambda run: train(last.session, run, last.best, last.judged.traced)
        )


def dry_run(root: Path, name: str, config: RunConfig) -> Plan:
    """What TRL would run on the task's rows and LM, on as many GPUs as are asked for, here or
    elsewhere; checked as far as it can be without training. Asks no LM.

    Raises WorkbenchError for what could not be trained.
    """
    check_setup(config)
    session = open_session(root, name, config, Observer(), asks=False)
    check_method(config.model_copy(update={"finetune": "trl"}), session.task)
    program, out = tuned_student(student(session.task)), session.folder("adapters")
    # steps without labels are taught by answers, which nobody asks for here
    none = None if not unlabelled(program) else [()]
    train, val = (
        chat_rows(program, rows, none and none * len(rows))
        for rows in (session.splits.train, session.splits.val)
    )
    return planned(train, val, base_of(config), out, config)


def settle_tuned(last: LastClimb, command: str, training: Callable[[Run], Trained]) -> Report:
    """Hold what the training gives against the best prompt program, on val and, once, on test:
    accept or revert. Every tuned LM is judged here, whoever trained it.
    """
    session, judged, best = last.session, last.judged, last.best
    history = _history(session)
    with tracked_run(session, command) as tracked, dspy.context(lm=session.lm):
        if history:  # so that `optimize verdict` finds the climb's verdict here as well
            tracked.decided(history)
        session.watch.started("best prompt program")
        evaluation = evaluate(best, session.splits.val, session.asking)
        tested = on_test(session, {"zero_shot": student(session.task), "prompt": best})
        tuned = held_against(session, best, evaluation, training(tracked))
        for attempt in tuned.attempts:
            Both(tracked, session.watch).finished(attempt)
        own = {"seed": session.config.seed, "teacher": session.teacher_name}
        own |= {"knobs": last.report.knobs | session.config.given}
        climb = judged.climb.model_copy(update=own)
        findings = Findings(climb, judged.gate, best, evaluation, tested, tuned)
        return settle(session, tracked, findings)


def _history(session: Session) -> History | None:
    """What the climb's verdict was drawn from; None where an older version did not keep it."""
    with suppress(WorkbenchError):
        found: History = find_run(session.root, session.task.name).read(HISTORY, History)
        return found
    return None
