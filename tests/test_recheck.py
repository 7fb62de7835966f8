"""`optimize recheck`: the test rows asked again, today or of another LM, held against the record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from fastapi import FastAPI, Request
from typer.testing import CliRunner

from optimize.cli import app
from optimize.commands.init import write_project
from optimize.commands.new import write_task
from tests.reviewer import reviewer
from tests.stored import stored_run
from tests.test_lm import completion, served


def always(verdict: str) -> FastAPI:
    """An endpoint that finds every review so."""
    server = FastAPI()
    server.state.calls = 0

    @server.post("/v1/chat/completions")
    async def complete(request: Request) -> Any:
        server.state.calls += 1
        asked = await request.json()
        return completion(asked["model"], f"<verdict>{verdict}</verdict>")

    return server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose best program is right on 8 of ten test rows."""
    root = tmp_path_factory.mktemp("rechecked")
    write_project(root, [])
    write_task(root, "review")
    stored_run(root, "review", 8, lm="openai/reviewer")
    return root


@pytest.fixture(scope="module")
def same() -> Iterator[str]:
    with served(reviewer()) as url:
        yield f"{url}/v1"


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(dspy, "cache", dspy.cache)


def asked(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["recheck", "review", *arguments])


def test_see(same: str) -> None:
    done = asked("--api-base", same)
    print(done.stdout, done.stderr)
    done = asked("--api-base", same, "--json")
    print(done.stdout, done.stderr)
    with served(always("positive")) as url:
        done = asked(
            "--lm",
            "openai/reviewer",
            "--lm",
            "openai/yes",
            "--api-base",
            same,
            "--api-base",
            f"{url}/v1",
            "--target",
            "0.4",
        )
        print(done.stdout, done.stderr)
    print(CliRunner().invoke(app, ["runs"]).stdout)
    assert 0
