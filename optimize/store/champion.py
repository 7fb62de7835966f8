"""A task's best program so far: the registered version with the alias `champion`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError
from optimize.stats.intervals import Gain, paired_gain
from optimize.stats.records import RowScores
from optimize.store.open import client
from optimize.store.read import TEST_SCORES, Found, NoRun

CHAMPION = "champion"


def champion(root: Path, task: str) -> Found:
    """The run whose program is the task's best. Raises NoRun where no version is the champion."""
    from mlflow.exceptions import MlflowException

    store = client(root)
    try:
        version = store.get_model_version_by_alias(task, CHAMPION)
    except MlflowException:
        raise NoRun(
            f"Task {task!r} has no best program in this store yet. Run `optimize run {task}` "
            f"first, or give a registered version the alias {CHAMPION!r} in `optimize ui`."
        ) from None
    return Found(store, version.run_id, task, f"{task} ({CHAMPION})")


def champion_tags(store: Any, task: str) -> Mapping[str, str]:
    """What the champion was registered with; empty where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return dict(store.get_model_version_by_alias(task, CHAMPION).tags)
    except MlflowException:
        return {}


def gain_over(store: Any, task: str, test: RowScores) -> Gain | None:
    """The gain of `final` over the champion on the test rows that both were asked; None where
    there is no champion, or it keeps no such scores.
    """
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException, WorkbenchError, KeyError, ValueError):
        version = store.get_model_version_by_alias(task, CHAMPION)
        found: RowScores = Found(store, version.run_id, task, CHAMPION).read(TEST_SCORES, RowScores)
        known = dict(zip(found.rows, found.programs["final"], strict=True))
        return paired_gain([known.get(row) for row in test.rows], test.programs["final"])
    return None


def takes_over(new: Mapping[str, Any], champion: Mapping[str, str], gain: Gain | None) -> bool:
    """Whether a version becomes the champion: judged on other rows, on more test rows, or better
    than the champion on as many, by more than a standard error.

    That is the step of the Ladder without parameters (Blum & Hardt 2015): test rows that many
    versions are held against release a new best only where it is more than their noise. gain: over
    the champion, paired. A trial with a handful of test rows must not replace what was judged on
    all of them.
    """
    rows, _, _ = str(new["data_hash"]).partition(":")  # what follows says how many were used
    if not champion.get("data_hash", "").startswith(rows):
        return True
    known = int(champion["test_rows"])
    if int(new["test_rows"]) != known:
        return int(new["test_rows"]) > known
    return gain is None or gain.mean > gain.error
