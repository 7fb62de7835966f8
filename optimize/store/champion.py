"""A task's best program so far: the registered version with the alias `champion`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimize.store.open import client
from optimize.store.read import Found, NoRun

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


def takes_over(new: Mapping[str, Any], champion: Mapping[str, str]) -> bool:
    """Whether a version becomes the champion: judged on other rows, on more test rows, or on as
    many with at least the champion's score.

    A trial with a handful of test rows must not replace what was judged on all of them.
    """
    rows, _, _ = str(new["data_hash"]).partition(":")  # what follows says how many were used
    if not champion.get("data_hash", "").startswith(rows):
        return True
    known = int(champion["test_rows"]), float(champion["test_score"])
    return (int(new["test_rows"]), float(new["test_score"])) >= known
