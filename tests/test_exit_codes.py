"""Every exit code, by the real command in a process of its own, against an endpoint on loopback.

0 met, 1 not met, 2 a user's mistake, 70 a bug of optimize, 130 stopped.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI, Request
from typer.testing import CliRunner

from optimize.cli import app
from optimize.program.formats import FORMATS
from optimize.report.page import assemble
from optimize.store.material import material
from optimize.store.read import reported
from tests.test_cli import optimize
from tests.test_lm import completion, served

ANSWER = "[[ ## verdict ## ]]\npositive\n\n[[ ## completed ## ]]"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, FastAPI]]:
    """Says that every review is positive, after `wait` seconds."""
    app = FastAPI()
    app.state.calls, app.state.wait = 0, 0.0

    @app.post("/v1/chat/completions")
    def complete(request: Request) -> dict[str, object]:
        app.state.calls += 1
        time.sleep(app.state.wait)
        return completion("yes-man", ANSWER)

    with served(app) as url:
        yield url + "/v1", app


def flags(endpoint: tuple[str, FastAPI]) -> list[str]:
    endpoint[1].state.calls, endpoint[1].state.wait = 0, 0.0
    return ["--lm", "openai/yes-man", "--api-base", endpoint[0], "--finetune", "never"]


def edit(project: Path, old: str, new: str) -> None:
    path = project / "programs" / "review.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(("target", "code"), [("0.05", 0), ("0.99", 1)])
def test_met_and_not_met(
    project: Path,
    endpoint: tuple[str, FastAPI],
    target: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = optimize(
        project, "run", "review", "--target", target, "--max-calls", "60", *flags(endpoint)
    )
    assert done.returncode == code, done.stderr
    assert optimize(project, "report", "review").returncode == code
    tables = list((project / "mlruns" / "artifacts").rglob("examples.json"))
    table = json.loads(tables[0].read_text())
    row = dict(zip(table["columns"], table["data"][0], strict=True))
    assert row["lm_text"] == ANSWER and row["format"] in FORMATS
    assert isinstance(row["demos"], int) and row["first demos"].startswith("[")
    pages = list((project / "mlruns" / "artifacts").rglob("report.html"))
    (page,) = re.findall(r"Page:\s+(\S+/report.html)", done.stdout)
    assert [pages[0].read_bytes()] == [(project / page).read_bytes()]
    monkeypatch.chdir(project)
    is_written_to_files(project)


def is_written_to_files(project: Path) -> None:
    """The run after the fact, from the store alone."""
    asked = CliRunner().invoke(app, ["report", "review~0", "--html", "--csv", "r.csv", "--md"])
    assert asked.exit_code == 0, asked.output
    assert asked.stdout.split() == [
        "review-report.html",
        "review-report.md",
        "review-report.png",
        "r.csv",
    ]
    rows = list(csv.DictReader((project / "r.csv").open(encoding="utf-8-sig")))
    report, run = reported(project, "review")
    assert len(rows) == report.rows["test"] + report.rows["val"]
    kept = [float(r[f"{report.numbers.rung}: score"]) for r in rows if r["side"] == "test"]
    assert sum(kept) / len(kept) == pytest.approx(report.test.prompt.score)
    found = assemble(report, material(run))
    assert {step.rung for step in found.steps} <= set(found.prompts) and found.versions["dspy"]
    text = (project / "review-report.html").read_text(encoding="utf-8")
    assert all(f'"{row["row"]}"' in text for row in rows)
    assert (project / "review-report.png").read_bytes().startswith(b"\x89PNG")
    nowhere = CliRunner().invoke(app, ["report", "review", "--html", "no/such/folder.html"])
    assert nowhere.exit_code == 2 and "no folder" in nowhere.output


METRIC_BUG = ("prediction.verdict == example.verdict", "prediction.verdict == example.verdikt")
MODULE_BUG = ("signature=Review,", "signature=Review, program=Mine,")
MODULE = """
class Mine(dspy.Module):
    def __init__(self, signature):
        super().__init__()
        self.judge = dspy.Predict(signature)

    def forward(self, text):
        return self.judge(text=texts)


task = """


@pytest.mark.parametrize(
    ("edits", "says"),
    [
        ([METRIC_BUG], "programs/review.py:18, in metric: AttributeError"),
        ([("Score(1.0)", "Score(10)")], "returned Score(value=10"),
        ([("-> Score:", "-> Score:\n    raise SystemExit(1)")], "in metric: SystemExit: 1"),
        ([("example: dspy.Example, prediction: dspy.Prediction", "example")], ":17: TypeError"),
        ([("\ntask = ", MODULE), MODULE_BUG], "in forward: NameError: name 'texts'"),
        (
            [("signature=Review,", "signature=Review, program=lambda s: 1 / 0,")],
            "in <lambda>: ZeroDivisionError",
        ),
    ],
    ids=["metric", "no score", "exit", "arguments", "forward", "program"],
)
def test_a_bug_in_the_users_code_is_two_before_any_call(
    project: Path, endpoint: tuple[str, FastAPI], edits: list[tuple[str, str]], says: str
) -> None:
    for old, new in edits:
        edit(project, old, new)
    done = optimize(project, "run", "review", *flags(endpoint))
    assert (done.returncode, endpoint[1].state.calls) == (2, 0), done.stderr
    assert done.stderr.startswith("Error: programs/review.py:") and says in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) == 1
    # whatever is asked of one row names it
    assert "lambda" in says or "on row devsets/review/rows.jsonl:" in done.stderr


def test_a_bug_that_only_an_answer_brings_out_is_two(
    project: Path, endpoint: tuple[str, FastAPI]
) -> None:
    edit(project, "\ntask = ", MODULE.replace("(text=texts)", "(text=text).verdikt"))
    edit(project, *MODULE_BUG)
    done = optimize(project, "run", "review", *flags(endpoint))
    assert done.returncode == 2 and "in forward: AttributeError" in done.stderr, done.stderr
    assert "on row devsets/review/rows.jsonl:" in done.stderr


def test_debug_shows_the_traceback_and_keeps_the_code(
    project: Path, endpoint: tuple[str, FastAPI]
) -> None:
    edit(project, *METRIC_BUG)
    done = optimize(project, "run", "review", "--debug", *flags(endpoint))
    assert done.returncode == 2 and "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: programs/review.py:18")


def test_a_bug_of_ours_is_seventy_with_a_short_trace(
    project: Path, endpoint: tuple[str, FastAPI]
) -> None:
    code = f"""
import optimize.commands.run as ours
from optimize.cli import app
ours.preflight = lambda *_: dict()["lost"]
app({["run", "review", *flags(endpoint)]!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 70, done.stderr
    assert "bug of optimize" in done.stderr and "KeyError: 'lost'" in done.stderr
    assert "commands" in done.stderr and "--debug" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 7
