"""A team's store on this machine: PostgreSQL in a folder of its own, an MLflow server before it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optimize.store.open import QUIET

USER, PASSWORD, DATABASE = "mlflow", "team-canary-0123", "mlflow"


def missing() -> str:
    """What is not here for it; empty: all is."""
    if not _tools():
        return "PostgreSQL's initdb is not here (apt-get install postgresql)"
    if not find_spec("psycopg2"):
        return "psycopg2 is not here (pip install '.[postgres]')"
    if _root() and not _runuser():
        return "PostgreSQL does not run as root, and there is no runuser with a user postgres"
    return ""


def _root() -> bool:
    return os.name == "posix" and os.geteuid() == 0


def _tools() -> Path | None:
    if found := shutil.which("initdb"):
        return Path(found).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


def _runuser() -> list[str]:
    import pwd

    with suppress(KeyError):
        pwd.getpwnam("postgres")
        if runuser := shutil.which("runuser"):
            return [runuser, "-u", "postgres", "--"]
    return []


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def postgres() -> Iterator[str]:
    """A new cluster on loopback with an empty database; its address, password included."""
    tools, before = _tools(), _runuser() if _root() else []
    assert tools
    folder = Path(tempfile.mkdtemp(prefix="team-"))
    try:
        secret = folder / "password"
        secret.write_text(PASSWORD)
        for path in (folder, secret) if before else ():
            shutil.chown(path, "postgres")
        data, port = folder / "data", free_port()
        initdb = [str(tools / "initdb"), "-D", str(data), "-U", USER, f"--pwfile={secret}"]
        quiet: dict[str, Any] = {
            "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder
        }  # fmt: skip
        subprocess.run([*before, *initdb, "-A", "scram-sha-256", "-N"], check=True, **quiet)
        places = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}"]
        words = [word for place in places for word in ("-c", place)]
        server = [str(tools / "postgres"), "-D", str(data), *words]
        running = subprocess.Popen([*before, *server], **quiet)
        try:
            yield _database(port)
        finally:
            running.terminate()
            running.wait(timeout=60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _database(port: int) -> str:
    import psycopg2

    place = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}"
    for _ in range(600):
        with suppress(psycopg2.OperationalError):
            made = psycopg2.connect(f"{place}/postgres")
            break
        time.sleep(0.1)
    made.autocommit = True
    made.cursor().execute(f"CREATE DATABASE {DATABASE}")
    made.close()
    return f"{place}/{DATABASE}".replace("://", "+psycopg2://")


@contextmanager
def mlflow_server(store: str, artifacts: Path, workers: int = 1) -> Iterator[str]:
    """Its address, once it answers."""
    port = free_port()
    words = ["--backend-store-uri", store, "--artifacts-destination", str(artifacts)]
    words += ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    command = [sys.executable, "-m", "mlflow", "server", *words]
    there = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"} | QUIET
    log = artifacts.parent / "mlflow.log"
    with log.open("w") as out:
        running = subprocess.Popen(command, env=there, stdout=out, stderr=out)
    try:
        url, end = f"http://127.0.0.1:{port}", time.monotonic() + 300
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                break
            if running.poll() is not None or time.monotonic() > end:
                raise RuntimeError(log.read_text()[-2000:])
            time.sleep(0.2)
        yield url
    finally:
        running.terminate()
        running.wait(timeout=60)
