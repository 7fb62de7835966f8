"""The MLflow store: experiment = task, run = command, nested run = attempt. The only module that imports mlflow."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from optimize.devset import Splits
from optimize.errors import WorkbenchError
from optimize.evaluate import Evaluation
from optimize.files import to_json
from optimize.ladder import Attempt, Observer
from optimize.plateau import History
from optimize.program import Program, render, to_text
from optimize.records import RowScores
from optimize.report import Report, markdown
from optimize.stats import Interval

# Without these MLflow's server deadlocks offline when litellm cannot fetch its price map, and phones home.
HISTORY = "history.json"
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


def tracking_uri(root: Path) -> str:
    """Where runs are kept: `MLFLOW_TRACKING_URI`, else SQLite below the project's mlruns/."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(root / 'mlruns' / 'mlflow.db').resolve()}"


def client(root: Path) -> Any:
    """An MLflow client on the project's store, which is made on first use."""
    os.environ.update({k: v for k, v in QUIET.items() if k not in os.environ})
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for name in ("alembic", "mlflow", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = tracking_uri(root)
    local = uri.startswith("sqlite:///") and "MLFLOW_TRACKING_URI" not in os.environ
    folder = root / "mlruns"
    try:
        if not local:
            return MlflowClient(uri)
        folder.mkdir(exist_ok=True)
        with FileLock(folder / ".lock"):  # two first uses at once would both create the tables
            found = MlflowClient(uri)
            found.search_experiments(max_results=1)
            with closing(sqlite3.connect(folder / "mlflow.db")) as database:
                database.execute("PRAGMA journal_mode=WAL")  # four times faster writes, and the UI may read meanwhile
        return found
    except (MlflowException, OSError, sqlite3.Error) as error:
        raise WorkbenchError(f"The MLflow store {uri} cannot be opened: {str(error).splitlines()[0]}") from error


class Run(Observer):
    """One command's run and its nested runs, one a finished attempt. Use as a context manager."""

    def __init__(self, root: Path, task: str, command: str, config: Mapping[str, Any], splits: Splits) -> None:
        self.client = client(root)
        self.splits = splits
        found = self.client.get_experiment_by_name(task)
        self.experiment = found.experiment_id if found else self._create_experiment(root, task)
        self.task = task
        tags = {"task": task, "command": command, "mlflow.source.name": "optimize", "mlflow.user": ""}
        self.id = self.client.create_run(self.experiment, run_name=f"{command} {time.strftime('%m-%d %H:%M')}", tags=tags).info.run_id
        for name, value in {**config, "data_hash": splits.digest, **_versions()}.items():
            self.client.log_param(self.id, name, value)
        self._log_inputs()
        self._best = -1.0
        self._step = 0

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.client.set_terminated(self.id, "KILLED" if kind is KeyboardInterrupt else "FAILED" if kind else "FINISHED")

    def finished(self, attempt: Attempt) -> None:
        tags = {"rung": attempt.rung, "family": attempt.family, "promoted": str(attempt.promoted)}
        run = self._nested(attempt.rung, tags, attempt.seconds)
        for tag in ("skipped", "error"):
            if text := getattr(attempt, tag):
                self.client.set_tag(run, tag, text)
        usage = attempt.usage
        numbers: dict[str, float | None] = {
            "lm_calls": usage.calls,
            "cached_calls": usage.asked - usage.calls,
            "tokens_in": usage.tokens_in,
            "tokens_out": usage.tokens_out,
            "cost_usd": usage.cost_usd,
            "latency_p50_ms": usage.latency_p50_ms,
            "seconds": attempt.seconds,
        }
        if attempt.program and attempt.evaluation:
            numbers |= _interval("val", attempt.evaluation.interval) | {"missing": attempt.evaluation.missing}
            numbers |= _interval("gain", attempt.gain) if attempt.gain else {}
            self.client.log_param(run, "format", attempt.program.format)
            self._log_program(run, attempt.program, attempt.evaluation)
            if attempt.promoted:
                self._best = max(self._best, attempt.evaluation.interval.mean)
        self._log(run, numbers)
        self.client.log_metric(self.id, "best_val_score", self._best, step=self._step)
        self._step += 1
        self.client.set_terminated(run, "FAILED" if attempt.error else "FINISHED")

    def decided(self, history: History) -> None:
        """All that the verdict is drawn from, so that `optimize verdict` can draw it again."""
        self.client.log_text(self.id, TypeAdapter(History).dump_json(history).decode(), HISTORY)

    def scores(self, side: str, found: RowScores) -> None:
        """How the programs of this run scored each row of a side, for `optimize compare`."""
        self.client.log_text(self.id, found.model_dump_json(), f"{side}_scores.json")

    def settle(self, report: Report, program: Program, prompt_program: Program, files: Sequence[Path] = ()) -> None:
        """The verdict, the test scores and the best program, registered as a version of the task's model.

        program: the best of all; prompt_program: the best without tuned weights, from which to fine-tune later.
        """
        numbers: dict[str, float | None] = {}
        for name in ("baseline", "prompt", "tuned"):
            if record := getattr(report.test, name):
                suffix = "" if name == "prompt" else f"_{name}"
                values = {"score": record.score, "low": record.low, "high": record.high}
                numbers |= {f"test_{key}{suffix}": value for key, value in values.items()}
        if report.forgetting:
            numbers |= {"general_base": report.forgetting.base, "general_tuned": report.forgetting.tuned}
        self._log(self.id, numbers | {"lm_calls": report.lm_calls, "cost_usd": report.cost_usd, "seconds": report.seconds})
        tags = {"verdict": report.verdict, "target_met": report.target_met, "gate": "open" if report.gate.open else "closed"}
        for name, value in (tags | {"mlflow.note.content": markdown(report)}).items():
            self.client.set_tag(self.id, name, str(value))
        self.client.log_text(self.id, report.model_dump_json(indent=1), "report.json")
        self._log_state(self.id, program, "program.json")
        self._log_state(self.id, prompt_program, "prompt_program.json")
        self.client.log_text(self.id, render(program, self.splits.val[0]), "prompt.txt")
        for path in files:
            log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
            log(self.id, str(path), path.name if path.is_dir() else None)
        self._register(report)

    def _create_experiment(self, root: Path, task: str) -> str:
        local = "MLFLOW_TRACKING_URI" not in os.environ
        place = (root / "mlruns" / "artifacts" / task).resolve().as_uri() if local else None
        tags = {"mlflow.experimentKind": "custom_model_development"}  # so that the UI opens on runs and charts
        return str(self.client.create_experiment(task, artifact_location=place, tags=tags))

    def _nested(self, name: str, tags: dict[str, str], seconds: float) -> str:
        """A nested run for work that took so long and ends now."""
        tags |= {"mlflow.parentRunId": self.id, "task": self.task}
        began = int((time.time() - seconds) * 1000)
        return str(self.client.create_run(self.experiment, start_time=began, run_name=name, tags=tags).info.run_id)

    def _log(self, run: str, numbers: Mapping[str, float | None]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(run, [Metric(k, float(v), now, 0) for k, v in numbers.items() if v is not None])

    def _log_inputs(self) -> None:
        """The dev set as dataset inputs, with its digest; rows stay in devsets/."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = []
        for side, rows in self.splits.sides().items():
            profile = json.dumps({"num_rows": len(rows)})
            source = json.dumps({"path": f"devsets/{self.task}"})
            dataset = Dataset(f"{self.task}-{side}", self.splits.digest[:12], "local", source, profile=profile)
            inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", side)]))
        self.client.log_inputs(self.id, inputs)

    def _log_program(self, run: str, program: Program, evaluation: Evaluation) -> None:
        self._log_state(run, program, "program.json")
        self.client.log_text(run, render(program, self.splits.val[0]), "prompt.txt")
        pairs = list(zip(self.splits.val, evaluation.outcomes, strict=False))
        table: dict[str, list[Any]] = {name: [_cell(e[name]) for e, _ in pairs] for name in program.task.signature.input_fields}
        table |= {f"gold {name}": [_cell(e[name]) for e, _ in pairs] for name in program.task.signature.output_fields}
        table |= {"answer": [_cell(o.answer) for _, o in pairs], "score": [o.score for _, o in pairs]}
        table |= {"feedback": [o.feedback for _, o in pairs], "error": [o.error for _, o in pairs]}
        self.client.log_table(run, table, "examples.json")

    def _log_state(self, run: str, program: Program, name: str) -> None:
        self.client.log_text(run, to_text(program), name)

    def _register(self, report: Report) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.task)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        run = self.client.get_run(self.id)
        version = self.client.create_model_version(self.task, f"{run.info.artifact_uri}/program.json", self.id)
        for name, value in {"verdict": report.verdict, "lm": report.lm, "test_score": report.test.prompt.score}.items():
            self.client.set_model_version_tag(self.task, version.version, name, str(value))


@dataclass(frozen=True)
class Found:
    """A run of this store: its id, its task, and what it was called by."""

    root: Path
    id: str
    task: str
    name: str

    def artifact(self, name: str) -> Path:
        """A file the run keeps. Raises WorkbenchError where it has none of that name."""
        from mlflow.exceptions import MlflowException

        folder = tempfile.mkdtemp(prefix="optimize-")
        try:
            return Path(client(self.root).download_artifacts(self.id, name, folder))
        except (MlflowException, OSError):
            raise WorkbenchError(f"Run {self.name} keeps no {name}: it was stopped too early, or an older version made it.") from None

    def read(self, name: str, kind: type[Any]) -> Any:
        """That file as the type it was written from. Raises WorkbenchError where an older version wrote it otherwise."""
        try:
            return TypeAdapter(kind).validate_json(self.artifact(name).read_bytes())
        except ValidationError:
            raise WorkbenchError(f"{name} of run {self.name} was written by another version; make the run again.") from None


def find_run(root: Path, name: str) -> Found:
    """TASK: its last finished run; TASK~1: the one before; or an id's first letters. Raises WorkbenchError if there is none."""
    store = client(root)
    task, _, back = name.partition("~")
    experiment = store.get_experiment_by_name(task)
    if experiment is None:
        return _by_id(root, store, name)
    if back and not back.isdecimal():
        raise WorkbenchError(f"Run {name!r}: write {task}~1 for the run before the last, {task}~2 for the one before that.")
    filters = "attributes.status = 'FINISHED' and tags.verdict != ''"
    runs = store.search_runs([experiment.experiment_id], filters, max_results=int(back or 0) + 1)
    if len(runs) <= int(back or 0):
        many = f"has only {len(runs)} finished runs" if runs else "has no finished run yet"
        raise WorkbenchError(f"Task {task!r} {many}. Run `optimize run {task}` first.")
    return Found(root, runs[-1].info.run_id, task, name)


def _by_id(root: Path, store: Any, name: str) -> Found:
    experiments = [e.experiment_id for e in store.search_experiments()]
    runs = store.search_runs(experiments, max_results=50_000) if len(name) >= 6 else []
    found = [run for run in runs if run.info.run_id.startswith(name) and "mlflow.parentRunId" not in run.data.tags]
    if len(found) != 1:
        raise WorkbenchError(
            f"No run {name!r}: give a task with a finished run, TASK~1 for the run before it, or six or more letters of a run's id."
        )
    return Found(root, found[0].info.run_id, found[0].data.tags.get("task", ""), name)


def last_run(root: Path, task: str, program_name: str = "program.json") -> tuple[Report, Path]:
    """The report and a program's file of the task's last finished run. Raises WorkbenchError if there is none."""
    if client(root).get_experiment_by_name(task) is None:
        raise WorkbenchError(f"Task {task!r} has no finished run yet. Run `optimize run {task}` first.")
    found = find_run(root, task)
    return found.read("report.json", Report), found.artifact(program_name)


def ui_command(root: Path, port: int) -> list[str]:
    """The command that opens the MLflow UI on this store, on loopback."""
    client(root)
    local = ["--backend-store-uri", tracking_uri(root), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *local]


def _interval(name: str, interval: Interval) -> dict[str, float | None]:
    first = "gain" if name == "gain" else f"{name}_score"
    return {first: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else to_json(value)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {"dspy": dspy.__version__, "mlflow": version("mlflow"), "optimize": version("optimize-workbench")}
