"""Every command that a report, a gate or a hand-off advises is one that works: it is parsed by the
real command line, carries the run's flags, and passes the checks that come before the first call.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from optimize.cli import app
from optimize.climb.observer import Observer
from optimize.climb.rungs import LEFT_OUT
from optimize.commands.gate import case_of
from optimize.commands.new import write_task
from optimize.commands.next_step import Step, next_step
from optimize.commands.session import Session, open_session
from optimize.config import TAKES, RunConfig, command_line, load_config
from optimize.errors import WorkbenchError
from optimize.finetune import untrainable
from optimize.finetune.criteria.case import Case
from optimize.finetune.gate import GateRecord, gate
from optimize.finetune.lora.model import base_identity
from optimize.gguf_header import read_header
from optimize.report.record import Report
from optimize.task import Task
from tests.test_cli import optimize
from tests.test_fallback import endpoint, parsed, project, report  # noqa: F401  (fixtures)
from tests.test_gate import CHANGES, sound, task  # noqa: F401  (fixtures)

KNOBS: dict[str, Any] = {
    "lm": "openai/painter",
    "api_base": "http://127.0.0.1:9",
    "teacher": "openai/big",
    "teacher_api_base": "http://127.0.0.1:8",
    "target": 0.85,
    "max_calls": 700,
    "val_rows": 12,
    "test_rows": 30,
    "headroom": True,
    "waive": "it's a trial",
    "no_regression_on": ("general",),
    "without": ("votes", "simba"),
}


def values(command: str) -> dict[str, Any]:
    """The flags of a command as the real command line reads them."""
    _, name, *words = shlex.split(command)
    return typer.main.get_group(app).commands[name].make_context(name, words).params


@pytest.mark.parametrize("name", TAKES)
def test_a_command_carries_the_flags_of_the_run_as_far_as_it_takes_them(name: str) -> None:
    config = RunConfig(**KNOBS, api_key="secret")
    shown = command_line(name, "paint", config.given | {"finetune": "openai"})
    assert "secret" not in shown
    needed = {"monitor": " rows.jsonl", "label": " rows.jsonl", "synthesize": " --rows 9"}
    found = values(shown + needed.get(name, ""))
    for knob in set(TAKES[name]) & set(KNOBS):
        expected = list(KNOBS[knob]) if isinstance(KNOBS[knob], tuple) else KNOBS[knob]
        assert found[knob] in (expected, [expected])  # recheck takes several LMs
    if name == "run":
        flags = {k: v for k, v in found.items() if k in RunConfig.model_fields}
        again = load_config(**flags | {"api_key": "secret"})
        same = config.model_copy(update={"finetune": "openai"})
        assert again.model_dump() == same.model_dump(), "the same run again"


def test_what_is_a_default_is_left_out() -> None:
    assert command_line("run", "paint", RunConfig().given) == "optimize run paint"


CASES: dict[str, dict[str, Any]] = {
    "budget": {"verdict": "budget"},
    "indecisive": {"verdict": "indecisive"},
    "no_headroom": {"verdict": "no_headroom"},
    "exhausted": {"verdict": "exhausted"},
    "reached": {"verdict": "reached"},
    "plateau, open": {"verdict": "plateau"},
    "plateau, hand-off failed": {"verdict": "plateau", "failed": ["The hand-off failed: disk."]},
}


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Session]:
    """A session over a task `paint` with the flags of KNOBS."""
    (tmp_path / "programs").mkdir()
    write_task(tmp_path, "paint")

    def make(**knobs: Any) -> Session:
        known = {k: v for k, v in KNOBS.items() if k != "no_regression_on"}
        config = RunConfig(**(known | knobs), api_key="secret")
        return open_session(tmp_path, "paint", config, Observer())

    return make


def closed(record: Report, verdict: str) -> GateRecord:
    return record.gate.model_copy(update={"open": verdict == "plateau"})


@pytest.mark.parametrize("case", CASES)
def test_the_next_command_of_every_verdict_is_one_that_works(
    case: str,
    report: Report,  # noqa: F811
    made: Callable[..., Session],
) -> None:
    session = made()
    changed = {"knobs": session.config.given, "task": "paint", **CASES[case]}
    changed["gate"] = closed(report, changed["verdict"])
    step = next_step(report.model_copy(update=changed), session)
    works(step.command, session.root)
    if case == "budget":
        assert values(step.command)["max_calls"] == max(1400, report.preflight.cost.plan.enough)
    if step.command != "optimize ui":
        name = shlex.split(step.command)[1]
        found = values(step.command)
        # more rows are wanted: all there are
        other = {"max_calls", *(("val_rows", "test_rows") if case == "indecisive" else ())}
        for knob in set(TAKES.get(name, ())) & set(session.config.given) - other:
            given = session.config.given[knob]
            given = list(given) if isinstance(given, tuple) else given
            assert found[knob] in (given, [given]), knob  # addresses may be several
    assert step.command.startswith("optimize ") and "   (" not in step.command


def test_only_the_cap_that_ended_the_climb_is_raised(
    report: Report,  # noqa: F811
    made: Callable[..., Session],
) -> None:
    session = made(max_tokens=1000, max_minutes=60)
    session.meter.begin(1, "a question")
    session.meter.send(1)
    session.meter.add(0.1, tokens_in=990, tokens_out=9)
    changed = {"knobs": session.config.given, "task": "paint", "verdict": "budget"}
    changed |= {"gate": closed(report, "budget"), "cap": session.meter.tightest()}
    stopped = report.model_copy(update=changed)
    (verdict, *_) = gate(session.task, case_of(session.task, stopped)).failed
    for command in (next_step(stopped, session).command, verdict.command):
        found = values(command)
        caps = [found[cap] for cap in ("max_calls", "max_tokens", "max_minutes")]
        assert caps == [700, 2000, 60]


def test_more_rows_are_those_left_out_else_as_many_as_a_divided_set_needs(
    report: Report,  # noqa: F811
    made: Callable[..., Session],
) -> None:
    needed = {"rows_needed": 1000, "best": report.numbers.best.model_copy(update={"n": 100})}
    needed["test_rows_needed"] = report.test.prompt.n + 100
    numbers = report.numbers.model_copy(update=needed)
    changed = {"task": "paint", "numbers": numbers, "gate": closed(report, "indecisive")}

    def step(verdict: str, session: Session) -> Step:
        now = {"verdict": verdict, "knobs": session.config.given}
        return next_step(report.model_copy(update=changed | now), session)

    session = made(val_rows=None, test_rows=8)
    rows = len(session.splits.whole.test) if session.splits.whole else 0
    cut = step("unconfirmed", session)
    assert values(cut.command)["test_rows"] == rows and not cut.first
    assert f"with the {rows - 8} test rows that were left out" in cut.note
    assert step("indecisive", session).first, "test rows decide nothing there"
    whole = step("indecisive", made(val_rows=None, test_rows=None))  # 15 % of new rows are val
    assert whole.first == "add some 6000 more labelled rows to devsets/paint"
    whole = step("unconfirmed", made(val_rows=None, test_rows=None))  # 25 % of new rows are test
    assert whole.first == "add some 400 more labelled rows to devsets/paint"


def test_levers_that_were_left_out_are_tried_before_another_teacher(
    report: Report,  # noqa: F811
    made: Callable[..., Session],
) -> None:
    session = made(without=["mipro", "votes"])
    out = {"val": None, "gain": None, "promoted": False, "skipped": LEFT_OUT}
    attempts = [
        report.attempts[0].model_copy(update=out | {"rung": rung, "family": family})
        for rung, family in (("mipro", "instructions"), ("votes", "votes"))
    ]
    changed = {"verdict": "exhausted", "task": "paint", "knobs": session.config.given}
    changed |= {"gate": closed(report, "exhausted"), "attempts": [*report.attempts, *attempts]}
    step = next_step(report.model_copy(update=changed), session)
    works(step.command, session.root)
    assert "--without" not in step.command and step.first == "take back `without` (mipro)"
    changed["attempts"] = [*report.attempts, attempts[1]]  # votes make up for no instructions
    assert "--teacher" in next_step(report.model_copy(update=changed), session).first


def test_where_a_server_of_ones_own_does_not_train_that_is_provided_for(
    report: Report,  # noqa: F811
    made: Callable[..., Session],
) -> None:
    session = made()
    changed = {"verdict": "plateau", "task": "paint", "knobs": session.config.given}
    changed |= {"gate": closed(report, "plateau"), "decision": None}
    step = next_step(report.model_copy(update=changed), session)
    assert step.command.startswith("optimize finetune paint --backend openai")
    assert step.note == "if that server fine-tunes; else train elsewhere from mlruns/handoff/paint"


def works(command: str, root: Path) -> None:
    """It is parsed, and the task and the configuration pass all checks before the first call."""
    parsed(command)
    _, name, *_ = shlex.split(command)
    if name not in TAKES:  # one that looks
        return
    flags = {k: v for k, v in values(command).items() if k in RunConfig.model_fields}
    if name == "finetune":
        flags["finetune"] = values(command)["backend"]
    config = load_config(**flags | {"api_key": "secret"})
    open_session(root, "paint", config, Observer())


def test_a_plateau_with_a_closed_gate_says_what_would_open_it(
    report: Report,  # noqa: F811
    made: Callable[..., Session],
    task: Task,  # noqa: F811
    sound: Case,  # noqa: F811
) -> None:
    session = made()
    for name, make, passed, _ in CHANGES.values():
        found = gate(task, make(sound))
        for criterion in found.criteria:
            if criterion.command:
                parsed(criterion.command)
        if passed is not False:
            continue
        changed = {"gate": found, "knobs": session.config.given}
        step = next_step(report.model_copy(update=changed), session)
        parsed(step.command)
        (failed,) = found.failed
        told = failed.command or command_line("gate", "paint", session.config.given)
        assert failed.name == name and step.command == told and step.command != "optimize ui"
        assert not failed.command or failed.advice.rstrip(".") in step.note


def test_a_target_that_is_lowered_afterwards_is_no_plateau(task: Task, sound: Case) -> None:  # noqa: F811
    found = gate(task, replace(sound, target=0.4))
    assert [c.name for c in found.failed] == ["verdict", "no LM needed"]


def gguf(path: Path, name: str, first: bool = True) -> Path:
    """The head of a GGUF file of that architecture, as llama.cpp writes it or in another order."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    pairs = [
        text("general.architecture") + struct.pack("<I", 8) + text(name),
        text("general.name") + struct.pack("<I", 8) + text("x"),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 2)
    path.write_bytes(head + b"".join(pairs if first else pairs[::-1]) + b"\0" * 64)
    return path


