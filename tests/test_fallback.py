"""From a plateau to a hand-off: the whole command against a scripted endpoint that no prompt can
teach.
"""

from __future__ import annotations

import itertools
import json
import random
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from optimize.cli import app
from optimize.climb.observer import Observer
from optimize.commands.finish import surviving
from optimize.commands.gate import gate_last
from optimize.commands.handoff import handoff_last
from optimize.commands.new import write_task
from optimize.commands.next_step import next_step
from optimize.commands.run import run
from optimize.commands.session import Session, open_session
from optimize.config import RunConfig
from optimize.errors import BudgetExhausted, LmRefused, StoreFailed, WorkbenchError
from optimize.finetune.accept import DecisionRecord
from optimize.finetune.handoff.manifest import read, verify
from optimize.report.record import Report
from optimize.stats.records import GainRecord
from tests.test_cli import optimize
from tests.test_climb import painter
from tests.test_lm import served
from tests.test_tuning import forgotten

PROGRAM = '''
from typing import Literal

import dspy

from optimize.task import Score, Task


class Paint(dspy.Signature):
    """Which colour?"""

    thing: str = dspy.InputField()
    colour: Literal["red", "green", "blue"] = dspy.OutputField()


def metric(example, prediction):
    return Score(float(example.colour == prediction.colour))


task = Task(signature=Paint, metric=metric, max_tokens=60, stability="stable", owner="paint shop")
'''


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with served(painter()) as url:
        yield url + "/v1"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each thing is of two colours, of which a coin chose one: no lever can reach the target."""
    root, rng = tmp_path_factory.mktemp("project"), random.Random(0)
    (root / "programs").mkdir()
    (root / "programs" / "paint.py").write_text(PROGRAM)
    letters = lambda: "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=9))  # noqa: E731
    words = {"brick": "red", "moss": "green", "ocean": "blue"}
    rows = [
        {
            "thing": f"{' '.join(both)} {letters()} sample number {letters()}",
            "colour": words[rng.choice(both)],
        }
        for both in (rng.sample(list(words), 2) for _ in range(200))
    ]
    (root / "devsets" / "paint").mkdir(parents=True)
    (root / "devsets" / "paint" / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    return root


def test_what_fails_after_a_climb_costs_no_report_and_tells_no_password() -> None:
    failed = list[str]()
    url = "https://me:hunter2@host/api failed"
    for error in (LmRefused("HTTP 404"), StoreFailed("disk full"), RuntimeError(url)):
        with surviving(failed, "It"):
            raise error
    assert failed == [
        "It failed: HTTP 404",
        "It failed: disk full",
        "It failed: RuntimeError: https://me:…@host/api failed",
    ]


ADDRESS = "http://127.0.0.1:9"


def parsed(command: str) -> None:
    """The real command line takes it, flag by flag; nothing is run."""
    program, name, *words = shlex.split(command)
    assert program == "optimize"
    typer.main.get_group(app).commands[name].make_context(name, words)


def session(root: Path, url: str, **knobs: object) -> Session:
    return open_session(
        root,
        "paint",
        RunConfig(lm="openai/painter", api_base=url, api_key="none", **knobs),
        Observer(),
    )


@pytest.fixture(scope="module")
def report(project: Path, endpoint: str) -> Report:
    return run(session(project, endpoint, no_regression_on=("general",)))


def test_a_plateau_opens_the_gate_and_writes_a_handoff(report: Report, project: Path) -> None:
    assert (report.verdict, report.gate.open) == ("plateau", True), report.gate.reasons
    assert {k.kind for k in report.diagnosis.kinds} <= {
        "boundaries",
        "labels",
        "schema",
    } and report.diagnosis.wrong >= 10
    folder = project / "mlruns" / "handoff" / "paint"
    manifest = read(folder)
    assert (
        verify(folder) == [] and manifest.before["best prompt program, test"] == report.test.prompt
    )
    assert (
        manifest.gate == report.gate
        and manifest.rows == report.rows
        and "preferences/train.jsonl" not in manifest.files
    )
    assert re.fullmatch(
        r"optimize finetune paint --backend openai --lm openai/painter --api-base http://\S+"
        r" --no-regression-on general",
        report.next,
    )
    assert "if that server fine-tunes; else train elsewhere from" in report.next_note
    assert manifest.split.startswith("one file divided")


@pytest.mark.parametrize(
    ("regressed", "named", "accepted", "replay", "known", "step"),
    [
        (True, True, False, 0, 120, "finetune --replay 100 (general got worse;"),
        (True, True, False, 0, 7, "finetune --replay 7 (general got worse;"),
        (True, True, False, 0, 0, "finetune --epochs 2 (fewer passes"),
        (True, True, False, 50, 120, "finetune --replay 50 --epochs 2 (fewer passes"),
        (True, False, True, 0, 120, "finetune --replay 100 (general got worse;"),
        (True, False, False, 0, 120, "run --finetune openai"),
        (False, True, False, 0, 120, "run --finetune openai"),
        (False, False, True, 0, 120, "ui"),
    ],
)
def test_the_next_step_after_a_tuning(
    report: Report,
    tmp_path: Path,
    regressed: bool,
    named: bool,
    accepted: bool,
    replay: int,
    known: int,
    step: str,
) -> None:
    write_task(tmp_path, "paint")
    (tmp_path / "devsets" / "general").mkdir(parents=True)
    (tmp_path / "devsets" / "general" / "replay.txt").write_text(
        "".join(f"Name river {n}.\n" for n in range(known))
    )
    config = RunConfig(
        lm="openai/painter",
        api_base=ADDRESS,
        api_key="none",
        finetune="openai",
        epochs=4,
        replay=replay,
    )
    drop = GainRecord.between([1.0] * 9, [0.0] * 9)
    decision = DecisionRecord(
        accepted=accepted,
        tuned="openai",
        val=drop,
        test=drop,
        tunings=1,
        least_gain=0.02,
        wrong_if=[],
        decided="2026-01-01",
    )
    numbers = report.numbers.model_copy(update={"rows_needed": 400})
    after = report.model_copy(
        update={
            "decision": decision,
            "forgetting": [forgotten(named, regressed)],
            "numbers": numbers,
            "knobs": config.given,
        }
    )
    found = next_step(after, open_session(tmp_path, "paint", config, Observer()))
    command, _, note = step.partition(" (")
    name, *changed = command.split()
    parsed(found.command)
    words = shlex.split(found.command)
    assert words[1] == name and " ".join(changed) in found.command and found.note.startswith(note)
    flags = dict(itertools.pairwise(words))
    assert name == "ui" or (flags["--lm"], flags["--api-base"]) == ("openai/painter", ADDRESS)
    assert "none" not in words, "the key is never printed"
    assert name != "finetune" or flags["--backend"] == "openai"
    if "--epochs" in step:
        opened = open_session(tmp_path, "paint", config, Observer())
        once = replace(opened, config=config.model_copy(update={"epochs": 1}))
        assert next_step(after, once).command == "optimize report paint --details"
    assert ("more labelled rows" in found.first) is (name == "run")


def test_the_handoff_is_kept_with_the_run(report: Report, project: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlruns/mlflow.db")
    (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name == "paint"]
    (parent,) = [
        r for r in client.search_runs([experiment]) if "mlflow.parentRunId" not in r.data.tags
    ]
    folder = Path(parent.info.artifact_uri.removeprefix("file://")) / "paint"
    assert {"manifest.json", "README.md", "chat", "recipes"} <= {p.name for p in folder.iterdir()}
    assert parent.data.tags["gate"] == "open"


def test_pairs_are_what_the_program_gets_wrong_on_train_rows(
    report: Report, project: Path, endpoint: str
) -> None:
    folder, manifest, _ = handoff_last(session(project, endpoint), pairs=True)
    wrong = manifest.files["preferences/train.jsonl"].rows
    assert wrong and report.rows["train"] / 3 < wrong < report.rows["train"]
    assert verify(folder) == []
    with pytest.raises(BudgetExhausted, match="cap of 5 LM calls"):
        handoff_last(session(project, endpoint, max_calls=5, seed=1, temperature=0.5), pairs=True)
    assert verify(folder) == [], "a hand-off that could not be renewed is left as it was"


def test_a_handoff_is_of_the_lm_that_the_last_climb_asked(
    report: Report, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTIMIZE_API_KEY", "none")
    found = optimize(project, "handoff", "paint")
    assert found.returncode == 0, found.stderr
    assert "optimize finetune paint --backend openai --lm openai/painter" in found.stdout
    file = project / "optimize.toml"  # what it says by now is not what the climb asked
    file.write_text(
        'lm = "openai/new"\napi_base = "http://127.0.0.1:9/v1"\ntarget = 0.3\nval_rows = 9\n'
    )
    again = optimize(project, "handoff", "paint")
    assert again.returncode == 0 and "--lm openai/painter" in again.stdout, again.stderr
    assert "--no-regression-on general" in again.stdout, "what must not break is the climb's"
    assert optimize(project, "gate", "paint").returncode == 0
    file.unlink()
    other = optimize(project, "handoff", "paint", "--lm", "openai/other")
    assert other.returncode == 2 and "The last climb was on LM 'openai/painter'" in other.stderr


def test_a_gate_of_another_target_is_refused_with_the_climb_that_tells(
    report: Report, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTIMIZE_API_KEY", "none")
    for command in (("gate",), ("handoff",), ("finetune", "--backend", "openai")):
        found = optimize(project, *command, "paint", "--target", "0.5")
        said = " ".join(found.stderr.split())
        assert found.returncode == 2 and f"judged by its target {report.target:g}" in said
        assert "optimize run paint --lm openai/painter" in said and "--target 0.5" in said


def test_the_command_checks_a_handoff(report: Report, project: Path) -> None:
    folder = project / "mlruns" / "handoff" / "paint"
    good = optimize(project, "handoff", "--verify", str(folder))
    assert good.returncode == 0 and "every hash and claim of the manifest holds" in good.stdout
    program = (folder / "program.json").read_text()
    (folder / "program.json").write_text(program.replace("colour", "color"))
    bad = optimize(project, "handoff", "--verify", str(folder))
    assert (
        bad.returncode == 1
        and "program.json was changed" in bad.stderr
        and "Traceback" not in bad.stderr
    )
    (folder / "program.json").write_text(program)
    (folder / "out" / "sft").mkdir(parents=True)
    (folder / "out" / "sft" / "adapter_model.safetensors").write_text("trained here")
    assert optimize(project, "handoff", "--verify", str(folder)).returncode == 0
    (folder / "chat" / "more.jsonl").write_text("{}")
    added = optimize(project, "handoff", "--verify", str(folder))
    assert added.returncode == 1 and "chat/more.jsonl is not in the manifest" in added.stderr
    (folder / "chat" / "more.jsonl").unlink()
    for arguments in (("handoff",), ("handoff", "--verify", str(project))):
        refused = optimize(project, *arguments)
        assert refused.returncode == 2 and "Traceback" not in refused.stderr


def test_the_gate_follows_the_task_as_it_is_now(
    report: Report, project: Path, endpoint: str
) -> None:
    program = project / "programs" / "paint.py"
    program.write_text(PROGRAM.replace(', owner="paint shop"', ""))
    try:
        assert (
            not gate_last(project, "paint", RunConfig())[0].open
            and gate_last(project, "paint", RunConfig(waive="a trial"))[0].open
        )
        with pytest.raises(WorkbenchError, match="stable and owned"):
            handoff_last(session(project, endpoint), pairs=False)
        _, manifest, _ = handoff_last(session(project, endpoint, waive="a trial"), pairs=False)
        assert manifest.gate.waived == "a trial"
    finally:
        program.write_text(PROGRAM)
