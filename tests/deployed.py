"""A project whose task `review` has two registered runs, the second one the champion, and the LM
that it asks.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dspy
import pytest
from fastapi import FastAPI

from optimize.commands.new import NEGATIVE
from optimize.program.program import Program, student, to_text
from optimize.store.champion import CHAMPION, LOG, Change, champion
from optimize.store.open import client
from optimize.store.read import TEST_SCORES
from optimize.task import load_task
from tests.test_lm import chat_app, served


def verdict(text: str) -> str:
    """In any format that the programs of these tests ask in."""
    said = "negative" if any(known in text for known in NEGATIVE) else "positive"
    return f"[[ ## verdict ## ]]\n{said}\n\n[[ ## completed ## ]]" if "[[ ##" in text else said


@pytest.fixture(scope="module")
def lm() -> Iterator[tuple[str, FastAPI]]:
    """Its address, and the application that keeps the bodies it was sent."""
    app = chat_app(verdict)
    with served(app) as url:
        yield f"{url}/v1", app


@pytest.fixture
def root(
    reviewed: Path, lm: tuple[str, FastAPI], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A copy that a test may change; of 12 test rows the runs are right on 8 and on 10."""
    monkeypatch.setattr(dspy, "cache", dspy.cache)
    copy = tmp_path / "project"
    shutil.copytree(reviewed, copy)
    monkeypatch.chdir(copy)
    store, log = client(copy), []
    for number, right in (("1", 8), ("2", 10)):
        run = store.get_model_version("review", number).run_id
        log.append(asdict(Change(number, run, "2026-11-26T12:00:00+00:00")))
        set_right(copy, run, right)
    store.set_registered_model_tag("review", LOG, json.dumps(log))
    store.set_registered_model_alias("review", CHAMPION, 2)
    improved(copy, lm[0], format="compact")
    return copy


def kept(root: Path, run: str, name: str) -> Path:
    """A file that a run keeps. Written to directly: MLflow remembers for the life of a process
    where a run's files are, and this project is a copy of one that it has seen.
    """
    return root / "mlruns" / "artifacts" / "review" / run / "artifacts" / name


def set_right(root: Path, run: str, right: int) -> None:
    """Put on record that the run's program is right on the first so many test rows."""
    path = kept(root, run, TEST_SCORES)
    known = json.loads(path.read_text())
    known["programs"]["final"] = [float(n < right) for n in range(len(known["rows"]))]
    path.write_text(json.dumps(known))


def improved(root: Path, api_base: str, lm: str = "openai/any", **parts: Any) -> Program:
    """A program with these attributes, put on record as the champion's."""
    program = student(load_task("review", root))
    for name, value in parts.items():
        setattr(program, name, value)
    knobs = {"lm": lm, "api_base": api_base or None, "temperature": 0.0}
    run = champion(root, "review").id
    kept(root, run, "program.json").write_text(to_text(program, knobs), encoding="utf-8")
    return program
