"""What a tuned LM must still answer: the checks, the file they are read from, and the questions
that ship.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optimize.data.rows import Splits
from optimize.errors import WorkbenchError
from optimize.finetune.forgetting import OWN, REPLAY, ROWS, Question, questions, replayable
from optimize.task import Task, choices

Shipped = Callable[[str], tuple[Task, Splits]]


@pytest.mark.parametrize(
    ("check", "expected", "answer", "passes"),
    [
        ("contains", ["Paris"], "It is paris.", True),
        ("contains", ["Paris"], "Parisian", False),
        ("contains", ["Rome", "Roma"], "Roma!", True),
        ("contains", ["C++"], "I like C++ best", True),
        ("contains", ["a.c"], "abc", False),
        ("contains", [7], "7 days", True),
        ("contains", [7], "17 days", False),
        ("number", [12], "5 + 7 = 12.", True),
        ("number", [12], "12 is 5 + 7", False),  # the last number counts
        ("number", [1000], "1,000", True),
        ("number", [2.5], "It is 2.50", True),
        ("number", [-3], "-3", True),
        ("number", ["12"], "12", True),
        ("number", [12], "twelve", False),
        ("number", [0], "", False),
        ("regex", [r"^\W*yes\W*$"], "Yes.\n", True),
        ("regex", [r"^\W*yes\W*$"], "Yes, sure", False),
        ("regex", ["a.*b"], "a\nb", True),
    ],
)
def test_checks(check: str, expected: list[str | float], answer: str, passes: bool) -> None:
    question = Question.model_validate(
        {"question": "?", "check": check, "expected": expected, "skill": "test"}
    )
    assert question.passes(answer) is passes


GOOD = {"question": "What is 5 + 7?", "check": "number", "expected": [12], "skill": "arithmetic"}


def write(root: Path, *rows: Any) -> Path:
    (root / OWN).mkdir(parents=True)
    text = "".join(
        (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n"
        for row in rows
    )
    (root / OWN / ROWS).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    "row",
    [
        '{"question": ',
        "[]",
        {"question": "?", "check": "number", "expected": [1]},
        GOOD | {"check": "exact"},
        GOOD | {"extra": 1},
        GOOD | {"expected": []},  # nothing to check against
        GOOD | {"expected": ["twelve"]},  # not a number
        GOOD | {"check": "regex", "expected": ["(unclosed"]},
    ],
    ids=str,
)
def test_a_line_that_is_no_question_is_told(tmp_path: Path, row: Any) -> None:
    with pytest.raises(WorkbenchError, match=r"general/rows\.jsonl:2: not "):
        questions(write(tmp_path, GOOD, row))


def test_a_unicode_line_separator_does_not_end_a_question(tmp_path: Path) -> None:
    assert len(questions(write(tmp_path, GOOD | {"question": "one\u2028two"}))) == 1


def test_a_project_without_questions_of_its_own_asks_ours(tmp_path: Path) -> None:
    assert len(questions(tmp_path)) == 72 and len(replayable(tmp_path)) == 120
    write(tmp_path, GOOD)
    assert [q.question for q in questions(tmp_path)] == ["What is 5 + 7?"]
    assert len(replayable(tmp_path)) == 120, "each file has its own place"


def test_what_is_asked_is_not_rehearsed(tmp_path: Path) -> None:
    rehearsed = replayable(tmp_path)[0]
    write(tmp_path, GOOD | {"question": f" {rehearsed.upper()}"}, GOOD)
    assert rehearsed not in replayable(tmp_path) and len(replayable(tmp_path)) == 119
    (tmp_path / OWN / REPLAY).write_text("What is 5 + 7?\n\nName a river.\n")
    assert replayable(tmp_path) == ["Name a river."]


def test_no_shipped_question_is_passed_by_a_desk_or_without_an_answer(
    root: Path, shipped: Shipped
) -> None:
    """What an LM would say that lost everything to the ticket task."""
    desks = choices(shipped("tickets")[0].signature.output_fields["desk"].annotation)
    useless = ["", *desks, *map(json.dumps, desks)]
    assert [
        (q.question, text)
        for q in questions(root)
        for text in (*useless, q.question)
        if q.passes(text)
    ] == []


def test_shipped_questions_are_passed_by_what_they_expect(root: Path) -> None:
    plain = [q for q in questions(root) if q.check != "regex"]
    assert len(plain) >= 40
    assert all(q.passes(f"The answer is {text}.") for q in plain for text in q.expected)
