"""Kinds of failure: planted ones, each sorted to the lever that fits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dspy
import pytest

from optimize.data.rows import Splits, load_splits
from optimize.program.program import Program, student
from optimize.program.retrieval import Passages
from optimize.report.sentences import failure_sentences
from optimize.scoring.evaluation import UNPARSABLE, Outcome
from optimize.scoring.failures import Diagnosis, diagnose
from optimize.task import Task

Tiny = Callable[..., Task]
Shipped = Callable[[str], tuple[Task, Splits]]


def kinds(found: Diagnosis) -> dict[str, int]:
    return {k.kind: k.count for k in found.kinds}


def test_right_rows_and_failed_calls_are_no_failures(
    tiny: Tiny, mood_rows: list[dict[str, Any]]
) -> None:
    task = tiny(rows=mood_rows)
    splits = load_splits(task)
    outcomes = [Outcome(1.0, {"mood": e.mood}) for e in splits.val[:-1]] + [
        Outcome(None, {}, error="timeout")
    ]
    found = diagnose(student(task), splits.train, splits.val, outcomes)
    assert (found.scored, found.wrong, found.kinds, found.share("schema")) == (
        len(splits.val) - 1,
        0,
        [],
        0.0,
    )
    assert failure_sentences(found) == []


def test_unparsable_answers_confusions_and_doubtful_labels_are_told_apart(shipped: Shipped) -> None:
    task, splits = shipped("tickets")
    rows = splits.val
    other = {e.desk: next(d for d in sorted({r.desk for r in rows}) if d != e.desk) for e in rows}
    outcomes = [Outcome(0.0, {"desk": other[e.desk]}) for e in rows[:20]]
    outcomes += [
        Outcome(0.0, {"unparsable": "Sure! The desk is…"}, error=UNPARSABLE) for _ in rows[20:25]
    ]
    outcomes += [Outcome(1.0, {"desk": e.desk}) for e in rows[25:]]
    found = diagnose(student(task), splits.train, rows, outcomes)
    assert found.wrong == 25 and kinds(found)["schema"] == 5
    assert kinds(found)["boundaries"] > 10 > kinds(found).get("labels", 0), (
        "references seldom agree with a label picked by the alphabet"
    )
    assert sum(found.confusions.values()) <= 20 and all(" → " in pair for pair in found.confusions)
    assert "answered" in found.kinds[0].examples[0] and "demos" in found.kinds[0].lever


def test_an_answer_that_every_reference_gives_casts_doubt_on_the_label(tiny: Tiny) -> None:
    words = {"good": "lovely superb splendid", "bad": "awful dreadful rotten"}
    made = [
        {"text": f"{words[m]} {m[0]}{chr(97 + n % 26) * 5} {m[0]}{n * 7 % 26:04}", "mood": m}
        for n in range(60)
        for m in words
    ]
    task = tiny(rows=made)
    splits = load_splits(task)
    flipped = [
        dspy.Example(text=e.text, mood={"good": "bad", "bad": "good"}[e.mood]).with_inputs("text")
        for e in splits.val
    ]
    outcomes = [Outcome(0.0, {"mood": e.mood}) for e in splits.val]
    assert kinds(diagnose(student(task), splits.train, flipped, outcomes))["labels"] >= 0.8 * len(
        flipped
    )


@pytest.fixture
def answers(tiny: Tiny) -> Program:
    """A task answered from a corpus, with a program that retrieves one passage."""
    corpus = [
        {"id": "KB-10", "title": "Parking", "text": "Leave the bike in a marked bay."},
        {"id": "KB-11", "title": "Refunds", "text": "Money returns in nine days."},
        {"id": "KB-12", "title": "Helmets", "text": "Helmets lie under the saddle."},
    ]
    program = student(tiny(dspy.Signature("question -> answer"), corpus=corpus))
    program.use_passages(Passages(1, program.task.folder / "corpus.jsonl"))
    return program


def one(program: Program, question: str, gold: str, answer: str) -> Diagnosis:
    row = dspy.Example(question=question, answer=gold).with_inputs("question")
    return diagnose(program, [row], [row], [Outcome(0.0, {"answer": answer})])


def test_what_was_not_retrieved_or_does_not_exist_is_missing_knowledge(answers: Program) -> None:
    retrieved = one(answers, "where is parking for a bike", "[KB-10] in a bay", "[KB-12] anywhere")
    assert (kinds(retrieved), retrieved.retrieval_recall) == ({"style": 1}, 1.0)
    lost = one(answers, "where is parking for a bike", "[KB-11] nine days", "[KB-10] in a bay")
    assert (kinds(lost), lost.retrieval_recall) == ({"knowledge": 1}, 0.0)
    assert kinds(
        one(answers, "where is parking for a bike", "[KB-10] in a bay", "[KB-99] in a bay")
    ) == {"knowledge": 1}
    both = one(answers, "where is parking for a bike", "[KB-10] and [KB-11]", "[KB-10]")
    assert kinds(both) == {"knowledge": 1}, "all passages that are cited are needed"


def test_an_answer_that_stands_in_a_passage_word_for_word_needs_it(answers: Program) -> None:
    assert kinds(one(answers, "when does my money come back", "nine days", "ten days")) == {
        "style": 1
    }
    assert kinds(one(answers, "how long do I wait", "nine days", "ten days")) == {"knowledge": 1}
    assert one(answers, "how long do I wait", "never", "ten days").retrieval_recall is None
    assert (
        "retrieved for 0% of the rows"
        in failure_sentences(one(answers, "how long do I wait", "nine days", "ten days"))[-1]
    )


def test_without_retrieval_every_needed_passage_is_missing(answers: Program) -> None:
    bare = student(answers.task)
    assert kinds(one(bare, "where is parking for a bike", "[KB-10] in a bay", "in a bay")) == {
        "knowledge": 1
    }


def test_a_field_left_out_breaks_the_schema(tiny: Tiny) -> None:
    program = student(tiny(dspy.Signature("question -> answer")))
    row = dspy.Example(question="?", answer="yes").with_inputs("question")
    assert kinds(diagnose(program, [row], [row], [Outcome(0.0, {"answer": None})])) == {"schema": 1}


def test_half_right_answers_weigh_by_what_they_cost(tiny: Tiny) -> None:
    program = student(tiny(dspy.Signature("question -> answer")))
    rows = [dspy.Example(question=str(n), answer="yes").with_inputs("question") for n in range(4)]
    outcomes = [
        *[Outcome(0.75, {"answer": "yes, sir"})] * 3,
        Outcome(0.0, {"unparsable": "?"}, error=UNPARSABLE),
    ]
    found = diagnose(program, rows, rows, outcomes)
    assert [(k.kind, k.count, k.lost) for k in found.kinds] == [
        ("schema", 1, 1.0),
        ("style", 3, 0.75),
    ]
    assert found.share("schema") == pytest.approx(4 / 7)


class Slots(dspy.Signature):
    """Read the request."""

    context: str = dspy.InputField()
    request: str = dspy.InputField()
    alpha: str | None = dspy.OutputField()
    beta: str | None = dspy.OutputField()
    place: str | None = dspy.OutputField()


def test_a_wrong_slot_is_shown_with_its_input_and_without_the_others(tiny: Tiny) -> None:
    program = student(tiny(Slots))
    gold = {"alpha": None, "beta": None, "place": "Bern"}
    row = dspy.Example(context="x" * 500, request="a room in Bern", **gold)
    row = row.with_inputs("context", "request")
    found = diagnose(program, [row], [row], [Outcome(0.0, gold | {"place": None})])
    assert kinds(found) == {"style": 1}, "a null for an optional field is no broken schema"
    (shown,) = found.kinds[0].examples
    assert "request='a room in Bern'" in shown and shown.endswith("place 'Bern', answered null")
    assert "alpha" not in shown and len(shown) < 250


def test_of_an_object_the_parts_that_differ_are_shown(tiny: Tiny) -> None:
    program = student(tiny(dspy.Signature("text -> order: dict")))
    row = dspy.Example(text="two", order={"x": None, "n": 2, "item": "mug"}).with_inputs("text")
    outcome = Outcome(0.5, {"order": {"x": None, "n": 3, "item": "mug"}})
    (shown,) = diagnose(program, [row], [row], [outcome]).kinds[0].examples
    assert shown == """'two': {"n": 2}, answered {"n": 3}"""


def test_answers_that_were_cut_are_told_as_such_with_their_tokens(tiny: Tiny) -> None:
    made = [{"text": f"text {n} {chr(97 + n % 26) * 5}", "mood": "good"} for n in range(60)]
    task = tiny(rows=made)
    splits = load_splits(task)
    rows = splits.val[:6]
    broken = {"unparsable": "The mood of this te"}
    outcomes = [Outcome(0.0, broken, error=UNPARSABLE, cut=40) for _ in rows[:3]]
    outcomes += [Outcome(0.0, broken, error=UNPARSABLE)]
    outcomes += [Outcome(1.0, {"mood": e.mood}, cut=40 * (n == 0)) for n, e in enumerate(rows[4:])]
    found = diagnose(student(task), splits.train, rows, outcomes)
    assert kinds(found) == {"cut": 3, "schema": 1} and found.share("cut") == 0.75
    said = " ".join(failure_sentences(found))
    assert "4 of 6 answers were cut at 40 tokens" in said and "Task.max_tokens" in said
    assert "3 rows: answers that were cut before they ended, at 40 tokens." in said
