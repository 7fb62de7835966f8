"""One input answered by a task's best program, or by its zero-shot one where there is none yet."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

from optimize import lm as lms
from optimize.commands.load import Saved, asking, kept
from optimize.config import RunConfig, load_config
from optimize.data.read import read_inputs
from optimize.errors import WorkbenchError
from optimize.files import plain
from optimize.lm.meter import Meter
from optimize.lm.metered import one_example
from optimize.lm.reach import check_reachable
from optimize.program.program import Program, render, student
from optimize.report.rungs import Answered
from optimize.scoring.evaluate import taken_confidence
from optimize.store.champion import champion
from optimize.store.read import NoRun
from optimize.task import Task, load_task


def answer(root: Path, name: str, given: Mapping[str, str] | str, **lm: str | None) -> Answered:
    """given: the task's inputs by their names, or the text of the only one. lm: the knobs `lm` and
    `api_base`, where another LM is to answer than the one the program was optimized on.

    Raises WorkbenchError for inputs that do not fit, and where the LM cannot be reached.
    """
    task = load_task(name, root)
    row = read_inputs(task, _named(task, given) if isinstance(given, str) else given)
    lms.configure(root)
    found = best_program(task, Meter(sys.maxsize), **lm)
    program, began, unread = found.program, time.perf_counter(), None
    with one_example() as spent:
        try:
            prediction = program(**row.inputs())
        except dspy.AdapterParseError as error:
            prediction, unread = dspy.Prediction(), str(error.lm_response)
    usage = spent.usage()
    confidence = taken_confidence(prediction, task)
    inputs = dict(row.inputs())
    return Answered(
        task=name,
        run=found.run,
        lm=found.config.lm,
        inputs=plain(inputs),
        answer=plain(dict(prediction)),
        unread=unread,
        confidence=confidence,
        demos=plain(program.demos_for(inputs)),
        prompt=render(program, row),
        calls=usage.calls,
        cached_calls=usage.cached,
        tokens_in=usage.tokens_in,
        tokens_out=usage.tokens_out,
        cost_usd=usage.cost_usd,
        seconds=round(time.perf_counter() - began, 2),
    )


def _named(task: Task, text: str) -> dict[str, Any]:
    """The inputs by their names: an object of JSON may name them, as a served program takes it."""
    names = list(task.signature.input_fields)
    with suppress(ValueError):
        known = json.loads(text)
        if isinstance(known, dict) and known.keys() == set(names):
            return known
    if len(names) > 1:
        flags = " ".join(f"--field {name}=…" for name in names)
        raise WorkbenchError(f"Task {task.name!r} has {len(names)} inputs: give {flags}")
    return {names[0]: text}


@dataclass(frozen=True)
class Found:
    """A program that may be asked. run: that made it, and text: of its file; None: nobody has
    optimized it.
    """

    program: Program
    config: RunConfig
    run: str | None
    text: str | None = None


def best_program(task: Task, meter: Meter, **flags: Any) -> Found:
    """The task's best program, or its zero-shot one where there is none yet, on an LM that is
    counted by the meter and tells its log-probabilities where it can. flags: knobs; `lm` and
    `api_base` name another LM than the one it was optimized on.

    Raises WorkbenchError where the LM cannot be reached.
    """
    try:
        run = champion(task.root, task.name)
    except NoRun:
        return known_program(task, meter, None, None, flags)
    text = kept(run, task, flags.get("lm")).text
    return known_program(task, meter, run.id, text, flags)


def known_program(
    task: Task, meter: Meter, run: str | None, text: str | None, flags: Mapping[str, Any]
) -> Found:
    """The same of a program that is known: `Found.run` and `Found.text`. The store is not asked."""
    if text is None:
        config = load_config(task.root, **flags)
        check_reachable(config)
        program = student(task)
        program.lm = lms.telling(lms.task_lm(config, meter, task.max_tokens))
        return Found(program, config, None)
    found = Saved(text, f"the program of run {run}", task)
    config = found.configured(**flags)
    check_reachable(config)
    program = asking(found, flags.get("lm"), config, meter)
    program.lm = program.lm and lms.telling(program.lm)
    return Found(program, config, run, text)
