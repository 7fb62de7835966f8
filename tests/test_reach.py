"""What is told before the first call: a missing key, an address where nothing listens."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from fastapi import FastAPI, HTTPException

from optimize import lm as lms
from optimize.commands.new import write_task
from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.lm.reach import check_reachable
from tests.test_cli import optimize
from tests.test_lm import served


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [n for n in os.environ if n.endswith(("_API_KEY", "_API_BASE", "_BASE_URL"))]:
        monkeypatch.delenv(name)
    (tmp_path / "programs").mkdir()
    write_task(tmp_path, "review")
    return tmp_path


@pytest.mark.parametrize(
    "flags",
    [
        ["--lm", "openai/gpt-4.1-mini"],
        ["--lm", "openai/x", "--api-base", "BASE", "--teacher", "anthropic/claude"],
    ],
)
def test_a_missing_key_is_told_instead_of_the_cap(project: Path, flags: list[str]) -> None:
    with served(FastAPI()) as url:
        given = [url + "/v1" if flag == "BASE" else flag for flag in flags]
        done = optimize(project, "run", "review", "--max-calls", "5", *given)
    assert done.returncode == 2 and "_API_KEY in the environment" in done.stderr
    assert "cap" not in done.stderr and not (project / "mlruns").exists()


def test_a_provider_that_nobody_knows_is_told_at_once(project: Path) -> None:
    for command in (
        ["run", "review", "--max-calls", "400"],
        ["check", "review"],
        ["lm", "ask", "x"],
    ):
        done = optimize(project, *command, "--lm", "antropic/claude-sonnet-4")
        assert done.returncode == 2, done.stdout
        assert "no provider 'antropic'. Did you mean 'anthropic'?" in done.stderr, done.stderr
    known = "cohere/command-r", "together_ai/meta-llama/Llama-3", "claude-code/claude-sonnet-4"
    for name in (*known, "crusoe/deepseek-ai/DeepSeek-R1-0528"):
        lms.check_name(name, None)
    lms.check_name("mine/model", "http://127.0.0.1:9/v1")


def test_a_task_may_declare_a_provider_of_its_own(project: Path) -> None:
    file = project / "programs" / "review.py"
    declared = """import litellm
litellm.custom_provider_map = [{"provider": "mine", "custom_handler": litellm.CustomLLM()}]
"""
    head, rest = file.read_text().split("import dspy", 1)
    file.write_text(f"{head}import dspy\n{declared}{rest}")
    done = optimize(project, "check", "review", "--lm", "mine/model")
    assert "no provider" not in done.stderr and "Its levers" in done.stdout


def test_a_refused_key_is_told_at_the_first_call(project: Path) -> None:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def refuse() -> None:
        raise HTTPException(401, "no such key")

    with served(app) as url:
        base = ["--lm", "openai/x", "--api-base", url + "/v1"]
        done = optimize(project, "run", "review", "--max-calls", "40", "--threads", "1", *base)
    assert done.returncode == 2 and "refuses the key" in done.stderr, done.stderr
    assert "cap" not in done.stderr


def test_a_dead_endpoint_is_told_within_seconds(project: Path) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        start = time.monotonic()
        with pytest.raises(WorkbenchError, match="Nothing listens at http"):
            check_reachable(RunConfig(lm="openai/x", api_base=base))
        assert time.monotonic() - start < 5
        done = optimize(project, "run", "review", "--lm", "openai/x", "--api-base", base)
    assert done.returncode == 2 and "Nothing listens at" in done.stderr


def test_a_gateway_and_an_unknown_provider_are_left_to_the_first_call(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_reachable(RunConfig(lm="bedrock/x"))
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    check_reachable(RunConfig(lm="openai/x"))
    with pytest.raises(WorkbenchError, match="is none; write it as"):
        check_reachable(RunConfig(lm="openai/x", api_base="localhost:8000"))
