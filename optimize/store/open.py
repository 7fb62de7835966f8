"""Where runs are kept, and how that is opened."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from filelock import FileLock

from optimize.errors import WorkbenchError
from optimize.files import only_read
from optimize.secrets import keep_secret, redacted
from optimize.store.again import Again

# Without these MLflow's server deadlocks offline when litellm cannot fetch its price map, and
# phones home.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # where --json has to stand alone
}
MISREAD = re.compile(r"\?|%(?=[0-9a-fA-F]{2})")  # in an address: its query, a letter's code
OUT_OF_DATE = re.compile(r"out-of-date database schema \(found version (\w+)")
OLDEST, BEYOND = (3, 17), (4, 0)  # versions of a server: from, and below
SECONDS = 10.0  # for a server to say its version
PASSWORD, TOKEN = "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"
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
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    place = (root / "mlruns" / "mlflow.db").resolve()
    # nothing else, since MLflow also makes an empty folder of the name as it stands in the address
    quoted = MISREAD.sub(lambda found: quote(found[0]), str(place))
    return f"sqlite:///{quoted}"


def shown_uri(root: Path) -> str:
    """The same for people: without a password."""
    return without_password(tracking_uri(root))


def without_password(uri: str) -> str:
    """An address, or a text that holds one, as people may see it."""
    return re.sub(r"(?<=://)([^/@:]*):[^/]*@", r"\1:…@", uri)


@contextmanager
def own_store() -> Iterator[None]:
    """Runs are kept below the folder that is named, wherever the project's runs are."""
    given = os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        yield
    finally:
        if given is not None:
            os.environ["MLFLOW_TRACKING_URI"] = given


def is_shared() -> bool:
    """Whether the store may be written to from other projects and machines."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI"))


def client(root: Path) -> Any:
    """An MLflow client on the project's store, which is made on first use.

    Raises WorkbenchError where it cannot be reached or opened, or another version of MLflow made
    it than the one that is installed knows.
    """
    os.environ.update({k: v for k, v in QUIET.items() if k not in os.environ})
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("alembic", "mlflow", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = tracking_uri(root)
    with suppress(ValueError):  # what urllib cannot read, SQLAlchemy may
        password = urlsplit(uri).password  # as it stands there, and as errors may spell it
        keep_secret(password)
        keep_secret(password and unquote(password))
    local = not is_shared()
    folder = root / "mlruns"
    try:
        if not local:
            _check_server(uri)
            shared = MlflowClient(uri)
            shared.search_experiments(max_results=1)  # opens a database, and verifies its schema
            return Again(shared)
        folder.mkdir(exist_ok=True)
        with FileLock(folder / ".lock"):  # two first uses at once would both create the tables
            found = MlflowClient(uri)
            found.search_experiments(max_results=1)
            with closing(sqlite3.connect(folder / "mlflow.db")) as database:
                # four times faster writes, and the UI may read meanwhile
                database.execute("PRAGMA journal_mode=WAL")
                _follow(database, folder)
        return found
    except ModuleNotFoundError as error:
        raise WorkbenchError(
            f"The MLflow store {shown_uri(root)} needs the package {error.name}. For PostgreSQL "
            "pip install 'optimize-workbench[postgres]' and write postgresql+psycopg2://…"
        ) from error
    except (MlflowException, OSError, sqlite3.Error, SQLAlchemyError) as error:
        if revision := OUT_OF_DATE.search(str(error)):
            raise WorkbenchError(_other_schema(root, revision[1])) from error
        more = ""
        if local:
            damaged = "If the file is damaged, move it away: a new one is made."
            more = " " + (only_read(folder) or damaged)
        raise WorkbenchError(
            f"The MLflow store {shown_uri(root)} cannot be opened: "
            f"{without_password(redacted(str(error))).splitlines()[0].rstrip('.')}.{more}"
        ) from error


def has_store(root: Path) -> bool:
    """Whether there is one, so that looking makes none."""
    uri = tracking_uri(root)
    place = unquote(uri.removeprefix("sqlite:///"))
    return not uri.startswith("sqlite:///") or Path(place).is_file()


def _other_schema(root: Path, revision: str) -> str:
    """What is to be done about a database whose schema is not the one of the MLflow here."""
    from alembic.script import ScriptDirectory
    from mlflow import __version__
    from mlflow.store.db.utils import _get_alembic_config

    known = {
        r.revision for r in ScriptDirectory.from_config(_get_alembic_config("")).walk_revisions()
    }
    if revision in known:
        way = (
            "is of an older version than MLflow {} here. Make a copy of it, then run `mlflow db "
            "upgrade` on it once everybody who uses it has this version"
        )
    else:
        way = (
            "is not known to MLflow {} here: a newer version made or upgraded it. Install that "
            "version here"
        )
    return (
        f"The schema of the MLflow store {shown_uri(root)} ({revision}) {way.format(__version__)}. "
        "Nothing was written, no call was made."
    )


def _check_server(uri: str) -> None:
    """Raises WorkbenchError for an MLflow server that does not answer, or is of a version that is
    not known to work. What a proxy before it says is left to the client, which has credentials.
    """
    if not uri.startswith(("http://", "https://")):
        return
    for name in (PASSWORD, TOKEN):
        keep_secret(os.environ.get(name))
    scheme, _, place = uri.rstrip("/").partition("://")
    try:  # this address asks for no login
        where = f"{scheme}://{place.rpartition('@')[2]}/version"
        with urllib.request.urlopen(where, timeout=SECONDS) as found:
            told = found.read(100).decode(errors="replace").strip()
    except urllib.error.HTTPError:
        return
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return
        raise WorkbenchError(
            f"No MLflow server answers at {without_password(uri)} ({reason}). Start it, or mend "
            "MLFLOW_TRACKING_URI. No call was made."
        ) from error
    version = re.match(r"(\d+)\.(\d+)", told)
    if version and not OLDEST <= (int(version[1]), int(version[2])) < BEYOND:
        raise WorkbenchError(
            f"The MLflow server at {without_password(uri)} is version {told}; optimize works with "
            f"{OLDEST[0]}.{OLDEST[1]} and later ones of {OLDEST[0]}. Nothing was written, no call "
            "was made."
        )


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
    """The command that opens the MLflow UI on this store, on loopback.

    Raises WorkbenchError where a server has the runs, which shows them itself.
    """
    if tracking_uri(root).startswith(("http://", "https://")):
        raise WorkbenchError(f"The runs are on a server, which shows them: open {shown_uri(root)}.")
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
        "--uvicorn-opts=--log-level warning",
    ]
    return [sys.executable, "-m", "mlflow", "server", *local]
