"""What is found before a call is spent: a metric that fails or scores gold below 1, and formats
that lose an answer.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import dspy
import pytest
from pydantic import BaseModel

from optimize.climb.findings import Finding
from optimize.climb.gold import LOST, SHORT, TOP, UNSCORED, gold_findings
from optimize.data.baselines import CONSTANT, NEAREST, baseline_scores
from optimize.data.rows import load_splits
from optimize.task import Score, Task

Tiny = Callable[..., Task]
Rows = list[dict[str, Any]]


class Slots(dspy.Signature):
    """Read the request."""

    text: str = dspy.InputField()
    place: str | None = dspy.OutputField()
    day: str | None = dspy.OutputField()


@pytest.fixture
def slots(tiny: Tiny, mood_rows: Rows) -> Task:
    rows = [
        {"text": row["text"], "place": row["text"].split()[0]}
        | ({"day": "Monday"} if n % 2 else {})
        for n, row in enumerate(mood_rows)
    ]
    return tiny(Slots, rows=rows)


def found(task: Task) -> dict[str, Finding]:
    return {finding.what: finding for finding in gold_findings(task, load_splits(task))}


def test_gold_answers_that_score_and_are_given_back_are_no_finding(slots: Task) -> None:
    assert found(slots) == {}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("(example, prediction):\n    return float(exmple.mood == 'good')", "exmple"),
        ("(example, prediction):\n    return float(example.mood == prediction.moood)", "moood"),
        ("(example):\n    return 1.0", "takes 1 positional argument but 2 were given"),
    ],
)
def test_a_metric_that_fails_is_told_with_file_line_and_row(
    tiny: Tiny, mood_rows: Rows, tmp_path: Path, body: str, told: str
) -> None:
    file = tmp_path / "programs" / "tiny.py"
    file.parent.mkdir()
    file.write_text(f"\n\ndef metric{body}\n", encoding="utf-8")
    spec = importlib.util.spec_from_file_location("tiny_program", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    task = replace(tiny(rows=mood_rows), metric=module.metric)
    with pytest.raises(BaseException, match=told) as caught:
        found(task)
    assert "programs/tiny.py:" in str(caught.value) and "rows.jsonl:" in str(caught.value)


def test_gold_rows_below_one_are_a_problem_with_line_value_and_feedback(slots: Task) -> None:
    def metric(example: dspy.Example, prediction: dspy.Prediction) -> Score:
        right = prediction.day is not None
        return Score(1.0) if right else Score(0.5, "no day")

    short = found(replace(slots, metric=metric))[SHORT]
    assert short.problem and short.count == 40 == len(short.examples)
    assert "rows.jsonl:" in short.examples[0] and "scores 0.50 (no day): '" in short.examples[0]


@pytest.mark.parametrize(("target", "problem"), [(0.7, False), (0.9, True)])
def test_a_metric_whose_top_is_below_one_is_a_problem_above_it_only(
    slots: Task, target: float, problem: bool
) -> None:
    task = replace(slots, metric=lambda example, prediction: 0.8, target=target)
    assert found(task)[TOP].problem is problem and SHORT not in found(task)


@pytest.mark.parametrize("own", [False, True])
def test_a_metric_that_asks_an_lm_costs_no_call(slots: Task, own: bool) -> None:
    """Be it the LM in context or one that the metric made itself."""

    class Counting(dspy.utils.DummyLM):
        asked = 0

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            Counting.asked += 1
            return super().forward(*args, **kwargs)

    judge, lm = dspy.Predict("gold, said -> right: bool"), Counting([{"right": "True"}] * 999)

    def metric(example: dspy.Example, prediction: dspy.Prediction) -> float:
        try:
            with dspy.context(**({"lm": lm} if own else {})):
                return float(judge(gold=str(example.place), said=str(prediction.place)).right)
        except Exception:
            return 0.0

    task = replace(slots, metric=metric)
    with dspy.context(lm=lm):
        assert "asks an LM" in found(task)[UNSCORED].examples[0]
        assert not found(task)[UNSCORED].problem
        splits = load_splits(task)
        assert baseline_scores(task, splits.train, splits.test) == {}
    assert Counting.asked == 0


def test_a_metric_that_reads_what_only_the_users_program_gives_is_told(slots: Task) -> None:
    task = replace(slots, metric=lambda example, prediction: float(prediction.reasoning != ""))
    own = replace(task, program=dspy.ChainOfThought)
    assert "reads 'reasoning'" in found(own)[UNSCORED].examples[0]
    with pytest.raises(BaseException, match="reasoning"):
        found(task)


def test_an_answer_that_a_format_loses_is_named_with_format_and_row(
    tiny: Tiny, mood_rows: Rows
) -> None:
    marker = "[[ ## answer ## ]]"
    rows = [{"question": r["text"], "answer": r["text"]} for r in mood_rows]
    rows[4]["answer"] = f"{marker}\nyes"
    lost = found(tiny(dspy.Signature("question -> answer"), rows=rows))[LOST]
    assert [e.split(" '")[0] for e in lost.examples] == ["chat: devsets/tiny/rows.jsonl:5"]
    assert not lost.problem


def test_any_output_has_a_nearest_neighbour_scored_by_the_metric(slots: Task) -> None:
    splits = load_splits(slots)
    score = baseline_scores(slots, splits.train, splits.train)
    assert {CONSTANT, NEAREST} <= set(score) and set(score[NEAREST]) == {1.0}
    assert fmean(score[CONSTANT]) < 1
    partly = replace(slots, metric=lambda e, p: float(e.day == p.day))
    assert 0 < fmean(baseline_scores(partly, splits.train, splits.test)[NEAREST]) < 1


class Order(BaseModel):
    item: str
    due: str | None = None


def test_a_nearest_neighbour_gives_a_whole_object(tiny: Tiny, mood_rows: Rows) -> None:
    rows = [{"text": r["text"], "order": {"item": r["mood"]}} for r in mood_rows]

    class Read(dspy.Signature):
        """Read the order."""

        text: str = dspy.InputField()
        order: Order = dspy.OutputField()

    task = tiny(Read, rows=rows)
    splits = load_splits(task)
    assert set(baseline_scores(task, splits.train, splits.train)[NEAREST]) == {1.0}


def test_inputs_without_a_word_have_a_nearest_neighbour(tiny: Tiny) -> None:
    task = tiny(dspy.Signature("question -> answer"))
    rows = [
        dspy.Example(question=f"{n} + {n}", answer=str(2 * n)).with_inputs("question")
        for n in range(4)
    ]
    assert set(baseline_scores(task, rows, rows)[NEAREST]) == {1.0}


def test_the_best_constant_is_the_one_that_the_metric_likes_best(tiny: Callable[..., Task]) -> None:
    """With stars that count by how near they are, the middle beats the commonest."""
    stars = dspy.Signature("text -> stars: Literal[1, 2, 3, 4, 5]")
    given = [1] * 9 + [3] * 8 + [5] * 8
    task = replace(
        tiny(stars),
        metric=lambda row, said: Score(1 - abs(row.stars - said.stars) / 4),
    )
    rows = [dspy.Example(text=f"t {n}", stars=s).with_inputs("text") for n, s in enumerate(given)]
    score = fmean(baseline_scores(task, rows, rows)[CONSTANT])
    assert score == pytest.approx((9 * 0.5 + 8 * 1 + 8 * 0.5) / 25)
