"""A task's experiment, and the views of its runs that stand ready in MLflow's UI.

The UI keeps its choice of columns in the browser, and a browser that never saw an experiment shows
none of its metrics. What it does read from the store are views that somebody has saved: tags of the
experiment, in its menu "Views" and under an address of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError
from optimize.store.open import client, is_shared, shown_uri
from optimize.store.tags import NOTE, OF_EXPERIMENT

VIEW = "mlflow.sharedViewState."  # the prefix of the tags that MLflow's UI saves views in
MODE = "workflowType=machine_learning"
RUNS, RUNGS = "runs", "rungs"  # the views' ids, as they stand in an address
LONG, USUAL, WIDE = 20, 100, 140  # letters of a name that needs more pixels than others
SCORED_RUNGS = "params.rung != '' and metrics.score >= 0"
COLUMNS = {
    RUNS: (  # what a narrow window must show comes first
        "metrics.`score`",
        "params.`target`",
        "metrics.`score_zero_shot`",
        "metrics.`score_without_lm`",
        "metrics.`score_low`",
        "metrics.`score_high`",
        "metrics.`used_calls`",
        "metrics.`used_usd`",
        "params.`lm`",
        "tags.`gate`",
    ),
    RUNGS: (
        "metrics.`score`",
        "metrics.`score_low`",
        "metrics.`score_high`",
        "metrics.`score_gain`",
        "params.`demos`",
        "params.`demos_nearest`",
        "params.`format`",
        "params.`guide`",
        "params.`instructions`",
        "metrics.`used_calls`",
        "params.`lm`",
        "params.`seed`",
    ),
}


def experiment(store: Any, root: Path, task: str, tags: Mapping[str, str] | None = None) -> str:
    """The id of the task's experiment, which is made where there is none. tags: of one that is no
    task's.
    """
    from mlflow.exceptions import MlflowException

    found, tags = store.get_experiment_by_name(task), _tags(task) if tags is None else tags
    if found is None:
        if not is_shared():
            place = (root / "mlruns" / "artifacts" / task).resolve().as_uri()
            return str(store.create_experiment(task, artifact_location=place, tags=tags))
        with suppress(MlflowException):  # another machine was faster
            return str(store.create_experiment(task, tags=tags))
        found = store.get_experiment_by_name(task)
    if found.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        raise WorkbenchError(
            f"The experiment {task!r} was deleted in MLflow. It comes back with: "
            f"MLFLOW_TRACKING_URI={shown_uri(root)} {restore}"
        )
    for name, value in tags.items():  # an older version may have made it
        if name not in found.tags or _is_outdated(name, found.tags[name], value):
            store.set_experiment_tag(found.experiment_id, name, value)
    return str(found.experiment_id)


def _is_outdated(name: str, known: str, now: str) -> bool:
    """Whether a tag is a view of ours with other columns than today's, that nobody has changed."""
    if not name.startswith(VIEW):
        return False
    old: dict[str, Any] = json.loads(known)
    untouched = bool(old["createdAt"] == old["updatedAt"])
    return untouched and old["state"] != json.loads(now)["state"]


def addresses(root: Path, ui: str) -> dict[str, str]:
    """Where each task's runs are shown with their scores. ui: the address of MLflow's UI, which
    opens with its tools for traces where nothing else is said.
    """
    return {
        found.name: f"{ui}/#/experiments/{found.experiment_id}/runs?{MODE}&viewStateShareKey={RUNS}"
        for found in client(root).search_experiments()
        if VIEW + RUNS in found.tags
    }


def _tags(task: str) -> dict[str, str]:
    return {
        **OF_EXPERIMENT,
        "mlflow.experiment.primaryMetric.name": "score",
        NOTE: _note(task),
        VIEW + RUNS: _view("Runs with their scores", RUNS, "attributes.start_time", ""),
        VIEW + RUNGS: _view("Rungs, the best first", RUNGS, "metrics.`score`", SCORED_RUNGS),
    }


def _view(name: str, view: str, order: str, search: str) -> str:
    """A view as the UI saves it: a name, and the page's whole state as JSON in JSON."""
    state = {
        "selectedColumns": COLUMNS[view],
        "columnOrder": COLUMNS[view],
        "columnWidths": {name: WIDE if len(name) > LONG else USUAL for name in COLUMNS[view]},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
        "orderByKey": order,
        "orderByAsc": False,
        "searchFilter": search,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
    }
    now = int(time.time() * 1000)
    found = {"name": name, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
    return json.dumps(found)


def _note(task: str) -> str:
    return (
        f"Task `{task}`. A run is one command, named by its verdict and its score on the test rows "
        "of the target; the runs inside it are the levers it tried, with their scores on the val "
        "rows.\n\n"
        "**To see scores as columns** open *Views*, top right: *Runs with their scores* and "
        "*Rungs, the best first*. **To compare**, tick runs and press *Compare*. A run's "
        "description is its report; `examples.json` of a lever has every row and answer.\n\n"
        f"**To use the best program**: `load_program({task!r})` in Python, or `mlflow models serve "
        f"-m models:/{task}@champion --env-manager local`. Its prompts are under *Prompts*, a "
        "version for each that a run built on."
    )
