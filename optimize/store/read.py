"""Runs found again by name, and what they keep."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from optimize import __version__
from optimize.climb.verdict import History
from optimize.errors import WorkbenchError, did_you_mean
from optimize.report.recheck import RecheckRecord
from optimize.report.record import Report
from optimize.stats.judge import Confusion
from optimize.stats.reads import ByRow
from optimize.stats.records import RowScores
from optimize.store.open import client
from optimize.store.tags import PARENT
from optimize.task import task_names


class NoRun(WorkbenchError):
    """The task has no finished run in this store yet."""


NOT_YET = "has no finished run yet"
TEST_SCORES = "test_scores.json"
TEST_ROWS = "test_rows.json"  # what programs answered to the test rows
RECHECK = "recheck.json"
AT = " at "  # between an LM and its address, where a recheck names its programs
HISTORY = "history.json"  # all that a run's verdict was drawn from
AFTERWARDS = ("recheck", "monitor")  # commands that look at a program in use, and make none


@dataclass(frozen=True)
class Found:
    """A run of this store: its id, its task, and what it was called by."""

    store: Any
    id: str
    task: str
    name: str

    @property
    def version(self) -> str:
        """The version of optimize that made the run."""
        return str(self.store.get_run(self.id).data.params.get("optimize", "unknown"))

    @property
    def lm(self) -> str:
        """The LM that was asked for the task."""
        return str(self.store.get_run(self.id).data.params.get("lm", "unknown"))

    @property
    def metric(self) -> str:
        """A hash of the metric that scored it; empty for a judge, and where it is not known."""
        return str(self.store.get_run(self.id).data.params.get("metric", ""))

    def text(self, name: str) -> str:
        """A text file the run keeps. Raises WorkbenchError where it has none of that name."""
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory(prefix="optimize-") as folder:
            try:
                path = Path(self.store.download_artifacts(self.id, name, folder))
                return path.read_text(encoding="utf-8")
            except (MlflowException, OSError):
                raise WorkbenchError(
                    f"Run {self.name} keeps no {name}: it was stopped too early, or an older "
                    "version made it."
                ) from None

    def read(self, name: str, kind: type[Any]) -> Any:
        """That file as the type it was written from.

        Raises WorkbenchError where an older version wrote it otherwise.
        """
        try:
            return TypeAdapter(kind).validate_json(self.text(name))
        except ValidationError:
            raise WorkbenchError(
                f"{name} of run {self.name} was written by optimize {self.version}, which "
                f"{__version__} does not read: make the run again with `optimize run {self.task}`."
            ) from None


def judge_of(*runs: Found) -> Confusion | None:
    """How the LM judge errs that scored all these runs; None where a metric did.

    Raises WorkbenchError where it was not one judge, or not one metric.
    """
    check_metric(*runs)
    found: list[Confusion | None] = []
    for run in runs:
        history: History | None = None
        with suppress(WorkbenchError):
            history = run.read(HISTORY, History)
        found.append(history.judge if history else None)
    if any(judge != found[0] for judge in found):
        names = " and ".join(run.name for run in runs)
        raise WorkbenchError(
            f"{names} were scored by different judges, so their scores do not compare. Run the "
            "first one again."
        )
    return found[0]


def check_metric(*runs: Found) -> None:
    """Raises WorkbenchError where it is known that different metrics scored these runs."""
    if len({run.metric for run in runs} - {""}) > 1:
        names = " and ".join(run.name for run in runs)
        raise WorkbenchError(
            f"{names} were scored by different metrics, so their scores do not compare. Run the "
            "first one again."
        )


def find_run(root: Path, name: str) -> Found:
    """TASK: its last finished run; TASK~1: the one before; or an id's first letters. Raises
    WorkbenchError if there is none.
    """
    store, task = client(root), name.partition("~")[0]
    if found := _of_task(store, name):
        return found
    if task in (tasks := task_names(root)):
        raise _not_run(task)
    return _by_id(store, name, did_you_mean(task, tasks))


def _of_task(store: Any, name: str) -> Found | None:
    """TASK or TASK~N; None where there is no such task in the store."""
    task, _, back = name.partition("~")
    experiment = store.get_experiment_by_name(task)
    if experiment is None:
        return None
    if back and not back.isdecimal():
        raise WorkbenchError(
            f"Run {name!r}: write {task}~1 for the run before the last, {task}~2 for the one "
            "before that. A rung, as in TASK~guide, is for show, diff and failures."
        )
    filters = "attributes.status = 'FINISHED' and tags.verdict != ''"
    runs = store.search_runs([experiment.experiment_id], filters, max_results=int(back or 0) + 1)
    if len(runs) <= int(back or 0):
        raise _not_run(task, f"has only {len(runs)} finished runs" if runs else NOT_YET)
    return Found(store, runs[-1].info.run_id, task, name)


def _not_run(task: str, many: str = NOT_YET) -> NoRun:
    return NoRun(f"Task {task!r} {many}. Run `optimize run {task}` first.")


def _by_id(store: Any, name: str, near: str) -> Found:
    experiments = [e.experiment_id for e in store.search_experiments()]
    runs = store.search_runs(experiments, max_results=50_000) if len(name) >= 6 else []
    found = [
        run for run in runs if run.info.run_id.startswith(name) and PARENT not in run.data.tags
    ]
    if len(found) != 1:
        raise WorkbenchError(
            f"No run {name!r}.{near} Give a task with a finished run, TASK~1 for the run before "
            "it, or six or more letters of a run's id; `optimize runs` lists them."
        )
    tags = found[0].data.tags
    if (command := tags.get("command", "")) in AFTERWARDS:
        raise WorkbenchError(
            f"Run {name!r} is a {command}, which makes no program. What it found is in `optimize "
            f"runs {tags.get('task', '')}`, and whole in `optimize ui` ({command}.json)."
        )
    return Found(store, found[0].info.run_id, tags.get("task", ""), name)


def earlier_tests(root: Path, task: str, programs: Sequence[str]) -> list[ByRow]:
    """How these programs of the task's finished runs scored on their test rows. Runs that keep no
    such scores are left out.
    """
    found = list[ByRow]()
    for run in _finished(root, task):
        with suppress(WorkbenchError):
            scores: RowScores = run.read(TEST_SCORES, RowScores)
            found += [scores.of(name) for name in programs if name in scores.programs]
    return found


def rechecks(root: Path, task: str) -> list[Found]:
    """The task's finished rechecks."""
    return _finished(root, task, "tags.command = 'recheck'")


