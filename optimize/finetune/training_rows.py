"""Rows as other trainers want them: what the tuned LM will be asked, and the gold answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dspy

from optimize.errors import WorkbenchError
from optimize.files import plain, to_json
from optimize.finetune.steps import Calls, labelled, unlabelled
from optimize.program.formats import FORMATS
from optimize.program.program import Program, student
from optimize.scoring.evaluation import Outcome

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


@dataclass(frozen=True)
class Taught:
    """One call that the tuned LM is to answer, and its answer."""

    signature: type[dspy.Signature]
    inputs: dict[str, Any]
    outputs: dict[str, Any]

    @property
    def asked(self) -> str:
        """What tells two calls apart."""
        return to_json([self.signature.instructions, list(self.signature.fields), self.inputs])


def taught(
    program: Program, examples: Sequence[dspy.Example], calls: Sequence[Calls] | None = None
) -> list[Taught]:
    """What the examples teach each of the program's predictors: gold outputs where the row labels
    them, else what the predictor said in the calls behind a right answer.

    A step whose inputs are called as the row's may be given others: what an earlier step made of
    them. Where calls show that, it is taught on what it was given there.

    calls: behind each example. Raises WorkbenchError where a step has no label and none are given.
    """
    if calls is None and (steps := unlabelled(program)):
        raise WorkbenchError(
            f"Task {program.task.name!r} cannot be exported: its rows label the program's outputs, "
            f"but not its inner steps ({', '.join(steps)})."
        )
    found, gold = [], set(program.task.signature.output_fields)
    behind = list(zip(examples, calls or [()] * len(examples), strict=True))
    changed = {
        call.predictor
        for example, made in behind
        for call in made
        if any(name in example and example[name] != value for name, value in call.inputs.items())
    }
    for example, made in behind:
        for place, predictor in enumerate(program.predictors()):
            names = predictor.signature.output_fields
            if labelled(program, predictor) and place not in changed:
                given = program.with_passages(dict(example.inputs()))
                pairs = [(given, {name: example[name] for name in names})]
            else:
                pairs = [
                    (call.inputs, call.outputs | {n: example[n] for n in gold & set(names)})
                    for call in made
                    if call.predictor == place
                ]
            found += [Taught(predictor.signature, *pair) for pair in pairs]
    return found


def chat_rows(
    program: Program, examples: Sequence[dspy.Example], calls: Sequence[Calls] | None = None
) -> list[TrainingRow]:
    """`{"messages": [system, user, assistant]}` for all that the examples teach."""
    return [chat_row(program, one) for one in taught(program, examples, calls)]


def chat_row(program: Program, one: Taught) -> TrainingRow:
    adapter = FORMATS[program.format]
    given = {name: one.inputs[name] for name in one.signature.input_fields if name in one.inputs}
    row: TrainingRow = adapter.format_finetune_data(one.signature, [], given, one.outputs)
    return row


def schema_row(program: Program, one: Taught) -> TrainingRow:
    """The same with a JSON object as the answer, for providers that constrain a tuned LM to a JSON
    Schema.
    """
    names = list(one.signature.output_fields)
    *asked, answer = chat_row(program, one)["messages"]
    told = (
        f"{asked[0]['content']}\nAnswer with a JSON object that has the fields {', '.join(names)}."
    )
    gold = to_json({name: plain(one.outputs[name]) for name in names})
    return {"messages": [asked[0] | {"content": told}, *asked[1:], answer | {"content": gold}]}


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

    program: the tuned student, of one predictor, in whose format both are written. Rows that were
    answered right, or not at all, make no pair.
    """
    adapter, signature = FORMATS[program.format], program.predictors()[0].signature
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
