"""A task's best program so far: the registered version with the alias `champion`; which it was
before, and why it changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from optimize.errors import WorkbenchError
from optimize.stats.intervals import Gain, paired_gain
from optimize.stats.records import RowScores
from optimize.store.open import client
from optimize.store.read import TEST_SCORES, Found, NoRun, check_metric, judge_of

CHAMPION = "champion"
NONE_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no such model, no such alias
LOG = "champion_log"  # the registered model's tag that holds its changes
LONGEST = 4500  # letters of it; MLflow's databases take 5,000
WHY = 300  # letters of a reason
How = Literal["run", "hand", "promoted", "rolled back"]


@dataclass(frozen=True)
class Change:
    """A version became the champion. how: a run's own scores, `optimize promote`, `optimize
    rollback`, or the alias was set by hand.
    """

    version: str
    run: str
    at: str
    how: How = "run"
    reason: str = ""


def champion(root: Path, task: str) -> Found:
    """The run whose program is the task's best. Raises NoRun where no version is the champion."""
    store = client(root)
    version = present(store, task)
    if not version:
        raise NoRun(
            f"Task {task!r} has no best program in this store yet. Run `optimize run {task}` "
            f"first, or give a registered version the alias {CHAMPION!r} in `optimize ui`."
        )
    return Found(store, version.run_id, task, f"{task} ({CHAMPION})")


def present(store: Any, task: str) -> Any:
    """The version that is the champion; None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return store.get_model_version_by_alias(task, CHAMPION)
    except MlflowException as error:
        if error.error_code in NONE_THERE:
            return None
        raise WorkbenchError(  # a store that cannot tell must not look as if there was none
            f"The MLflow store does not say which program of task {task!r} is the best: "
            f"{str(error.message).splitlines()[0]}"
        ) from error


def version_of(run: Found) -> Any:
    """The version that a run has registered. Raises WorkbenchError where it has none."""
    found = run.store.search_model_versions(f"name = '{run.task}' and run_id = '{run.id}'")
    if not found:
        raise WorkbenchError(
            f"Run {run.name} has registered no program: it was stopped, or an older version of "
            f"optimize made it. `optimize runs {run.task}` lists others."
        )
    return found[0]


def changes(store: Any, task: str) -> list[Change]:
    """The champions of a task on record, the first one first."""
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException, KeyError, ValueError, TypeError):
        return [Change(**known) for known in json.loads(store.get_registered_model(task).tags[LOG])]
    return []


def crown(store: Any, task: str, version: Any, how: How = "run", reason: str = "") -> Change:
    """Make a version the champion and keep that on record.

    Raises WorkbenchError where the version is gone.
    """
    from mlflow.exceptions import MlflowException

    log, now = changes(store, task), datetime.now(UTC).isoformat(timespec="seconds")
    before = present(store, task)
    if before and not (log and log[-1].version == str(before.version)):
        log.append(Change(str(before.version), before.run_id, now, "hand"))
    new = Change(str(version.version), version.run_id, now, how, reason[:WHY])
    try:
        store.set_registered_model_alias(task, CHAMPION, new.version)
    except MlflowException as error:
        raise WorkbenchError(
            f"Version {new.version} of model {task!r} cannot be the champion: {error.message}"
        ) from error
    log.append(new)
    while len(told := json.dumps([asdict(change) for change in log])) > LONGEST:
        del log[0]
    store.set_registered_model_tag(task, LOG, told)
    return new


def registered(store: Any, task: str, number: str) -> Any:
    """A version of the task's model, by its number. Raises WorkbenchError where it was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        return store.get_model_version(task, number)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise WorkbenchError(
            f"Version {number} of model {task!r}, the champion before, is not there any more. "
            f"`optimize promote RUN` takes any other run of `optimize runs {task}`."
        ) from None


def earlier(log: Sequence[Change], now: str) -> Change | None:
    """The champion before version `now`; what was rolled back is none. None: not on record."""
    stack: list[Change] = []
    for change in log:
        if change.how == "rolled back":
            while stack and stack[-1].version != change.version:
                stack.pop()
        elif not stack or stack[-1].version != change.version:
            stack.append(change)
    others = [change for change in stack if change.version != now]
    return others[-1] if others else None


def gain_over(
    store: Any, champion: Any, new: Found, rows: str, test: RowScores
) -> tuple[Gain | None, int]:
    """The gain of a run's `final` over the champion on the test rows that both were asked, and how
    many those are; None where the champion keeps no such scores, or another metric or judge gave
    them.

    champion: its version. rows: the hash of the run's, which another judge changes as well.
    """
    with suppress(WorkbenchError, KeyError, ValueError):
        old = Found(store, champion.run_id, new.task, CHAMPION)
        check_metric(old, new)
        if judged_by(champion.tags)[0].partition(":")[0] != rows:
            judge_of(old, new)
        found: RowScores = old.read(TEST_SCORES, RowScores)
        known = dict(zip(found.rows, found.programs["final"], strict=True))
        both = known.keys() & set(test.rows)
        gain = paired_gain([known.get(row) for row in test.rows], test.programs["final"])
        return gain, len(both)
    return None, 0


def judged_by(tags: Mapping[str, Any]) -> tuple[str, int]:
    """What a version's tags say of the rows that judged it: their hash, and how many test rows it
    was asked. Empty and 0 where they say nothing.
    """
    rows = tags.get("version_of_rows") or tags.get("data_hash")  # its name of earlier versions
    return (str(rows), int(tags["test_rows"])) if rows and "test_rows" in tags else ("", 0)


def takes_over(
    new: Mapping[str, Any], champion: Mapping[str, str], gain: Gain | None, shared: int
) -> bool:
    """Whether a version becomes the champion: judged by another metric or on other rows (of those
    it was asked, fewer than half judged the champion), on more test rows, or better than the
    champion on as many, by more than a standard error.

    Train rows that were added make no other judges: a version that was asked all of the champion's
    test rows is held against it. That is the step of the Ladder without parameters (Blum & Hardt
    2015): test rows that many versions are held against release a new best only where it is more
    than their noise. A trial with a handful of test rows must not replace what was judged on all of
    them, nor a version on more rows one that is surely better on those of both.

    gain: over the champion, paired. shared: test rows that both were asked, whether or not their
    calls failed.
    """
    (rows, asked), (before, known) = judged_by(new), judged_by(champion)
    if not known:
        return True
    metrics = {new.get("metric"), champion.get("metric")} - {None, ""}
    same = before.startswith(rows.partition(":")[0])  # what follows says how many were used
    if len(metrics) > 1 or (not same and 2 * shared < asked):
        return True
    if asked != known:
        return asked > known and (gain is None or gain.high >= 0)
    return gain is None or gain.mean > gain.error
