"""What a tuned LM learns from: gold answers, preferences, or a teacher's answers; and general
questions, so that it forgets less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import dspy

from optimize import lm as lms
from optimize.commands.session import Session
from optimize.data.rows import input_text
from optimize.data.split import apart_from
from optimize.errors import WorkbenchError
from optimize.finetune.forgetting import GENERAL_TOKENS, replayable
from optimize.finetune.training_rows import TrainingRow, chat_rows, preferences
from optimize.program.program import Program
from optimize.scoring.evaluate import evaluate
from optimize.task import Score
from optimize.threads import in_threads

LEAST = 20  # rows, or pairs, without which a training would teach nothing
SAMPLES, TEMPERATURE = 3, 0.7  # of a teacher's answers to an input without gold
AGREED = 1.0  # share of them that must be the same


def lessons(session: Session, best: Program, short: Program) -> list[TrainingRow]:
    """Training rows for the program `short`, by the configured method, and as many replayed general
    ones as asked for.

    Raises WorkbenchError where the method leaves too few of them.
    """
    method = session.config.method
    rows = METHODS[method](session, best, short)
    if len(rows) < LEAST:
        raise WorkbenchError(
            f"--method {method} leaves {len(rows)} rows to learn from, at least {LEAST} are "
            f"needed. {TOO_FEW[method]}"
        )
    return rows + _unpaired(session, best, short, rows) + _replayed(session)


def lesson_calls(session: Session) -> int:
    """LM calls that making the rows takes."""
    train, config = len(session.splits.train), session.config
    asked = {"sft": 0, "dpo": train, "distill": train + SAMPLES * len(session.splits.unlabelled)}
    return asked[config.method] + config.replay


def _gold(session: Session, best: Program, short: Program) -> list[TrainingRow]:
    return chat_rows(short, session.splits.train)


def _pairs(session: Session, best: Program, short: Program) -> list[TrainingRow]:
    """Where the best prompt program answers a train row wrongly, its answer is the rejected one."""
    session.watch.started("best prompt program on train")
    outcomes = evaluate(best, session.splits.train, replace(session.asking, repeats=1)).outcomes
    return preferences(short, _gold(session, best, short), outcomes)


def _unpaired(
    session: Session, best: Program, short: Program, rows: list[TrainingRow]
) -> list[TrainingRow]:
    """Beside preferences, the other train rows with their gold answers: pairs alone are the few
    rows that went wrong, and an LM that was never tuned on the task learns too little from them. A
    provider takes pairs alone."""
    if session.config.method != "dpo" or session.config.finetune == "openai":
        return []
    paired = [row["prompt"] for row in rows]
    return [row for row in _gold(session, best, short) if row["messages"][:-1] not in paired]


def _distilled(session: Session, best: Program, short: Program) -> list[TrainingRow]:
    """The teacher's answers in the best program: right ones to train rows, agreed ones to inputs
    that nobody labelled.

    Agreement over samples stands in for a label (self-consistency: Wang et al. 2023). Inputs like a
    val or test row are left out.
    """
    asking, inputs = replace(session.asking, repeats=1), _apart(session)
    with dspy.context(lm=session.teacher):
        session.watch.started("teacher on train")
        right = evaluate(best, session.splits.train, asking).outcomes
    answered = [
        (row, o.answer)
        for row, o in zip(session.splits.train, right, strict=True)
        if o.score == 1.0
    ]
    with dspy.context(lm=session.teacher.copy(temperature=TEMPERATURE)):
        session.watch.started("teacher on unlabelled inputs")
        # nothing is known of it but that it can be read
        parsed = replace(session.task, metric=lambda row, answer: Score(1.0))
        agreed = (
            evaluate(best, inputs, replace(asking, repeats=SAMPLES, task=parsed)).outcomes
            if inputs
            else ()
        )
    unanimous = [o.repeats == (1.0,) * SAMPLES and o.confidence == AGREED for o in agreed]
    answered += [
        (row, o.answer) for row, o, kept in zip(inputs, agreed, unanimous, strict=True) if kept
    ]
    names = session.task.signature.output_fields
    return (
        chat_rows(
            short, [row.copy(**{name: answer[name] for name in names}) for row, answer in answered]
        )
        if answered
        else []
    )


def _apart(session: Session) -> list[dspy.Example]:
    """The unlabelled inputs that are no val or test row typed twice."""
    splits = session.splits
    texts, held = (
        [input_text(session.task, e.inputs()) for e in rows]
        for rows in (splits.unlabelled, (*splits.val, *splits.test))
    )
    return [splits.unlabelled[n] for n in apart_from(texts, held)]


def _replayed(session: Session) -> list[TrainingRow]:
    """General instructions with the base LM's own answers (rehearsal: Robins 1995)."""
    asked: Sequence[str] = replayable(session.root)[: session.config.replay]
    if not asked:
        return []
    lm = lms.task_lm(session.config, session.meter, GENERAL_TOKENS)
    session.watch.started("base LM on general instructions")
    answers: list[str] = []
    for answer in in_threads(lambda text: str(lm(text)[0]), asked, session.config.threads):
        answers.append(answer)
        session.watch.scored(len(answers), len(asked))
    return [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}
        for text, answer in zip(asked, answers, strict=True)
        if answer.strip()
    ]


METHODS: dict[str, Callable[[Session, Program, Program], list[TrainingRow]]] = {
    "sft": _gold,
    "dpo": _pairs,
    "distill": _distilled,
}
TOO_FEW = {
    "sft": "Label more train rows.",
    "dpo": "The best prompt program answers nearly all train rows right, so that there is little "
    "to prefer: use --method sft.",
    "distill": "The teacher is right on too few train rows: give a stronger --teacher, or use "
    "--method sft.",
}
