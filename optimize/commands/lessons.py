"""What a tuned LM learns from: gold answers, preferences, or a teacher's answers; and general
questions, so that it forgets less.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import dspy

from optimize import lm as lms
from optimize.climb.rungs.base import least_calls, steps
from optimize.commands.session import Session
from optimize.data.inputs import input_texts
from optimize.data.split import apart_from
from optimize.errors import WorkbenchError
from optimize.finetune import PREFERRING
from optimize.finetune.forgetting import replayable, replays
from optimize.finetune.steps import Traces, right_calls, unlabelled
from optimize.finetune.training_rows import TrainingRow, chat_rows, preferences
from optimize.lm.endpoint import warm
from optimize.lm.metered import MeteredLM
from optimize.program.program import Program, student
from optimize.scoring.evaluate import evaluate
from optimize.task import Score
from optimize.threads import in_threads

LEAST = 20  # rows, or pairs, without which a training would teach nothing
SAMPLES, TEMPERATURE = 3, 0.7  # of a teacher's answers to an input without gold
AGREED = 1.0  # share of them that must be the same
REHEARSED_TOKENS = 256  # of a general answer
ONE_LINER = 12  # words, in which an answer need not be a sentence


@dataclass(frozen=True)
class Pupil:
    """Who is taught: the best prompt program, the short one that the tuned LM will run, and the
    traces of the best one, for steps without labels.
    """

    best: Program
    short: Program
    traces: Traces | None = None


def lessons(session: Session, pupil: Pupil) -> list[TrainingRow]:
    """Training rows for the short program, by the configured method.

    Raises WorkbenchError where the method leaves too few of them.
    """
    method = session.config.method
    rows = METHODS[method](session, pupil)
    if len(rows) < LEAST:
        raise WorkbenchError(
            f"--method {method} leaves {len(rows)} rows to learn from, at least {LEAST} are "
            f"needed. {TOO_FEW[method]}"
        )
    return rows + _unpaired(session, pupil, rows)


def lesson_calls(session: Session) -> int:
    """LM calls that making the rows takes, beside the traces."""
    splits, config = session.splits, session.config
    train = least_calls(session.task) * len(splits.train)
    alone = not unlabelled(student(session.task))
    agreed = steps(session.task) * SAMPLES * len(splits.unlabelled) if alone else 0
    asked = {"sft": 0, "dpo": train, "kto": train, "distill": train + agreed}
    return asked[config.method] + replays(config, len(splits.train), session.root)


def _gold(session: Session, pupil: Pupil) -> list[TrainingRow]:
    calls = pupil.traces.train if pupil.traces else None
    return chat_rows(pupil.short, session.splits.train, calls)


def _pairs(session: Session, pupil: Pupil) -> list[TrainingRow]:
    """Where the best prompt program answers a train row wrongly, its answer is the rejected one."""
    session.watch.started("best prompt program on train")
    asking = replace(session.asking, repeats=1)
    outcomes = evaluate(pupil.best, session.splits.train, asking).outcomes
    return preferences(pupil.short, _gold(session, pupil), outcomes)


def _unpaired(session: Session, pupil: Pupil, rows: list[TrainingRow]) -> list[TrainingRow]:
    """Beside preferences, the other train rows with their gold answers: pairs alone are the few
    rows that went wrong, and an LM that was never tuned on the task learns too little from them. A
    provider takes pairs alone."""
    if session.config.method not in PREFERRING or session.config.finetune == "openai":
        return []
    paired = [row["prompt"] for row in rows]
    return [row for row in _gold(session, pupil) if row["messages"][:-1] not in paired]


def _distilled(session: Session, pupil: Pupil) -> list[TrainingRow]:
    """The teacher's answers in the best program: right ones to train rows, agreed ones to inputs
    that nobody labelled.

    Of a program with steps of its own the steps behind the right ones: what they say on the way
    differs between samples that agree, so nothing tells a good step there.
    """
    asking, best = replace(session.asking, repeats=1), pupil.best
    if unlabelled(pupil.short):
        with dspy.context(lm=session.teacher):
            session.watch.started("teacher on train")
            calls = right_calls(best, session.splits.train, asking)
        right = [(row, made) for row, made in zip(session.splits.train, calls, strict=True) if made]
        return chat_rows(pupil.short, [row for row, _ in right], [made for _, made in right])
    with dspy.context(lm=session.teacher):
        session.watch.started("teacher on train")
        outcomes = evaluate(best, session.splits.train, asking).outcomes
    answered = [
        (row, o.answer)
        for row, o in zip(session.splits.train, outcomes, strict=True)
        if o.score == 1.0
    ]
    answered += _agreed(session, best)
    names = session.task.signature.output_fields
    return chat_rows(
        pupil.short,
        [row.copy(**{name: answer[name] for name in names}) for row, answer in answered],
    )


def _agreed(session: Session, best: Program) -> list[tuple[dspy.Example, dict[str, Any]]]:
    """Unlabelled inputs to which all of the teacher's answers are the same.

    Agreement over samples stands in for a label (self-consistency: Wang et al. 2023). Inputs like a
    val or test row are left out.
    """
    inputs = _apart(session)
    if not inputs:
        return []
    # nothing is known of it but that it can be read
    parsed = replace(session.task, metric=lambda row, answer: Score(1.0))
    asking = replace(session.asking, repeats=SAMPLES, task=parsed)
    with dspy.context(lm=warm(session.teacher, TEMPERATURE)):
        session.watch.started("teacher on unlabelled inputs")
        outcomes = evaluate(best, inputs, asking).outcomes
    return [
        (row, o.answer)
        for row, o in zip(inputs, outcomes, strict=True)
        if o.repeats == (1.0,) * SAMPLES and o.confidence == AGREED
    ]


def _apart(session: Session) -> list[dspy.Example]:
    """The unlabelled inputs that are no val or test row typed twice."""
    splits = session.splits
    texts, held = (
        [input_texts(session.task, e) for e in rows]
        for rows in (splits.unlabelled, (*splits.val, *splits.test))
    )
    return [splits.unlabelled[n] for n in apart_from(texts, held)]


def rehearsal(session: Session) -> list[TrainingRow]:
    """General instructions with the base LM's own answers, to be trained on beside the lessons
    (rehearsal: Robins 1995).
    """
    many = replays(session.config, len(session.splits.train), session.root)
    asked: Sequence[str] = replayable(session.root)[:many]
    if not asked:
        return []
    lm = lms.task_lm(session.config, session.meter, REHEARSED_TOKENS)
    session.watch.started("base LM on general instructions")
    answers: list[str] = []
    for answer in in_threads(partial(_said, lm), asked, session.config.in_flight):
        answers.append(answer)
        session.watch.scored(len(answers), len(asked))
    return [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}
        for text, answer in zip(asked, answers, strict=True)
        if answer
    ]


def _said(lm: MeteredLM, instruction: str) -> str:
    """The answer, whole; empty where the call failed or no sentence of it was ended: an LM that is
    taught answers which were cut off learns to break off.
    """
    try:
        said = lm.say(instruction)
    except Exception:  # a failed call is missing, as in an evaluation
        return ""
    ends = [m.end() for m in re.finditer(r"(?<!\d)[.!?…][\"'”’)*]*(?=\s|$)", said)]
    short = len(said.split()) <= ONE_LINER and "\n" not in said
    return said if short else said[: max(ends, default=0)]


METHODS: dict[str, Callable[[Session, Pupil], list[TrainingRow]]] = {
    "sft": _gold,
    "dpo": _pairs,
    "kto": _pairs,
    "distill": _distilled,
}
_PAIRS = (
    "The best prompt program answers nearly all train rows right, so that there is little to "
    "prefer: use --method sft."
)
TOO_FEW = {
    "sft": "Label more train rows.",
    "dpo": _PAIRS,
    "kto": _PAIRS,
    "distill": "The teacher is right on too few train rows: give a stronger --teacher, or use "
    "--method sft.",
}
