"""Which program of a task is its champion, changed by a person: promoted, or rolled back."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import dspy

from optimize.commands.compare import side
from optimize.commands.tasks import champion_record
from optimize.errors import WorkbenchError
from optimize.program.program import parse_program
from optimize.report.promotion import Promoted, refusal
from optimize.report.record import Side
from optimize.store import prompts
from optimize.store.champion import (
    CHAMPION,
    How,
    changes,
    crown,
    earlier,
    present,
    registered,
    version_of,
)
from optimize.store.open import client
from optimize.store.read import Found, NoRun, find_run
from optimize.store.shared import one_at_a_time
from optimize.task import load_task

BECAUSE = "promoted_because"  # the version's tag that holds the reason


def promote(root: Path, name: str, reason: str = "") -> Promoted:
    """Make the program of a run the champion of its task.

    Raises WorkbenchError where the test rows that both were asked do not show that it is better
    than the present champion, and no reason is given.
    """
    run = find_run(root, name)
    version, before = version_of(run), present(run.store, run.task)
    same = bool(before) and before.version == version.version
    found = None
    if before and not same:
        old = Found(run.store, before.run_id, run.task, before.run_id)
        with suppress(WorkbenchError, KeyError, ValueError):
            found = side(old, run, "test")
    if before and not same and not reason and not _shown(found):
        raise WorkbenchError(refusal(run.id, before.run_id, found))
    if not same:
        _change(root, run.store, before, version, "promoted", reason)
    return _promoted(root, run.task, None if same or not before else before.run_id, found)


def rollback(root: Path, task: str, reason: str = "") -> Promoted:
    """Make the champion before the present one the champion again.

    Raises WorkbenchError where none is on record.
    """
    load_task(task, root)
    store = client(root)
    now = present(store, task)
    if not now:
        raise NoRun(f"Task {task!r} has no champion yet. Run `optimize run {task}` first.")
    before = earlier(changes(store, task), str(now.version))
    if not before:
        raise WorkbenchError(
            f"No champion of {task!r} before version {now.version} is on record. `optimize runs "
            f"{task}` lists its runs, and `optimize promote RUN` takes any of them."
        )
    version = registered(store, task, before.version)
    _change(root, store, now, version, "rolled back", reason)
    return _promoted(root, task, now.run_id, None)


def _shown(found: Side | None) -> bool:
    return found is not None and found.gain.low > 0


def _change(root: Path, store: Any, before: Any, version: Any, how: How, reason: str) -> None:
    """The alias, the record and the reason; the prompts in the registry follow. before: the
    champion that the version was held against.

    Raises WorkbenchError where a run has made another one since.
    """
    task = version.name
    run = Found(store, version.run_id, task, version.run_id)
    text = run.text("program.json")
    asked = dspy.LM("openai/unasked")
    # before anything is changed: one that no longer fits the task would fail in production
    program = parse_program(load_task(task, root), text, f"run {run.id}", lambda tuned: asked)
    with one_at_a_time(store, task, root):
        now = present(store, task)
        if (now and now.version) != (before and before.version):
            raise WorkbenchError(
                f"A run of {task!r} that has just ended became the champion. Look at it (`optimize "
                f"report {task}`), and give the same command again. Nothing was changed."
            )
        crown(store, task, version, how, reason)
    if reason:
        store.set_model_version_tag(task, version.version, BECAUSE, reason)
    experiment = store.get_run(run.id).info.experiment_id
    prompts.mark(store, prompts.keep(store, experiment, program, how), CHAMPION)


def _promoted(root: Path, task: str, before: str | None, found: Side | None) -> Promoted:
    champion = champion_record(root, task)
    assert champion
    return Promoted(task=task, champion=champion, before=before, test=found)