@pytest.mark.parametrize("first", [True, False])
def test_the_architecture_is_read_from_the_file(tmp_path: Path, first: bool) -> None:
    assert read_header(gguf(tmp_path / "m.gguf", "qwen3", first)).architecture == "qwen3"
    (tmp_path / "none.gguf").write_bytes(b"no such thing")
    with pytest.raises(WorkbenchError, match="no GGUF file"):
        read_header(tmp_path / "none.gguf")


def test_weights_of_another_architecture_are_neither_advised_nor_asked(
    report: Report,  # noqa: F811
    made: Callable[..., Session],
    tmp_path: Path,
) -> None:
    lm = f"gguf:{gguf(tmp_path / 'm.gguf', 'gemma')}"
    config = RunConfig(lm=lm)
    assert "'gemma'" in untrainable(config)
    session = made()
    object.__setattr__(session, "config", config)
    step = next_step(report.model_copy(update={"knobs": config.given}), session)
    assert step.command == f"optimize handoff paint --lm {lm}" and "'gemma'" in step.note
    # these bytes cannot be served, so this is told before the LM is so much as opened
    refused = optimize(session.root, "finetune", "paint", "--lm", lm)
    assert refused.returncode == 2 and "'gemma'" in refused.stderr


def test_a_base_is_its_content_not_its_path(tmp_path: Path) -> None:
    one, same, other = tmp_path / "one", tmp_path / "same", tmp_path / "other"
    for folder, text in ((one, "a"), (same, "a"), (other, "b")):
        folder.mkdir()
        (folder / "model.safetensors").write_text(text)
    assert base_identity(str(one)) == base_identity(str(same)) != base_identity(str(other))
    before = base_identity(str(one))
    (one / "model.safetensors").write_text("c")
    assert base_identity(str(one)) != before, "other weights at the same place are another base"
    (one / "model.safetensors").rename(one / "model.gguf")
    moved = (one / "model.gguf").rename(tmp_path / "moved.gguf")
    (one / "again.gguf").write_text("c")
    assert base_identity(str(moved)) == base_identity(str(one / "again.gguf")), (
        "a file is its bytes"
    )


