"""The shipped tasks: data that are what they claim, and a metric that gold answers satisfy and
others do not.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import dspy
import pytest

from optimize.data.inputs import input_text
from optimize.data.rows import Splits
from optimize.finetune.forgetting import questions
from optimize.program.retrieval import read_corpus
from optimize.task import Task, choices, task_names

Shipped = Callable[[str], tuple[Task, Splits]]
ROWS = {"tickets": 480, "kb_answer": 160, "extract": 160, "order_slip": 440}


def rows(splits: Splits) -> list[dspy.Example]:
    return [e for side in splits.sides().values() for e in side]


def answer(**outputs: object) -> dspy.Prediction:
    return dspy.Prediction(**outputs)


def test_these_are_all_the_shipped_tasks(root: Path) -> None:
    assert set(task_names(root)) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_gold_scores_one(shipped: Shipped, name: str) -> None:
    task, splits = shipped(name)
    assert [e for e in rows(splits) if task.score(e, answer(**dict(e.labels()))).value != 1.0] == []


ISSUE = {"trade": "heating", "location": "flat 12", "urgency": "normal"}
WRONG: dict[str, Callable[[dspy.Example], dict[str, object]]] = {
    "tickets": lambda e: {"desk": "orders" if e.desk != "orders" else "claims"},
    "kb_answer": lambda e: {
        "reply": re.sub(r" ?\[KB-\d+\]", "", e.reply)
        if "KB-" in e.reply
        else "You owe us [KB-1006]."
    },
    "order_slip": lambda e: {"slip": f"{e.slip.partition('>')[0]} xx>T99"},
    "extract": lambda e: {"order": e.order.model_copy(update={"building": "Nowhere House"})},
}


@pytest.mark.parametrize("name", ROWS)
def test_a_wrong_answer_scores_below_one_and_is_told_why(shipped: Shipped, name: str) -> None:
    task, splits = shipped(name)
    for example in rows(splits):
        score = task.score(example, answer(**WRONG[name](example)))
        assert score.value < 1.0 and score.feedback, example


@pytest.mark.parametrize(("name", "least"), ROWS.items())
def test_there_are_rows_enough_and_no_input_twice(shipped: Shipped, name: str, least: int) -> None:
    task, splits = shipped(name)
    texts = [input_text(task, e).strip().casefold() for e in rows(splits)]
    assert len(texts) >= least
    assert [text for text, n in Counter(texts).items() if n > 1] == []


def test_tickets_has_twelve_desks_on_every_side(shipped: Shipped) -> None:
    task, splits = shipped("tickets")
    desks = set(choices(task.signature.output_fields["desk"].annotation))
    assert len(desks) == 12
    for name, side in splits.sides().items():
        assert {e.desk for e in side} == desks, name


def test_kb_answer_has_articles_and_cites_only_them(root: Path, shipped: Shipped) -> None:
    from programs.kb_answer import cited

    task, splits = shipped("kb_answer")
    assert task.corpus
    ids = [json.loads(line)["id"] for line in task.corpus.read_text(encoding="utf-8").splitlines()]
    assert len(ids) == len(set(ids)) == len(read_corpus(task.corpus)) >= 60
    used = set().union(*(cited(e.reply) for e in rows(splits)))
    assert used and used <= set(ids)


def test_general_has_questions_enough_and_none_twice(root: Path) -> None:
    asked = [q.question for q in questions(root)]
    assert len(asked) == len(set(asked)) >= 60


GOLD = "Hold the power button [KB-1006]. See the app [KB-1387]."
DISPUTE = "I have passed this to our billing team, who will reply within one working day."


@pytest.mark.parametrize(
    ("gold", "reply", "score"),
    [
        (GOLD, "Press the button for a while [KB-1006] [KB-1387].", 1.0),
        (GOLD, "Press the button for a while [KB-1006].", 2 / 3),
        (GOLD, "Press the button for a while.", 0.0),
        # one is invented
        (GOLD, "Press the button for a while [KB-1006] [KB-1387] [KB-0000].", 0.0),
        (GOLD, "[KB-1006] [KB-1387]", 0.0),
        (GOLD, DISPUTE, 0.0),
        (DISPUTE, DISPUTE, 1.0),
        (DISPUTE, "You owe us that money.", 0.0),
        (DISPUTE, DISPUTE + " [KB-1006]", 0.0),
    ],
)
def test_the_metric_of_kb_answer(shipped: Shipped, gold: str, reply: str, score: float) -> None:
    task, _ = shipped("kb_answer")
    assert task.score(
        dspy.Example(message="?", reply=gold), answer(reply=reply)
    ).value == pytest.approx(score)


@pytest.mark.parametrize(
    ("change", "score"),
    [
        ({}, 1.0),
        ({"reporter": "ANA "}, 1.0),  # case and space do not matter
        ({"reporter": "Ben"}, 3 / 4),
        ({"phone": "555"}, 4 / 5),  # a field too many
        ({"issues": []}, 3 / 4),
        ({"issues": [ISSUE | {"urgency": "low"}]}, (3 + 2 / 3) / 4),  # an issue two thirds right
        ({"issues": [ISSUE, ISSUE]}, (3 + 2 * 3 / 9) / 4),  # and one too many
    ],
)
def test_the_metric_of_extract(shipped: Shipped, change: dict[str, object], score: float) -> None:
    task, _ = shipped("extract")
    order = task.signature.output_fields["order"].annotation
    gold = {
        "reporter": "Ana",
        "reported": "2026-03-04",
        "building": "Alder House",
        "issues": [ISSUE],
    }
    example = dspy.Example(email="?", order=order.model_validate(gold))
    assert task.score(
        example, answer(order=order.model_validate(gold | change))
    ).value == pytest.approx(score)
