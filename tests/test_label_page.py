"""The page on which a person labels: what it tells, who may ask, what a browser makes of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import dspy
import httpx
import pytest

from optimize.commands.label import Chosen
from optimize.commands.labelling import Sitting
from optimize.report.labelling import Choice, ChosenRow
from optimize.serving.guard import Guard
from optimize.serving.labelling import MOST, _output, application
from optimize.serving.metrics import Metrics
from optimize.task import load_task
from tests.browser import BROWSER, browsing
from tests.test_lm import served

HARMFUL = "<img src=x onerror=alert(1)>\u001b[31m and some more of the text, in full " + "x" * 300


@pytest.fixture
def sitting(project: Path) -> Sitting:
    """Four rows to label, the first one harmful."""
    found = Sitting(load_task("review", project))
    texts = [HARMFUL, "Quite good.", "Quite bad.", "So so."]
    rows = [
        ChosenRow(place=f"new.jsonl:{n}", columns={"text": text, "id": n}, why="disagree")
        for n, text in enumerate(texts, 1)
    ]
    choice = Choice(
        task="review", file="new.jsonl", rows=4, sampled=4, fit=4, left_out={}, programs=[],
        by="words", chosen=rows,
    )  # fmt: skip
    (project / "new.jsonl").write_text("".join(json.dumps(row.columns) + "\n" for row in rows))
    found.begin(project / "new.jsonl", Chosen(choice, [{"verdict": "negative"}] * 4))
    return found


@pytest.fixture
def page(sitting: Sitting) -> Iterator[tuple[httpx.Client, list[str]]]:
    """A client of the page, and what it has ended."""
    ends: list[str] = []
    app = application(sitting, end=lambda: ends.append("end"))
    guarded: Any = Guard(app, Metrics(), "", True, MOST)
    with served(guarded) as url, httpx.Client(base_url=url, timeout=20) as client:
        yield client, ends


def test_labels_that_are_numbers_are_typed_as_they_are(project: Path) -> None:
    """A key's number is no place in the list then."""
    task = load_task("review", project)
    named = _output(task, "verdict")
    rated = dspy.Signature(
        {"text": (str, dspy.InputField()), "n": (Literal[0, 1, 2], dspy.OutputField())}
    )
    numbers = _output(replace(task, signature=rated), "n")
    assert named["numbered"] and not numbers["numbered"] and numbers["labels"] == ["0", "1", "2"]


def kept(sitting: Sitting) -> list[dict[str, Any]]:
    path = sitting.task.folder / "labelled.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_answers_are_kept_and_what_does_not_fit_is_told(
    page: tuple[httpx.Client, list[str]], sitting: Sitting
) -> None:
    client, ends = page
    found = client.get("/rows").json()
    assert "negative" not in json.dumps(found["rows"]), "no answer of a program"
    assert found["outputs"][0]["labels"] == ["positive", "negative"] and len(found["rows"]) == 4
    assert "\u001b" not in found["rows"][0]["inputs"]["text"] and "x" * 300 in str(found["rows"][0])
    own = {"choice": found["choice"]}
    reply = client.post("/rows/1/label", json={"outputs": {"verdict": "positive"}, **own})
    assert reply.json()["label"] == {"verdict": "positive"}
    assert kept(sitting) == [{"text": "Quite good.", "id": 2, "verdict": "positive"}]
    for number, outputs in ((0, {"verdict": "fine"}), (0, {}), (9, {"verdict": "positive"})):
        reply = client.post(f"/rows/{number}/label", json={"outputs": outputs, **own})
        assert reply.status_code == 422 and reply.json()["error"]["message"]
    assert client.post("/rows/0/label", json={"outputs": 3, **own}).status_code == 422
    assert client.post("/rows/2/skip", json=own).json()["skipped"] and not ends
    client.post("/end", json=own)
    assert ends == ["end"] and len(kept(sitting)) == 1
    state = Sitting(sitting.task)
    assert [row.open for row in state.work] == [True, False, False, True]
    assert state.found().agreement and state.found().agreement.score == 0  # type: ignore[union-attr]


