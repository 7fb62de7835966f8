"""`optimize try`: one input, the answer and what it stands on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dspy
import pytest
from typer.testing import CliRunner

from optimize.cli import app
from optimize.commands.new import NEGATIVE
from tests.reviewer import UNREADABLE, reviewer
from tests.test_lm import served


@pytest.fixture(scope="module")
def flags() -> Iterator[list[str]]:
    with served(reviewer()) as url:
        yield ["--lm", "openai/reviewer", "--api-base", f"{url}/v1"]


@pytest.fixture(autouse=True)
def here(reviewed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reviewed)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(dspy, "cache", dspy.cache)


def tried(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["try", *arguments, "--json"])
    assert done.exit_code == code, done.stderr
    return json.loads(done.stdout)


def test_the_best_program_answers_and_its_call_is_counted(flags: list[str]) -> None:
    found = tried("review", NEGATIVE[1], *flags)
    assert found["answer"] == {"verdict": "negative"} and found["run"]
    assert (found["calls"], found["cached_calls"]) == (1, 0) and found["tokens_in"] == 7
    assert len(found["demos"]) == 8 and NEGATIVE[1] in found["prompt"]
    assert all(demo["text"] in found["prompt"] for demo in found["demos"])
    assert found["confidence"] is None, "this LM does not tell"
    again = tried("review", "--field", f"text={NEGATIVE[1]}", *flags)
    assert again["answer"] == found["answer"]
    assert (again["calls"], again["cached_calls"]) == (0, 1)
    served = tried("review", json.dumps({"text": NEGATIVE[1]}), *flags)
    assert served["inputs"] == found["inputs"] == {"text": NEGATIVE[1]}
    other = json.dumps({"words": NEGATIVE[1]})
    assert tried("review", other, *flags)["inputs"] == {"text": other}
    shown = CliRunner().invoke(app, ["try", "review", NEGATIVE[1], *flags, "--prompt"]).stdout
    assert "--- system ---" in shown and "no call made" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_a_task_that_was_never_run_answers_zero_shot(flags: list[str]) -> None:
    done = CliRunner().invoke(app, ["try", "unrun", "-", *flags], input=f"{NEGATIVE[1]}\n")
    assert done.exit_code == 0 and "zero-shot" in done.stdout, done.stderr
    assert "optimize run unrun" in done.stdout
    assert tried("unrun", NEGATIVE[1], *flags)["demos"] == []


def test_an_answer_that_cannot_be_read_is_shown(flags: list[str]) -> None:
    assert tried("unrun", UNREADABLE, *flags, code=1)["unread"] == "Hm."


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["review"], '"TEXT"'),
        (["review", "x", "--field", "text=x"], '"TEXT"'),
        (["review", "--field", "text"], "NAME=VALUE"),
        (["review", "--field", "txt=x"], "Did you mean 'text'?"),
        (["review", " "], "field 'text' is empty"),
        (["revue", "x"], "Did you mean 'review'?"),
        (["review", "x"], "Nothing listens at"),
    ],
)
def test_what_cannot_be_tried_is_told_before_a_call(arguments: list[str], says: str) -> None:
    done = CliRunner().invoke(app, ["try", *arguments])
    assert done.exit_code == 2 and says in " ".join(done.stderr.split()), done.stderr
