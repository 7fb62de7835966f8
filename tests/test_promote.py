"""Who is the champion by a person's word: what is refused, what is kept on record, the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from typer.testing import CliRunner

from optimize.cli import app
from optimize.commands import promote
from optimize.commands.explained import explained
from optimize.program.program import parse_program
from optimize.store.champion import LONGEST, Change, changes, crown, earlier, present
from optimize.store.open import client
from tests.deployed import lm, root, set_right

__all__ = ["lm", "root"]  # fixtures


def given(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == code, (done.stdout, done.stderr)
    return " ".join((done.stderr if code else done.stdout).split())


def now(root: Path) -> int:
    return int(present(client(root), "review").version)


def test_a_gain_that_is_not_shown_needs_a_reason(root: Path) -> None:
    assert now(root) == 2
    told = given("promote", "review~1", code=2)
    assert "on the 12 test rows that both were asked it scores 0.67" in told
    assert "a gain of -0.17" in told and "--reason" in told and now(root) == 2
    found = json.loads(
        CliRunner().invoke(app, ["promote", "review~1", "--reason", "\x1bcalmer", "--json"]).stdout
    )
    assert now(root) == 1 and found["champion"]["how"] == "promoted"
    assert found["test"]["gain"]["n"] == 12
    version = client(root).get_model_version("review", "1")
    assert version.tags["promoted_because"] == "\x1bcalmer"
    shown = given("tasks")
    assert "review: the champion is version 1" in shown and ": ␛calmer." in shown
    assert "is version 1" in given("promote", "review~1"), "it is that already"


def test_a_program_that_does_not_fit_the_task_any_more_changes_nothing(root: Path) -> None:
    path = root / "programs" / "review.py"
    path.write_text(path.read_text().replace("verdict:", "judgement:"))
    told = given("promote", "review~1", "--reason", "why not", code=2)
    assert "saved for other fields" in told and now(root) == 2
    assert "promoted_because" not in client(root).get_model_version("review", "1").tags


def test_a_run_that_ends_meanwhile_is_not_replaced_unseen(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crowning(*given: Any) -> Any:
        client(root).set_registered_model_alias("review", "champion", 1)
        return parse_program(*given)

    monkeypatch.setattr(promote, "parse_program", crowning)
    told = given("promote", "review~1", "--reason", "why not", code=2)
    assert "that has just ended became the champion" in told
    assert "promoted_because" not in client(root).get_model_version("review", "1").tags


def test_a_gain_that_is_shown_needs_none(root: Path) -> None:
    given("promote", "review~1", "--reason", "first")
    store = client(root)
    set_right(root, store.get_model_version("review", "1").run_id, 1)
    assert "a gain of +0.7" in given("promote", "review") and now(root) == 2


def test_rollback_goes_back_as_far_as_the_record(root: Path) -> None:
    given("promote", "review~1", "--reason", "why not")
    assert "version 2" in given("rollback", "review", "--reason", "complaints")
    assert now(root) == 2 and "rolled back" in given("tasks")
    assert "version 1" in given("rollback", "review"), "a run made version 1 the champion first"
    assert "No champion of 'review' before version 1" in given("rollback", "review", code=2)


def test_an_alias_that_was_set_by_hand_is_noticed(root: Path) -> None:
    store = client(root)
    store.set_registered_model_alias("review", "champion", 1)
    assert "set by hand in MLflow" in given("tasks")
    assert "version 2" in given("rollback", "review")


@pytest.mark.parametrize(
    ("log", "before"),
    [
        ("", None),
        ("1", None),
        ("1 2", "1"),
        ("1 2 -1", None),
        ("1 2 3 -2", "1"),
        ("1 2 3 -2 3", "2"),
        ("1 2 1", "2"),
        ("1 2 1 -2", "1"),
    ],
)
def test_which_one_was_before(log: str, before: str | None) -> None:
    """-2: rolled back to version 2."""
    steps = [
        Change(step.lstrip("-"), "r", "", "rolled back" if step.startswith("-") else "promoted")
        for step in log.split()
    ]
    found = earlier(steps, steps[-1].version if steps else "1")
    assert (found and found.version) == before


def test_the_record_stays_as_short_as_databases_take(root: Path) -> None:
    store = client(root)
    versions: list[Any] = [store.get_model_version("review", n) for n in ("1", "2")]
    for n in range(40):
        crown(store, "review", versions[n % 2], "promoted", "because " * 50)
    log = changes(store, "review")
    assert log[-1].version == "2" and earlier(log, "2")
    assert len(store.get_registered_model("review").tags["champion_log"]) <= LONGEST


def test_a_version_that_was_deleted_is_told(root: Path) -> None:
    client(root).delete_model_version("review", "1")
    told = given("rollback", "review", code=2)
    assert "Version 1 of model 'review'" in told and "not there any more" in told
    assert now(root) == 2


def test_what_mlflow_says_is_told_without_a_password() -> None:
    error = MlflowException("API request to http://me:geheim@host/api failed")
    said, code = explained(error)
    assert code == 2 and said.startswith("Error: MLflow's store: ") and "geheim" not in said