def test_a_page_of_earlier_rows_labels_none_of_the_present_ones(
    page: tuple[httpx.Client, list[str]], sitting: Sitting
) -> None:
    client, ends = page
    stale = {"choice": client.get("/rows").json()["choice"]}
    sitting.work[1].columns["text"] = "Another row, at the same place."
    for path, body in (("rows/1/label", {"outputs": {"verdict": "positive"}}), ("rows/1/skip", {}),
                       ("end", {})):  # fmt: skip
        reply = client.post(f"/{path}", json={**body, **stale})
        assert reply.status_code == 409 and "Reload" in reply.json()["error"]["message"]
    assert not kept(sitting) and not ends and sitting.work[1].open


def test_only_this_machine_is_answered_and_the_page_fetches_nothing(
    page: tuple[httpx.Client, list[str]],
) -> None:
    client, ends = page
    assert client.get("/rows", headers={"Host": "evil.example"}).status_code == 403
    evil = {"Origin": "https://evil.example"}
    for path in ("/rows/0/skip", "/end"):
        assert client.post(path, headers=evil).status_code == 403
    assert client.get("/openapi.json").status_code == 404 and not ends
    reply = client.get("/")
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"(src|href)=|https?://|@import|url\(", reply.text)


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_person_labels_by_keyboard_and_the_command_ends_with_the_page(sitting: Sitting) -> None:
    root = sitting.task.root
    command = [sys.executable, "-m", "optimize", "label", "review", "new.jsonl", "--page"]
    running = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    assert running.stdout
    address = ""
    while not address and (line := running.stdout.readline()):
        address = "".join(re.findall(r"http://127\.0\.0\.1:\d+", line))
    try:
        with browsing(900, 700) as page:
            page.open(address)
            text = page.shows("row 1 of 4, 4 left", "<img src=x", "go to train alone")
            assert "negative" in text and "x" * 300 in text
            press(page, "2")
            page.shows("row 2 of 4, 3 left", "Quite good.")
            press(page, "s")
            page.shows("row 3 of 4, 2 left")
            press(page, "b")
            page.shows("row 2 of 4, skipped")
            press(page, "1")
            page.shows("row 3 of 4, 2 left")
            press(page, "Enter")
            page.shows("Choose verdict first.")
            press(page, "1", repeat=True)
            press(page, "s", repeat=True)
            page.shows("row 3 of 4, 2 left")
            page.press("end for now")
            page.shows("The terminal says what comes next")
            assert page.errors == []
        rest = running.stdout.read()
        assert running.wait(timeout=60) == 0 and "2 rows labelled, 2 left" in rest
        assert "The best program agrees with 0.50" in " ".join(rest.split())
    finally:
        running.kill()
    assert [row["verdict"] for row in kept(sitting)] == ["negative", "positive"]


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_slip_on_the_last_row_is_mended(sitting: Sitting) -> None:
    guarded: Any = Guard(application(sitting, end=lambda: None), Metrics(), "", True, MOST)
    with served(guarded) as url, browsing(900, 700) as page:
        page.open(url)
        page.shows("4 left")
        for left in (3, 2, 1):
            press(page, "1")
            page.shows(f"{left} left")
        press(page, "1")
        page.shows("All rows are done: 4 labelled.")
        press(page, "b")
        page.shows("row 4 of 4, labelled")
        press(page, "2")
        page.shows("All rows are done: 4 labelled.")
        page.run("document.querySelector('#done button').click()")
        page.shows("row 4 of 4, labelled")
        assert page.errors == []
    assert [row["verdict"] for row in kept(sitting)] == ["positive"] * 3 + ["negative"]


def press(page: Any, key: str, repeat: bool = False) -> None:
    event = json.dumps({"key": key, "bubbles": True, "repeat": repeat})
    page.run(f"document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {event}))")
