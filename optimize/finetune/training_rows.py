"""Rows as other trainers want them: what the tuned LM will be asked, and the gold answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy
from dspy.adapters import ChatAdapter

from optimize.errors import WorkbenchError
from optimize.files import plain, to_json
from optimize.program.compact_format import FORMATS
from optimize.program.program import Program, student
from optimize.scoring.evaluate import Outcome

FORMAT = "terse"  # the LM learns the answers' form, so the prompt need not explain it
TrainingRow = dict[str, Any]


def tuned_student(best: Program) -> Program:
    """The program the tuned LM runs: the best program's instruction and passages, no demos, the
    terse format.
    """
    program = student(best.task)
    if best.passages:
        program.use_passages(best.passages)
    for mine, theirs in zip(program.predictors(), best.predictors(), strict=True):
        mine.signature = mine.signature.with_instructions(theirs.signature.instructions)
    program.format = FORMAT
    return program


def chat_rows(program: Program, examples: Sequence[dspy.Example]) -> list[TrainingRow]:
    """One `{"messages": [system, user, assistant]}` for each example, with its gold outputs.

    Raises WorkbenchError for programs of several predictors: their inner steps have no labels.
    """
    predictors = program.predictors()
    adapter = FORMATS[program.format]
    assert isinstance(adapter, ChatAdapter)
    if len(predictors) != 1 or not set(predictors[0].signature.output_fields) <= set(
        examples[0].keys()
    ):
        raise WorkbenchError(
            f"Task {program.task.name!r} cannot be exported: its rows label the program's outputs, "
            "but not its inner steps. Fine-tuning needs a program with one predictor whose "
            "outputs are the row's."
        )
    signature = predictors[0].signature
    return [
        adapter.format_finetune_data(
            signature,
            [],
            program.with_passages(dict(e.inputs())),
            {name: e[name] for name in signature.output_fields},
        )
        for e in examples
    ]


def schema_rows(program: Program, examples: Sequence[dspy.Example]) -> list[TrainingRow]:
    """The same with a JSON object as the answer, for providers that constrain a tuned LM to a JSON
    Schema.
    """
    names = list(program.task.signature.output_fields)
    found = []
    for example, row in zip(examples, chat_rows(program, examples), strict=True):
        *asked, answer = row["messages"]
        told = (
            f"{asked[0]['content']}\nAnswer with a JSON object that has the fields "
            f"{', '.join(names)}."
        )
        gold = to_json({name: plain(example[name]) for name in names})
        found.append(
            {"messages": [asked[0] | {"content": told}, *asked[1:], answer | {"content": gold}]}
        )
    return found


def completion_rows(chat: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Chat rows as `{"prompt", "completion"}` texts, for trainers without chat templates."""
    return [
        {
            "prompt": "\n\n".join(m["content"] for m in row["messages"][:-1]) + "\n\n",
            "completion": row["messages"][-1]["content"],
        }
        for row in chat
    ]


def preferences(
    program: Program, chat: Sequence[TrainingRow], outcomes: Sequence[Outcome]
) -> list[TrainingRow]:
    """Pairs for DPO: on the same input the gold answer is chosen, the incumbent's wrong one
    rejected.

    program: the tuned student, in whose format both are written. Rows that were answered right, or
    not at all, make no pair.
    """
    adapter, signature = FORMATS[program.format], program.predictors()[0].signature
    assert isinstance(adapter, ChatAdapter)
    found = []
    for row, outcome in zip(chat, outcomes, strict=True):
        if outcome.score is None or outcome.score >= 1:
            continue
        *prompt, chosen = row["messages"]
        wrong = outcome.answer.get("unparsable") or adapter.format_assistant_message_content(
            signature, outcome.answer
        )
        if wrong.strip() and wrong != chosen["content"]:
            found.append(
                {
                    "prompt": prompt,
                    "chosen": [chosen],
                    "rejected": [{"role": "assistant", "content": wrong}],
                }
            )
    return found