HOLD = """
import sys, time
from pathlib import Path
from optimize.climb.observer import Observer
from optimize.commands.lock import task_lock
from optimize.commands.session import open_session
from optimize.config import RunConfig

config = RunConfig(lm="openai/painter", api_base=sys.argv[2], api_key="secret")
with task_lock(open_session(Path(sys.argv[1]), "paint", config, Observer()), "run"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no way to interrupt one process")
def test_a_second_command_on_a_task_waits_for_the_first(made: Callable[..., Session]) -> None:
    session = made()
    listening = socket.create_server(("127.0.0.1", 0))  # an address where something listens
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    python = {"text": True, "cwd": session.root, "env": os.environ | {"OPTIMIZE_API_KEY": "k"}}
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(session.root), address], stdout=subprocess.PIPE, **python
    )
    base = ("--lm", "openai/painter", "--api-base", address)
    commands = {
        signal.SIGHUP: ("run",),
        signal.SIGTERM: ("finetune", "--backend", "openai"),
        None: ("handoff",),
    }
    waiting = {}
    try:
        assert first.stdout and first.stdout.readline() == "held\n"
        for sent, (name, *flags) in commands.items():
            line = [sys.executable, "-m", "optimize", name, "paint", *base, *flags]
            waiting[sent] = subprocess.Popen(line, stderr=subprocess.PIPE, **python)
        for sent, command in waiting.items():
            assert command.stderr
            told = next(line for line in command.stderr if "at work in" in line)
            assert f"process {first.pid} (optimize run paint --lm openai/painter" in told
            assert "secret" not in told and "Waiting" in told
            if sent:
                command.send_signal(sent)
                command.wait(timeout=180)
                assert command.returncode == 130
        first.kill()  # a process that died holds nothing
        said = waiting[None].communicate(timeout=120)[1]
        assert waiting[None].returncode == 2 and "has no finished run yet" in said, "it went on"
    finally:
        for process in (first, *waiting.values()):
            process.kill()
            process.communicate()
        listening.close()