def rechecked_tests(root: Path, task: str) -> dict[tuple[str, str], ByRow]:
    """As `earlier_tests`: what rechecks have read, by the run and the LM. Of a program that was
    asked often the last time alone, and none on the LM that it was made for: to ask the same
    program again chooses nothing.
    """
    found: dict[tuple[str, str], ByRow] = {}
    for run in rechecks(root, task):  # the newest one first
        with suppress(WorkbenchError):
            scores: RowScores = run.read(TEST_SCORES, RowScores)
            record: RecheckRecord = run.read(RECHECK, RecheckRecord)
            for name in scores.programs:
                if name.partition(AT)[0] != record.lm:
                    found.setdefault((record.run, name), scores.of(name))
    return found


def earlier_histories(root: Path, task: str, rows: Sequence[str]) -> Iterator[History]:
    """The climbs of the task's finished runs, where most of their val rows were these ones."""
    for run in _finished(root, task):
        with suppress(WorkbenchError):
            history: History = run.read(HISTORY, History)
            if _most(rows, history.rows):
                yield history


def _finished(root: Path, task: str, kind: str = "tags.verdict != ''") -> list[Found]:
    store = client(root)
    experiment = store.get_experiment_by_name(task)
    filters = f"attributes.status = 'FINISHED' and {kind}"
    ids = [experiment.experiment_id] if experiment else []
    runs = store.search_runs(ids, filters, max_results=1000) if ids else []
    return [Found(store, run.info.run_id, task, run.info.run_id) for run in runs]


def params_since(root: Path, task: str, run: str) -> tuple[dict[str, str], dict[str, str]]:
    """The parameters of this run, and those of the one of its task that was begun before it; empty
    where it is the first.
    """
    store = client(root)
    now = store.get_run(run)
    others = " and ".join(f"tags.command != '{name}'" for name in ("", *AFTERWARDS))
    earlier = f"attributes.start_time < {now.info.start_time} and {others}"
    found = store.search_runs([now.info.experiment_id], earlier, max_results=1)
    return dict(now.data.params), dict(found[0].data.params) if found else {}


def _most(rows: Sequence[str], known: Sequence[str]) -> bool:
    return 2 * len(set(rows) & set(known)) > len(rows)


def reported(root: Path, name: str) -> tuple[Report, Found]:
    """The report of a run that is named as for `find_run`, and that run."""
    found = find_run(root, name)
    return found.read("report.json", Report), found


def last_run(root: Path, task: str) -> tuple[Report, Found]:
    """The report of the task's last finished run, and that run.

    Raises NoRun if there is none, WorkbenchError where an older version wrote the report.
    """
    found = _of_task(client(root), task)
    if found is None:
        raise _not_run(task)
    return found.read("report.json", Report), found
