"""The store where things go wrong around it: moved, damaged, left behind by a process that died."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from fastapi import FastAPI
from mlflow.exceptions import MlflowException

from optimize.climb.observer import Attempt
from optimize.commands.new import write_task
from optimize.commands.session import load_task_and_rows
from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.program.program import student
from optimize.scoring.evaluation import Evaluation, Outcome
from optimize.store.experiment import experiment
from optimize.store.open import client, has_store, is_shared, tracking_uri
from optimize.store.rungs import _row
from optimize.store.table import row_table
from optimize.store.write import Run
from tests.faulty_server import faulty_app
from tests.test_cli import optimize
from tests.test_lm import served

TEXT = "[[ ## verdict ## ]]\npositive\n\n[[ ## completed ## ]]"


@pytest.fixture
def endpoint() -> Iterator[tuple[FastAPI, list[str]]]:
    """A server, and the flags with which a run asks it."""
    app = faulty_app(lambda text: TEXT, lambda asked: "")
    with served(app) as url:
        flags = ["--lm", "openai/any", "--api-base", f"{url}/v1", "--finetune", "never"]
        yield app, [*flags, "--max-calls", "60"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "first place"
    (root / "programs").mkdir(parents=True)
    write_task(root, "review")
    return root


def test_a_folder_that_can_only_be_read_is_told(project: Path) -> None:
    folder = project / "mlruns"
    folder.mkdir()
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write to every folder")
    with pytest.raises(WorkbenchError, match="can only be read here: copy the project"):
        client(project)


def statuses(root: Path) -> list[str]:
    store = client(root)
    (found,) = [e for e in store.search_experiments() if e.name == "review"]
    whole = "tags.command = 'run'"
    return [r.info.status for r in store.search_runs([found.experiment_id], filter_string=whole)]


def test_a_project_that_was_moved_keeps_its_runs(
    project: Path, endpoint: tuple[FastAPI, list[str]]
) -> None:
    flags = endpoint[1]
    assert optimize(project, "run", "review", *flags).returncode == 1
    before = optimize(project, "report", "review").stdout
    place = project.parent / "näxt_place 100%"
    project.rename(place)
    assert optimize(place, "report", "review").stdout == before
    with (place / "programs" / "review.py").open("a") as file:
        file.write("# read again\n")
    again = optimize(place, "run", "review", *flags, "--seed", "1")
    assert again.returncode == 1 and not project.exists()
    assert (
        "since the last run: programs/review.py, seed (0 before, 1 now). Calls that stay the same"
        in again.stderr
    )


def test_a_run_whose_process_died_does_not_go_on_for_ever(
    project: Path, endpoint: tuple[FastAPI, list[str]]
) -> None:
    app, flags = endpoint
    running = subprocess.Popen(
        [sys.executable, "-m", "optimize", "run", "review", *flags],
        cwd=project,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while not app.state.log and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert statuses(project) == ["RUNNING"]
    assert optimize(project, "run", "review", *flags).returncode == 1
    assert sorted(statuses(project)) == ["FINISHED", "KILLED"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100] + b"x" * 20000)


def file_for_folder(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text("")


@pytest.mark.parametrize("break_it", [cut, file_for_folder])
def test_a_store_that_cannot_be_used_is_told_before_a_call(
    project: Path, endpoint: tuple[FastAPI, list[str]], break_it: Callable[[Path], None]
) -> None:
    app, flags = endpoint
    client(project)
    for extra in ("-wal", "-shm"):
        (project / "mlruns" / f"mlflow.db{extra}").unlink(missing_ok=True)
    break_it(project / "mlruns" / "mlflow.db")
    done = optimize(project, "run", "review", *flags)
    assert (done.returncode, app.state.log) == (2, []), done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: ") and "mlruns" in last and "Traceback" not in done.stderr


def test_what_could_not_be_written_down_is_no_secret(project: Path) -> None:
    """An attempt is written beside the next lever's calls: its fault must reach the climb."""
    _, splits = load_task_and_rows(project, "review", RunConfig())
    attempt = Attempt("passages", "retrieval", skipped="the task has no corpus.jsonl")
    with (
        pytest.raises(MlflowException, match="deleted"),
        Run(project, "review", "run", {}, splits) as run,
    ):
        run.client.delete_experiment(run.experiment)
        run.finished(attempt)
        run.finished(attempt)


def test_inputs_called_as_a_column_of_the_table_keep_their_values(tiny: Callable[..., Any]) -> None:
    class Judged(dspy.Signature):
        answer: str = dspy.InputField()
        score: str = dspy.InputField()
        verdict: str = dspy.OutputField()

    row = dspy.Example(answer="It is red.", score="high", verdict="pass").with_inputs(
        "answer", "score"
    )
    program = student(tiny(Judged))
    outcome = Outcome(1.0, {"verdict": "pass"})
    table = json.loads(row_table(program, [row], Evaluation((outcome,))))
    (cells,) = table["data"]
    whole = dict(zip(table["columns"], cells, strict=True))
    found = _row(whole, table["columns"][:2])
    assert found.inputs == {"answer": "It is red.", "score": "high"} and found.score == 1.0


@pytest.mark.parametrize("name", ["a?b", "a%41b", "100%", "café #1 & 2", "a b"])
def test_a_projects_folder_may_be_called_anything(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    root.mkdir()
    assert not has_store(root)
    client(root)
    assert has_store(root) and (root / "mlruns" / "mlflow.db").stat().st_size


def test_an_empty_address_is_no_shared_store(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert not is_shared() and tracking_uri(project).startswith("sqlite:")


def test_an_experiment_deleted_in_mlflow_says_how_it_comes_back(project: Path) -> None:
    store = client(project)
    store.delete_experiment(experiment(store, project, "review"))
    with pytest.raises(WorkbenchError, match=r"mlflow experiments restore --experiment-id \d+$"):
        experiment(store, project, "review")
