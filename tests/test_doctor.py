"""`optimize doctor` says what is wrong, always ends, and asks the LM once at most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pytest
from typer.testing import CliRunner

from optimize.cli import app
from optimize.commands import doctor
from optimize.lm import weights
from tests.faulty_server import Asked, faulty_app
from tests.test_lm import served


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(dspy, "cache", dspy.cache)
    return project


def checks(*flags: str, code: int = 0) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["doctor", *flags, "--json"])
    assert done.exit_code == code, done.stderr
    assert all(len(line) <= 80 for line in done.stderr.splitlines())
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_all_that_is_needed_works_and_nothing_is_written(here: Path) -> None:
    found = checks("--no-call")
    assert {name for name, check in found.items() if check["status"] == "fail"} == set()
    assert set(found) >= {"versions", "project", "store", "disk", "answers", "models", "lora", "LM"}
    assert "not asked" in found["LM"]["found"] or "not on this machine" in found["LM"]["found"]
    assert "no run yet" in found["store"]["found"] and not (here / "mlruns").exists()


def test_an_lm_that_is_switched_off_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMIZE_LM", "openai/gpt-4-0613")
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    found = checks("--no-call")["retirement"]
    assert found["status"] == "warn" and "openai/gpt-4-0613 is switched off on" in found["found"]
    assert "recheck" in found["remedy"]


@pytest.mark.parametrize(("met", "status"), [("", "ok"), ("503", "fail"), ("429", "fail")])
def test_the_lm_is_asked_once_whatever_it_answers(
    monkeypatch: pytest.MonkeyPatch, met: str, status: str
) -> None:
    def fault(asked: Asked) -> str:
        return met

    server = faulty_app(lambda text: "Yes.", fault)
    with served(server) as url:
        monkeypatch.setenv("OPTIMIZE_LM", "openai/any")
        monkeypatch.setenv("OPTIMIZE_API_BASE", f"{url}/v1")
        for calls in (1, 2):  # never from the cache
            found = checks(code=2 if met else 0)["LM"]
            assert (found["status"], len(server.state.log)) == (status, calls), found
        said = {"": "one question", "503": "overloaded", "429": "slow down"}[met]
        assert said in found["found"], found


def test_a_check_that_hangs_does_not_hang_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(faulty_app(lambda text: "", lambda asked: "hangs")) as url:
        monkeypatch.setenv("OPTIMIZE_LM", "openai/any")
        monkeypatch.setenv("OPTIMIZE_API_BASE", f"{url}/v1")
        monkeypatch.setattr(doctor, "LM_SECONDS", 0.5)
        assert "no answer within" in checks(code=2)["LM"]["found"]


def test_what_is_missing_is_told_with_what_to_do(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTIMIZE_CACHE", str(tmp_path / "nowhere"))
    monkeypatch.setattr(doctor, "LORA", ("no_such_package",))
    monkeypatch.setattr(weights, "find", None)  # nothing is fetched
    found = checks()
    assert found["lora"]["status"] == "warn" and "pip install" in found["lora"]["remedy"]
    assert found["LM"]["status"] == "warn" and "optimize lm pull" in found["LM"]["remedy"]
    (here / "optimize.toml").write_text("lmm = 1\n")
    knobs = checks("--no-call", code=2)["knobs"]
    assert "'lmm'" in knobs["found"] and "Did you mean 'lm'?" in knobs["found"]
