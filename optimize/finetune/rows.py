"""Labelled rows as chat messages to train on: what the tuned LM will be asked, and the gold answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy
from dspy.adapters import ChatAdapter

from optimize.errors import WorkbenchError
from optimize.lm import FORMATS
from optimize.program import Program, student

FORMAT = "terse"  # the LM learns the answers' form, so the prompt need not explain it


def tuned_student(best: Program) -> Program:
    """The program the tuned LM runs: the best program's instruction and passages, no demos, the terse format."""
    program = student(best.task)
    if best.passages:
        program.use_passages(best.passages)
    for mine, theirs in zip(program.predictors(), best.predictors(), strict=True):
        mine.signature = mine.signature.with_instructions(theirs.signature.instructions)
    program.format = FORMAT
    return program


def chat_rows(program: Program, examples: Sequence[dspy.Example]) -> list[dict[str, Any]]:
    """One `{"messages": [system, user, assistant]}` for each example, with its gold outputs.

    Raises WorkbenchError for programs of several predictors: their inner steps have no labels.
    """
    predictors = program.predictors()
    adapter = FORMATS[program.format]
    assert isinstance(adapter, ChatAdapter)
    if len(predictors) != 1 or not set(predictors[0].signature.output_fields) <= set(examples[0].keys()):
        raise WorkbenchError(
            f"Task {program.task.name!r} cannot be exported: its rows label the program's outputs, but not its inner steps. "
            "Fine-tuning needs a program with one predictor whose outputs are the row's."
        )
    signature = predictors[0].signature
    return [
        adapter.format_finetune_data(
            signature, [], program.with_passages(dict(e.inputs())), {name: e[name] for name in signature.output_fields}
        )
        for e in examples
    ]
