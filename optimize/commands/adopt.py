"""Adopt an LM that was tuned elsewhere, from a hand-off: judged as one that was tuned here."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize import lm as lms
from optimize.commands.finetune import settle_tuned
from optimize.commands.gate import LastClimb, knobs_of, last_climb
from optimize.commands.lock import task_lock
from optimize.commands.session import Session
from optimize.commands.tune import Trained, tuned_lm
from optimize.config import RunConfig, is_local, load_config
from optimize.errors import BudgetExhausted, LmRefused, WorkbenchError
from optimize.finetune.handoff import manifest as manifests
from optimize.finetune.handoff.manifest import Manifest
from optimize.finetune.handoff.returned import check_returned, find_weights, kept_weights
from optimize.lm.reach import check_reachable
from optimize.program.program import Program, read_program
from optimize.report.record import Report
from optimize.store.read import last_run
from optimize.store.write import Run

ADOPTED = "adopted"
SERVING = (
    "Serve it beside its base, as vLLM does by --lora-modules NAME=PATH, and give --lm openai/NAME "
    "--api-base URL"
)


@dataclass(frozen=True)
class Returned:
    """A hand-off that came back. adapter: where its weights are, if not in the folder itself.
    served: by which name the tuned LM is asked, if it is hosted.
    """

    folder: Path
    manifest: Manifest
    adapter: Path | None = None
    served: str | None = None


def returned(root: Path, named: str, adapter: Path | None, served: str | None) -> Returned:
    """The hand-off in a folder, or the one that was written here for a task of that name.

    Raises WorkbenchError where there is none, or where the tuned LM is named as no LM is.
    """
    own = root / "mlruns" / "handoff" / named
    folder = own if own.is_dir() and not Path(named).is_dir() else Path(named)
    found = manifests.read(folder)
    if served and adapter:
        raise WorkbenchError(
            "--adapter names weights to be served here, --lm an LM that is served elsewhere: give "
            "one of them."
        )
    if served and (is_local(served) or not served.startswith("openai/") or served == "openai/"):
        raise WorkbenchError(
            f"--lm {served}: name the tuned LM as openai/NAME, with --api-base URL where it is "
            "served. Weights in a file are named by --adapter."
        )
    return Returned(folder, found, adapter, served)


def config_of(root: Path, found: Returned, given: Mapping[str, Any]) -> RunConfig:
    """The configuration of a session on the LM that the hand-off's climb was on, as it was there;
    the tuned LM is asked at the address that was given, or at the climb's.

    Raises WorkbenchError where the task's last climb was on another LM.
    """
    task, lm = found.manifest.task, found.manifest.lm
    report, _ = last_run(root, task)
    if report.lm != lm:
        raise WorkbenchError(
            f"The hand-off is of a climb on {lm!r}, the last climb of {task!r} was on "
            f"{report.lm!r}. Hand off and train that one, or climb on {lm!r} again."
        )
    recorded = knobs_of(report) | {"waive": found.manifest.gate.waived}
    base = given.get("api_base") or recorded.get("api_base")
    if found.served and not base and (is_local(lm) or not found.served.startswith("openai/ft:")):
        raise WorkbenchError(f"--lm {found.served} needs --api-base URL, where it is served.")
    if found.served and is_local(lm):  # the base stays here, where it has no address
        recorded, given = recorded | {"api_base": base}, {**given, "api_base": None}
    return load_config(root, recorded, **given)


def adopt(session: Session, found: Returned) -> Report:
    """Hold the tuned LM against the task's best prompt program, on val, then once on test; accept
    or revert, as `finetune` does.

    Raises WorkbenchError, before the first call, for a hand-off that is not the one that went out.
    """
    program = _program(session, found)
    rows = found.manifest.rows
    asked = session.splits.at_most(rows["val"], rows["test"])
    check_returned(found.folder, found.manifest, program, asked)
    tuned = found.served.partition("/")[2] if found.served else _weights(session, found)
    check_reachable(session.config)
    with task_lock(session, "adopt") as session:
        last = last_climb(session.held_against_people())
        if found.served:
            _check_served(session, tuned)
        return settle_tuned(last, "adopt", lambda run: _trained(run, last, tuned, program))


def _trained(run: Run, last: LastClimb, tuned: str, program: Program) -> Trained:
    """Its weights, where they are a file, are kept with the command's run."""
    if Path(tuned).is_file():
        run.attach(Path(tuned))
    return Trained(tuned, ADOPTED, program, time.perf_counter(), last.session.meter.usage())


def _program(session: Session, found: Returned) -> Program:
    """The program that the LM was tuned for, as it is in the folder: the best prompt may be another
    one by now.
    """
    return read_program(session.task, found.folder / "program.json", lambda name: session.lm)


def _weights(session: Session, found: Returned) -> str:
    """The file of the adapter, or of the merged LM, in the project."""
    source = found.adapter or find_weights(found.folder)
    if not source.exists():
        raise WorkbenchError(f"--adapter {source} does not exist.")
    base = lms.gguf_path(session.config.lm)
    if base is None:
        raise WorkbenchError(
            f"The task LM, {session.config.lm!r}, is hosted: {source} cannot be tried in this "
            f"process. {SERVING}."
        )
    return str(kept_weights(source, base, found.manifest, session.folder("adapters")))


def _check_served(session: Session, name: str) -> None:
    """Ask the tuned LM one thing, so that a wrong name costs one call and no comparison."""
    try:
        tuned_lm(session, name, session.task.max_tokens)("Answer with one word: ready?")
    except BudgetExhausted:
        raise
    except (LmRefused, Exception) as error:
        told = "" if isinstance(error, LmRefused) else f"{type(error).__name__}: "
        raise WorkbenchError(
            f"The tuned LM {name!r} does not answer at {session.config.api_base}: "
            f"{told}{str(error).strip()[:300]} {SERVING}."
        ) from error
