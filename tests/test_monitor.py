"""`optimize monitor`: new rows, labelled or not, held against the record; and its tests of drift."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from typer.testing import CliRunner

from optimize.cli import app
from optimize.commands.init import write_project
from optimize.commands.new import write_task
from tests.stored import stored_run
from tests.test_lm import chat_app, served

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def review(rng: random.Random, words: str) -> str:
    """Six words drawn from a vocabulary of sixty, of which some say what it is."""
    return " ".join(words.split()[0] + rng.choice("abcdef") + rng.choice("ghijklmnop") for _ in range(6))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("monitored")
    write_project(root, [])
    write_task(root, "review")
    stored_run(root, "review", 8, lm="openai/reviewer")
    return root


def test_see(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(dspy, "cache", dspy.cache)
    rows = [json.loads(l) for l in (project/"devsets/review/rows.jsonl").read_text().splitlines()]
    print(len(rows), rows[:5])
    new = [{"text": r["text"] + " Again, " + rows[n-1]["text"]} | ({"verdict": r["verdict"]} if n % 2 else {}) for n, r in enumerate(rows)]
    (project/"new.jsonl").write_text("".join(json.dumps(r)+"\n" for r in new))
    with served(chat_app(lambda text: "positive")) as url:
        for more in ([], ["--ask", "0"]):
            done = CliRunner().invoke(app, ["monitor","review","new.jsonl","--api-base",f"{url}/v1",*more])
            print(done.stdout, done.stderr)
            if done.exception: print(repr(done.exception))
    print(CliRunner().invoke(app, ["runs"]).stdout)
    assert 0
