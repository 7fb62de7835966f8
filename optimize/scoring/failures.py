"""What kind of failure is it?

The wrong val rows of the best prompt program, sorted by the lever that fits them. Asks no LM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import dspy
from pydantic import Field

from optimize.data.baselines import CONSTANT, baseline_answers
from optimize.data.excerpts import shown_difference, shown_input
from optimize.data.fields import is_optional
from optimize.files import to_text
from optimize.program.program import Program
from optimize.scoring.corpus_use import Knowledge
from optimize.scoring.evaluation import TOO_LONG, UNPARSABLE, Outcome
from optimize.stats.records import Record
from optimize.task import Task

Kind = Literal["too_long", "cut", "schema", "knowledge", "labels", "boundaries", "style"]
MEANING: dict[Kind, str] = {
    "too_long": "rows that do not fit the LM beside the prompt",
    "cut": "answers that were cut before they ended",
    "schema": "answers that cannot be parsed or miss a field",
    "knowledge": "answers whose passage was not retrieved, or that name an id which does not exist",
    "labels": "answers that every reference agrees with, against the row's own label",
    "boundaries": "answers with another label than the row's",
    "style": "answers that parse and are not what the row says",
}
LEVERS: dict[Kind, str] = {
    "too_long": "fewer or shorter demos, or an LM that reads more",
    "cut": "more room for an answer (Task.max_tokens); where the LM thinks, its thinking turned "
    "off on the server",
    "schema": "constrained output first (a format whose schema the server enforces)",
    "knowledge": "retrieval first (a corpus.jsonl that holds the answers, and the passages rung)",
    "labels": "look at the labels first",
    "boundaries": "prompts (a rule in GUIDE.md, demos that show the boundary), then weights",
    "style": "prompts, then weights",
}
SHOWN = 3
PAIRS = 5


class Failures(Record):
    """Wrong rows of one kind. lost: the points of the score they cost; lever: what fits them."""

    kind: Kind
    count: int
    lost: float
    meaning: str
    lever: str
    examples: list[str]


class Diagnosis(Record):
    """Of `scored` val rows, those the program got wrong or not wholly right, the costliest kind
    first.
    """

    scored: int
    wrong: int
    kinds: list[Failures]
    cut: int = Field(0, description="answers that were cut, right or wrong")
    cut_at: int = Field(0, description="tokens at which most of these were")
    confusions: dict[str, int] = Field(
        description="label → answer, the most frequent first; empty where the output is no label"
    )
    retrieval_recall: float | None = Field(
        None, description="share of the rows whose passage is known for which it was retrieved"
    )

    def share(self, *kinds: Kind) -> float:
        """Of the points lost, the share that went to failures of these kinds."""
        lost = sum(k.lost for k in self.kinds)
        return sum(k.lost for k in self.kinds if k.kind in kinds) / lost if lost else 0.0


def diagnose(
    program: Program,
    train: Sequence[dspy.Example],
    rows: Sequence[dspy.Example],
    outcomes: Sequence[Outcome],
) -> Diagnosis:
    """What went wrong, by kind."""
    task, wrong = program.task, sorted_by_kind(program, train, rows, outcomes)
    cut, cut_at = cut_answers(outcomes)
    kinds = [
        Failures(
            kind=kind,
            count=len(found),
            lost=round(sum(lost for _, lost in found), 6),
            meaning=meaning(kind, cut_at),
            lever=LEVERS[kind],
            examples=[_shown(task, rows[n], outcomes[n]) for n, _ in found[:SHOWN]],
        )
        for kind, found in wrong.items()
    ]
    return Diagnosis(
        scored=sum(outcome.score is not None for outcome in outcomes),
        wrong=sum(k.count for k in kinds),
        kinds=kinds,
        cut=cut,
        cut_at=cut_at,
        confusions=confusions(task, rows, outcomes),
        retrieval_recall=Knowledge(task, program.passages).recall(rows),
    )


def cut_answers(outcomes: Sequence[Outcome]) -> tuple[int, int]:
    """How many answers were cut, and at how many tokens most of these were; 0, 0: none was."""
    found = Counter(o.cut for o in outcomes if o.cut)
    return found.total(), found.most_common(1)[0][0] if found else 0


def cut_sentence(cut: int, answers: int, at: int) -> str:
    """What `cut_answers` has found among so many answers, and what is to be done."""
    return (
        f"{cut} of {answers} answers were cut at {at:,} tokens, before they ended. What fits: "
        f"{LEVERS['cut']}."
    )


def again_sentence(calls: float) -> str:
    """That an answer takes so many calls in place of one, and what it does to the plan."""
    return (
        f"An answer took {calls:.1f} LM calls, not one: what does not keep to the format is "
        "asked for again. Unless another format ends that, the calls pay for fewer levers than "
        "planned."
    )


def unread_sentence(unread: int, side: str) -> str:
    """That rows are longer than the LM reads, and what becomes of them."""
    are = "row is" if unread == 1 else "rows are"
    return (
        f"{unread} {side} {are} longer than the LM reads, whatever the prompt: in no comparison. "
        "Every score is that of the other rows; an LM that reads more would answer these too."
    )


def meaning(kind: Kind, cut_at: int) -> str:
    """What a kind of failure is. cut_at: tokens, as `cut_answers` tells."""
    return MEANING[kind] + (f", at {cut_at:,} tokens" if kind == "cut" else "")


def sorted_by_kind(
    program: Program,
    train: Sequence[dspy.Example],
    rows: Sequence[dspy.Example],
    outcomes: Sequence[Outcome],
) -> dict[Kind, list[tuple[int, float]]]:
    """The numbers of the rows that are not wholly right, with the points they lost: the costliest
    kind first, in each the costliest row.

    A row counts once, for the first of the kinds, in the order above, that it fits.
    """
    task = program.task
    known = Knowledge(task, program.passages)
    said = [
        [guess[label] for guess in found]
        for label in filter(None, [task.label])
        for name, found in baseline_answers(task, train, rows).items()
        if name != CONSTANT
    ]
    wrong: dict[Kind, list[tuple[int, float]]] = {}
    for n, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
        if outcome.score is not None and (lost := 1.0 - outcome.score) > 0:
            kind = _kind(task, known, row, outcome, [guess[n] for guess in said])
            wrong.setdefault(kind, []).append((n, lost))
    costs = {kind: sum(lost for _, lost in found) for kind, found in wrong.items()}
    return {
        kind: sorted(wrong[kind], key=lambda found: -found[1])
        for kind in sorted(wrong, key=lambda kind: -costs[kind])
    }


def confusions(
    task: Task, rows: Sequence[dspy.Example], outcomes: Sequence[Outcome]
) -> dict[str, int]:
    """label → answer where they differ, the most frequent first; empty where the output is no
    label.
    """
    if not (label := task.label):
        return {}
    pairs = (
        (to_text(row[label]), to_text(o.answer[label]))
        for row, o in zip(rows, outcomes, strict=True)
        if label in o.answer
    )
    return dict(
        Counter(f"{gold} → {said}" for gold, said in pairs if gold != said).most_common(PAIRS)
    )


def _kind(
    task: Task, known: Knowledge, row: dspy.Example, outcome: Outcome, said: Sequence[Any]
) -> Kind:
    if outcome.error == TOO_LONG:
        return "too_long"
    if outcome.cut:
        return "cut"
    if outcome.error == UNPARSABLE or any(
        outcome.answer.get(name) is None and not is_optional(field)
        for name, field in task.signature.output_fields.items()
    ):
        return "schema"
    if known.invented(outcome) or known.not_found(row):
        return "knowledge"
    if task.label is None:
        return "style"
    answer = outcome.answer[task.label]
    return "labels" if said and all(guess == answer for guess in said) else "boundaries"


def _shown(task: Task, row: dspy.Example, outcome: Outcome) -> str:
    return f"{shown_input(task, row)}: {shown_difference(task, row, outcome.answer)}"
