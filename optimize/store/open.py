"""Where runs are kept, and how that is opened."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock

from optimize.errors import WorkbenchError

# Without these MLflow's server deadlocks offline when litellm cannot fetch its price map, and
# phones home.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# where MLflow writes down whole paths of what lies below mlruns/artifacts/
MOVABLE = "/mlruns/artifacts/"
PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


def tracking_uri(root: Path) -> str:
    """Where runs are kept: `MLFLOW_TRACKING_URI`, else SQLite below the project's mlruns/."""
    return (
        os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{(root / 'mlruns' / 'mlflow.db').resolve()}"
    )


def client(root: Path) -> Any:
    """An MLflow client on the project's store, which is made on first use."""
    os.environ.update({k: v for k, v in QUIET.items() if k not in os.environ})
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

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
                # four times faster writes, and the UI may read meanwhile
                database.execute("PRAGMA journal_mode=WAL")
                _follow(database, folder)
        return found
    except (MlflowException, OSError, sqlite3.Error, SQLAlchemyError) as error:
        more = " If the file is damaged, move it away: a new one is made." if local else ""
        raise WorkbenchError(
            f"The MLflow store {uri} cannot be opened: {str(error).splitlines()[0]}.{more}"
        ) from error


def _follow(database: sqlite3.Connection, folder: Path) -> None:
    """Where the project was moved or copied, point its runs at the files that came with it: MLflow
    keeps whole paths.
    """
    here = (folder / "artifacts").resolve().as_uri()
    places = database.execute(
        "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE ?",
        (f"file://%{MOVABLE}%",),
    )
    for place in {str(p).split(MOVABLE)[0] + MOVABLE for (p,) in places}:
        if place.removesuffix("/") == here:
            continue
        for table, column in PATHS:
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE substr({column}, 1, ?) = ?",
                (here, len(place), len(place), place),
            )
    database.commit()


def ui_command(root: Path, port: int) -> list[str]:
    """The command that opens the MLflow UI on this store, on loopback."""
    client(root)
    local = [
        "--backend-store-uri",
        tracking_uri(root),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    return [sys.executable, "-m", "mlflow", "server", *local]
