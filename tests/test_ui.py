"""`optimize ui` leaves nothing on its port, however it is ended; `optimize tasks` without tasks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.test_cli import optimize
from tests.test_lm import closed_to_other_machines


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def within(seconds: float, port: int, wanted: bool) -> bool:
    end = time.monotonic() + seconds
    while listens(port) != wanted and time.monotonic() < end:
        time.sleep(0.2)
    return listens(port) == wanted


def only_this_machine_is_answered(port: int) -> None:
    """Not a page of another site that has its name point here, nor another machine."""
    address = f"http://127.0.0.1:{port}/"
    assert httpx.get(address).status_code == 200
    assert httpx.get(address, headers={"Host": "evil.example"}).status_code == 403
    experiments = f"{address}api/2.0/mlflow/experiments/search?max_results=1"
    assert httpx.get(experiments, headers={"Host": "evil.example"}).status_code == 403
    closed_to_other_machines(port)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_with_the_command(tmp_path: Path, sent: signal.Signals) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "optimize", "ui", "--port", str(port)]
    out = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = subprocess.Popen(command, cwd=tmp_path, **out)  # type: ignore[call-overload]
    assert within(180, port, True), "it never answered"
    if sent is signal.SIGTERM:
        only_this_machine_is_answered(port)
    running.send_signal(sent)
    said, _ = running.communicate(timeout=180)
    assert running.returncode == 130
    first, *more = said.splitlines()
    assert first.startswith("MLflow UI on http") and [m for m in more if "topped" not in m] == []
    assert within(10, port, False), "the server is still there"


def test_tasks_in_an_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    done = optimize(tmp_path, "tasks")
    assert done.returncode == 0 and "optimize new NAME" in done.stdout
    assert not list(tmp_path.iterdir())
