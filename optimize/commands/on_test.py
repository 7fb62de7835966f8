"""Programs on the test rows, one by one or through the provider's batch API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import dspy

from optimize import lm as lms
from optimize.commands.applying.batches import boxed, check_batch
from optimize.commands.session import Session
from optimize.config import RunConfig, state_dir
from optimize.errors import WorkbenchError
from optimize.program.program import Program
from optimize.scoring.evaluate import Spread, evaluate
from optimize.scoring.evaluation import Evaluation, alike
from optimize.threads import in_threads


def on_test(
    session: Session, programs: Mapping[str, Program], before: Mapping[str, Evaluation] = {}
) -> dict[str, Evaluation]:
    """Each program's answers to the test rows; where a cap is met, to as many as it allows. Rows
    that are too long for the LM with one prompt alone are lost by that one.

    before: those of other programs, whose prompts were not too long for the rows they answered.
    """
    found, asking = dict(before), replace(session.asking, to_the_cap=True)
    for name, program in programs.items():
        session.watch.started(f"{name.replace('_', ' ')} on test")
        with dspy.context(lm=lms.telling(session.lm)), _spread(session, name, program) as spread:
            found[name] = evaluate(program, session.splits.test, replace(asking, spread=spread))
    return dict(zip(found, alike(list(found.values())), strict=True))


def check_scored_batch(program: Program, config: RunConfig) -> None:
    """Raises WorkbenchError for a program whose answers cannot be had in batches, and scored."""
    if judge := program.task.judge:
        raise WorkbenchError(
            f"--batch: answers are scored by the judge {judge!r}, which is asked once each is "
            "there. Leave out --batch."
        )
    check_batch(program, config)


@contextmanager
def _spread(session: Session, name: str, program: Program) -> Iterator[Spread]:
    """In batches where that is asked for and the program can be; else it is said why not."""
    if not session.config.batch:
        yield in_threads
    elif why := _not_in_batches(program, session.config):
        session.watch.noted(f"{name} is asked for the test rows one by one: {why}")
        yield in_threads
    else:
        path = state_dir(session.home) / "batches" / f"{session.task.name}-test-{name}"
        with boxed(path, session.config, session.meter, session.watch) as spread:
            yield spread


def _not_in_batches(program: Program, config: RunConfig) -> str:
    """Why the program is not asked in batches; empty where it can be."""
    if program.tuned:
        return "its LM was tuned"
    try:
        check_scored_batch(program, config)
    except WorkbenchError as error:
        return str(error)
    return ""
