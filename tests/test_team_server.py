"""A store that a team shares: checked before anything is written, and nothing lost or mixed up."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from fastapi import FastAPI, Response
from mlflow.exceptions import MlflowException

from optimize.commands.new import write_task
from optimize.errors import WorkbenchError
from optimize.store import again, shared
from optimize.store.champion import present
from optimize.store.open import client, shown_uri
from tests import team
from tests.faulty_server import faulty_app
from tests.stored import stored_run
from tests.test_cli import optimize
from tests.test_lm import served

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "programs").mkdir()
    write_task(tmp_path, "review")
    return tmp_path


@pytest.fixture
def database(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A database that is named by the environment, with MLflow's tables."""
    path = project / "team.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    client(project)
    yield path


def revised(path: Path, revision: str) -> None:
    with closing(sqlite3.connect(path)) as made:
        made.execute("UPDATE alembic_version SET version_num = ?", (revision,))
        made.commit()


@pytest.mark.parametrize(
    ("revision", "says"),
    [("451aebb31d03", "is of an older version"), ("f0f0f0f0f0f0", "a newer version made")],
)
def test_another_schema_is_told_before_anything_is_written(
    project: Path, database: Path, revision: str, says: str
) -> None:
    revised(database, revision)
    app = faulty_app(lambda text: "", lambda asked: "")
    with served(app) as url:
        flags = ["--lm", "openai/any", "--api-base", f"{url}/v1", "--max-calls", "60"]
        done = optimize(project, "run", "review", *flags)
    assert (done.returncode, app.state.log) == (2, []), done.stderr
    last = done.stderr.splitlines()[-1]
    assert says in last and revision in last and "Traceback" not in done.stderr
    with closing(sqlite3.connect(database)) as made:
        assert made.execute("SELECT count(*) FROM runs").fetchone() == (0,)


@pytest.mark.parametrize(
    ("version", "says"), [("3.4.0", "is version 3.4.0"), ("4.1.0", "works with 3.17 and later")]
)
def test_a_server_of_another_version_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, version: str, says: str
) -> None:
    app = FastAPI()
    app.get("/version")(lambda: Response(version))
    with served(app) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        with pytest.raises(WorkbenchError, match=says):
            client(project)


def test_no_server_is_told_without_a_wait_or_a_password(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:geheim-0123@127.0.0.1:9")
    with pytest.raises(WorkbenchError, match="No MLflow server answers at http://me:…@127") as told:
        client(project)
    assert "geheim" not in str(told.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg2://me:pa:ss@db/runs")
    assert shown_uri(project) == "postgresql+psycopg2://me:…@db/runs"


def test_one_at_a_time_is_within(
    project: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, inside, most = client(project), 0, 0

    def work() -> None:
        nonlocal inside, most
        with shared.one_at_a_time(store, "review", project):
            inside += 1
            most = max(most, inside)
            threading.Event().wait(0.05)
            inside -= 1

    monkeypatch.setattr(shared, "LOOK", 0.01)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and not store.search_registered_models()
    monkeypatch.setattr(shared, "STALE", 0.1)
    store.create_registered_model("review.choosing", description="of one that died")
    work()
    assert not store.search_registered_models()


def test_a_run_of_another_machine_goes_on(project: Path, database: Path) -> None:
    stored_run(project, "review", 6)
    store = client(project)
    experiment = store.get_experiment_by_name("review").experiment_id
    theirs = store.create_run(experiment, tags={shared.PROJECT: "another"}).info.run_id
    ours = {shared.PROJECT: shared.project_id(project)}
    died = store.create_run(experiment, tags=ours).info.run_id
    better = stored_run(project, "review", 8)
    assert [store.get_run(run).info.status for run in (theirs, died)] == ["RUNNING", "KILLED"]
    assert present(store, "review").run_id == better


def test_the_compose_file_shows_no_secret_and_listens_on_loopback() -> None:
    found = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    services = found["services"]
    assert all(re.search(r":v?\d+\.\d+", one["image"]) for one in services.values())
    assert services["mlflow"]["ports"] == ["127.0.0.1:${MLFLOW_PORT:-5000}:5000"]
    assert "ports" not in services["database"]
    assert "${MLFLOW_DB_PASSWORD" in services["database"]["environment"]["POSTGRES_PASSWORD"]


@pytest.mark.slow
@pytest.mark.skipif(bool(team.missing()), reason=team.missing())
def test_climbs_at_once_into_postgresql_lose_nothing() -> None:
    """With 16 of them and what it takes: bench/team_server.py."""
    from bench.team_server import measured

    problems, told = measured(3, 1)
    assert problems == [], told


def test_a_write_that_clashes_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What two climbs on PostgreSQL get now and then when both note the same rows."""
    asked: list[str] = []

    class Clashing:
        def log_inputs(self, run: str, says: str) -> str:
            asked.append(run)
            if len(asked) < 3 or says != "(psycopg2.errors.UniqueViolation)":
                raise MlflowException(says)
            return "written"

    monkeypatch.setattr(again, "PAUSE", 0.001)
    store = again.Again(Clashing())
    assert store.log_inputs("a", says="(psycopg2.errors.UniqueViolation)") == "written"
    assert asked == ["a"] * 3
    with pytest.raises(MlflowException, match="no such run"):
        store.log_inputs("b", says="no such run")
    assert asked[3:] == ["b"]
