"""A program out of a folder that `optimize export` wrote. Needs DSPy alone: a copy of this module
and of those that it imports lies in the folder, and knows no store and no configuration file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dspy

from optimize.data.inputs import typed_inputs
from optimize.errors import WorkbenchError
from optimize.files import plain, read_text
from optimize.lm.addresses import addresses
from optimize.lm.dspy_door import HistorylessLM
from optimize.lm.endpoint import declare_endpoint, hosted
from optimize.lm.thinking import room_to_think
from optimize.program.folder import ADAPTER, PROGRAM
from optimize.program.formats import FORMATS
from optimize.program.program import Program, parse_program, render
from optimize.task import Task, load_task

GOLDEN = "golden.json"
SECONDS = 180.0  # that an LM may take to answer a call


def load(folder: Path, lm: dspy.BaseLM | None = None) -> Program:
    """The folder's program, a DSPy module that is called with the task's inputs.

    lm: who is asked. Without it the LM of the environment (OPTIMIZE_LM, OPTIMIZE_API_BASE) or the
    one the program was optimized on, at the address that OPTIMIZE_API_KEY is for.
    Raises WorkbenchError where the folder holds no program, or nobody says where its LM is.
    """
    folder = folder.resolve()
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # modules of the project that the task's file imports
    text = read_text(folder / PROGRAM)
    state = json.loads(text)
    task = load_task(state["task"], folder)
    asked = lm or _lm(state, task)
    program = parse_program(task, text, str(folder / PROGRAM), lambda tuned: asked)
    if room_to_think(asked):  # its own room holds its thoughts; a lever's does not
        for predictor in program.predictors():
            predictor.config.pop("max_tokens", None)
    program.lm = asked
    return program


def answer(program: Program, given: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs for these inputs, both as JSON has them."""
    found = program(**typed_inputs(program.task, given))
    return {name: plain(found[name]) for name in program.task.signature.output_fields}


def prompt(program: Program, given: Mapping[str, Any]) -> str:
    """What these inputs are sent as. No LM is asked."""
    inputs = typed_inputs(program.task, given)
    return render(program, dspy.Example(**inputs).with_inputs(*inputs))


def read_back(program: Program, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """These outputs written as an LM writes them in the program's format, and read again."""
    signature, adapter = program.task.signature, FORMATS[program.format]
    said = adapter.format_assistant_message_content(signature, dict(outputs))
    return {name: plain(value) for name, value in adapter.parse(signature, said).items()}


class EndpointLM(HistorylessLM):
    """An LM whose server constrains answers to any JSON Schema, not only objects."""

    any_schema = True


def _lm(state: Mapping[str, Any], task: Task) -> dspy.BaseLM:
    """The environment's LM, or the one that the program's file names."""
    known = state.get("lm") or {}
    name, base = os.environ.get("OPTIMIZE_LM"), os.environ.get("OPTIMIZE_API_BASE")
    if not name:
        tuned = state.get("tuned")
        name = f"openai/{tuned}" if tuned and tuned != ADAPTER else str(known.get("lm", ""))
        base = base or known.get("api_base")
    inside = "/" not in name
    if inside and not base:
        raise WorkbenchError(
            f"The program was optimized on {name or 'an LM'!r}, which ran inside the workbench. "
            "Serve its weights at an OpenAI-compatible address and set OPTIMIZE_API_BASE to it, "
            "or give load() another LM."
        )
    options: dict[str, Any] = {
        "temperature": known.get("temperature") or 0.0,
        "max_tokens": task.max_tokens,
        "timeout": SECONDS,
        "context": known.get("context"),
        "thinks": bool(known.get("thinks")),
    }
    if base:
        model = name.removeprefix("gguf:") if inside else name.partition("/")[2]
        key = os.environ.get("OPTIMIZE_API_KEY", "none")
        reached = declare_endpoint(model, addresses(base)[0].url)
        return hosted(EndpointLM, reached, api_key=key, **options)
    return hosted(HistorylessLM, name, **options)
