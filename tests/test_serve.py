"""`optimize serve`: the task's own fields over HTTP, who may ask, what is told, how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import httpx
import pytest
from fastapi import FastAPI, Request
from typer.testing import CliRunner

from optimize.cli import app as command
from optimize.commands.new import NEGATIVE, POSITIVE
from optimize.serving import app as serving
from optimize.serving.app import Service, application
from optimize.serving.following import Following
from optimize.serving.guard import MOST_BYTES, Guard
from optimize.serving.metrics import Metrics
from optimize.store.open import client
from tests.deployed import improved, kept, root, verdict
from tests.faulty_server import FAULTS, faulty_app
from tests.test_lm import closed_to_other_machines, completion, served

__all__ = ["root"]  # a fixture
KEY = "a-key-of-the-service"
SLOW = 0.8  # seconds


@pytest.fixture(scope="module")
def lm() -> Iterator[tuple[str, FastAPI]]:
    """An LM that is slow, says what cannot be read, or refuses, as the review asks it to."""
    app = FastAPI()
    app.state.asked = 0

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Any:
        body = await request.json()
        app.state.asked += 1
        app.state.model = body["model"]
        text = body["messages"][-1]["content"]
        await asyncio.sleep(SLOW if "slowly" in text else 0)
        if "refuse" in text:
            return FAULTS["echo"]("any", KEY)
        return completion("any", "Hm." if "mumble" in text else verdict(text))

    with served(app) as url:
        yield f"{url}/v1", app


Start = Callable[..., Any]


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    """start(key, local, threads, lm): a client of the service, listening until the test ends."""
    ends = []

    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)

    def make(
        key: str = "", local: bool = True, threads: int = 4, lm: dict[str, str | None] | None = None
    ) -> httpx.Client:
        following, metrics = Following(root, "review", lm or {}), Metrics()
        service = Service(following, metrics, threads, look=0.05)
        inner = application(service, following.now.program.task)
        running = served(Guard(inner, metrics, key, local, threads))  # type: ignore[arg-type]
        session = httpx.Client(base_url=running.__enter__(), timeout=20)
        ends.extend([session.close, lambda: running.__exit__(None, None, None)])
        return session

    yield make
    for end in ends:
        end()


def told(reply: httpx.Response, status: int) -> dict[str, str]:
    """The error of a reply, which is JSON and has no traceback."""
    assert reply.status_code == status, reply.text
    assert "Traceback" not in reply.text and KEY not in reply.text
    return dict(reply.json()["error"])


def test_rows_are_answered_and_failures_are_told(start: Start) -> None:
    session = start()
    assert session.post("/predict", json={"text": NEGATIVE[2]}).json() == {"verdict": "negative"}
    rows = [{"text": text} for text in (POSITIVE[2], "mumble", "refuse", NEGATIVE[4])]
    found = session.post("/predict/batch", json=rows).json()["answers"]
    assert [row.get("answer") for row in found] == [
        {"verdict": "positive"}, None, None, {"verdict": "negative"},
    ]  # fmt: skip
    assert [found[n]["error"]["kind"] for n in (1, 2)] == ["unread", "lm"]
    assert told(session.post("/predict", json={"text": "mumble"}), 502)["kind"] == "unread"
    refused = told(session.post("/predict", json={"text": "refuse"}), 502)
    assert refused["message"].startswith("The LM did not answer")
    for wrong, says in (
        ({"text": 7}, "text: Input should be a valid string"),
        ({}, "text: Field required"),
        ({"text": "x", "txt": "y"}, "txt: Extra inputs"),
        ([], "body: "),
    ):
        assert says in told(session.post("/predict", json=wrong), 422)["message"]
    cut = session.post("/predict", content='{"text"', headers={"Content-Type": "application/json"})
    assert "body: JSON" in told(cut, 422)["message"]
    assert "at least 1" in told(session.post("/predict/batch", json=[]), 422)["message"]
    told(session.get("/docs"), 404)
    lines = session.get("/metrics").text.splitlines()
    for line in (
        'optimize_requests_total{path="/predict",status="200"} 1.0',
        'optimize_requests_total{path="other",status="404"} 1.0',
        'optimize_rows_total{outcome="unread"} 2.0',
        'optimize_rows_total{outcome="answer"} 3.0',
        'optimize_request_seconds_count{path="/predict/batch"} 2.0',
        "optimize_in_flight 0.0",
    ):
        assert line in lines, line
    calls = next(line for line in lines if line.startswith("optimize_lm_calls_total"))
    assert float(calls.split()[1]) == 7


@pytest.mark.parametrize("base", ["openai/any", "embedded"])
def test_a_tuned_lm_is_asked_where_it_is_served_now(
    root: Path, start: Start, lm: tuple[str, FastAPI], base: str
) -> None:
    improved(root, "http://127.0.0.1:9/v1", base, tuned="order-slip", format="terse")
    session = start(lm={"lm": None, "api_base": lm[0]})
    assert session.post("/predict", json={"text": NEGATIVE[2]}).json() == {"verdict": "negative"}
    assert lm[1].state.model == "order-slip"


def test_its_description_has_the_tasks_fields(start: Start) -> None:
    session = start()
    found = session.get("/openapi.json").json()
    schemas = found["components"]["schemas"]
    assert schemas["Inputs"]["properties"]["text"]["type"] == "string"
    assert schemas["Outputs"]["properties"]["verdict"]["enum"] == ["positive", "negative"]
    assert found["info"] == {"title": "review", "description": "Judge the review."} | {
        "version": found["info"]["version"]
    }
    assert {"/predict", "/predict/batch", "/health", "/metrics"} == set(found["paths"])


def test_on_loopback_no_page_reaches_it_under_another_name(start: Start) -> None:
    session = start()
    for headers, kind in (
        ({"Host": "evil.example"}, "host"),
        ({"Host": "127.0.0.1.evil.example:80"}, "host"),
        ({"Host": "[::1"}, "host"),
        ({"Origin": "https://evil.example"}, "origin"),
        ({"Origin": "null"}, "origin"),
    ):
        reply = session.post("/predict", json={"text": "x"}, headers=headers)
        assert told(reply, 403)["kind"] == kind
    assert session.get("/health", headers={"Host": "localhost:1"}).json()["version"] == "2"
    own = {"Origin": "http://localhost:3000"}
    assert session.post("/predict", json={"text": "x"}, headers=own).status_code == 200


def test_a_key_is_asked_for_and_a_body_has_an_end(start: Start) -> None:
    session = start(key=KEY, local=False)
    assert session.get("/health", headers={"Host": "any.example"}).json()["status"] == "ok"
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer ключ".encode()}):
        for path in ("/metrics", "/openapi.json"):
            assert told(session.get(path, headers=headers), 401)["kind"] == "key"
        assert told(session.post("/predict", json={"text": "x"}, headers=headers), 401)
    right = {"Authorization": f"Bearer {KEY}"}
    assert session.post("/predict", json={"text": "x"}, headers=right).status_code == 200
    long = b" " * (MOST_BYTES + 1)
    assert told(session.post("/predict", content=long, headers=right), 413)["kind"] == "too_long"
    parts = iter([long[: MOST_BYTES // 2]] * 3)  # of no length that is known before
    assert told(session.post("/predict", content=parts, headers=right), 413)


def test_more_at_once_than_there_is_room_for_is_told_to_come_back(start: Start) -> None:
    session, slow = start(threads=2), {"text": "slowly"}
    found: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda: found.append(session.post("/predict", json=slow)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply.status_code for reply in found) == [200, 200, 429, 429]
    for late in (reply for reply in found if reply.status_code == 429):
        assert told(late, 429)["kind"] == "busy" and late.headers["retry-after"] == "1"
    assert session.post("/predict", json={"text": "x"}).status_code == 200


def test_a_new_champion_answers_once_it_can_be_loaded(root: Path, start: Start) -> None:
    session, store = start(), client(root)
    store.set_registered_model_alias("review", "champion", 1)
    failed = "optimize_reloads_failed_total 0.0"
    assert within(5, lambda: failed not in session.get("/metrics").text)
    assert session.get("/health").json()["version"] == "2", "the LM of version 1 is gone"
    runs = [store.get_model_version("review", number).run_id for number in ("1", "2")]
    new, now = (kept(root, run, "program.json") for run in runs)
    new.write_bytes(now.read_bytes())
    assert within(5, lambda: session.get("/health").json()["version"] == "1")
    assert session.post("/predict", json={"text": "x"}).json() == {"verdict": "positive"}
    assert f'run="{runs[0]}",version="1"' in session.get("/metrics").text


def within(seconds: float, found: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("words", "key", "says"),
    [
        (["--host", "0.0.0.0"], "", "set OPTIMIZE_SERVE_KEY"),
        (["--host", "0.0.0.0"], "short", "has 5 letters"),
        (["--host", "0.0.0.0"], "schlüssel-für-alle-12345", "letters beyond ASCII"),
        (["--port", "99999"], "", "--port"),
        (["--host", "203.0.113.9"], KEY, "Cannot listen at 203.0.113.9:8000"),
        (["--api-base", "http://127.0.0.1:9/v1"], "", "Nothing listens at http://127.0.0.1:9"),
    ],
)
def test_what_it_does_not_start_with(
    root: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], key: str, says: str
) -> None:
    monkeypatch.setenv("OPTIMIZE_SERVE_KEY", key)
    done = CliRunner().invoke(command, ["serve", "review", *words])
    assert done.exit_code == 2 and says in " ".join(done.stderr.split()), done.stderr


def test_of_two_endpoints_one_may_fall(start: Start, lm: tuple[str, FastAPI]) -> None:
    eight = [f"{NEGATIVE[2]} Visit {n}." for n in range(8)]
    with served(faulty_app(verdict, lambda asked: "500")) as broken:
        session = start(lm={"api_base": f"{broken}/v1,{lm[0]}"})
        replies = [session.post("/predict", json={"text": text}) for text in eight]
    assert [reply.json() for reply in replies] == [{"verdict": "negative"}] * 8


def test_it_finishes_what_is_in_flight_when_it_is_stopped(
    root: Path, lm: tuple[str, FastAPI]
) -> None:
    words = [sys.executable, "-m", "optimize", "serve", "review", "--port", "0"]
    there = os.environ | {"PYTHONPATH": str(Path(serving.__file__).parents[2])}
    running = subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, text=True, env=there)
    assert running.stdout
    line = running.stdout.readline()
    url = line.split(" at ")[1].split(": ")[0]
    closed_to_other_machines(int(url.rsplit(":", 1)[1]))
    found: list[httpx.Response] = []
    asked = lm[1].state.asked

    def ask() -> None:
        found.append(httpx.post(f"{url}/predict", json={"text": "slowly"}, timeout=30))

    slow = threading.Thread(target=ask)
    slow.start()
    assert within(20, lambda: lm[1].state.asked > asked)
    running.send_signal(signal.SIGTERM)
    slow.join()
    assert found[0].json() == {"verdict": "positive"}
    assert running.wait(timeout=30) == 0
    assert "Stopped" in running.stdout.read()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
