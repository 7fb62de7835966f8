"""The gate: open on a sound case, and closed by each criterion alone, with what would open it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dspy
import pytest

from optimize.climb.findings import CONFLICTS, LEAKS, Finding
from optimize.climb.preflight import AgreementRecord, preflight
from optimize.config import RunConfig
from optimize.data.rows import Splits, load_splits
from optimize.finetune.criteria.case import Case
from optimize.finetune.criteria.learning import LEAST_ROWS
from optimize.finetune.gate import gate
from optimize.scoring.failures import Diagnosis, Failures, Kind
from optimize.stats.records import ScoreRecord
from optimize.task import Task

Tiny = Callable[..., Task]
Shipped = Callable[[str], tuple[Task, Splits]]


def failures(kind: Kind, count: int) -> Failures:
    return Failures(
        kind=kind, count=count, lost=count, meaning="", lever="the lever that fits", examples=["…"]
    )


def diagnosis(*kinds: Failures) -> Diagnosis:
    return Diagnosis(scored=50, wrong=sum(k.count for k in kinds), kinds=list(kinds), confusions={})


def failing(case: Case, **counts: int) -> Case:
    return replace(
        case, diagnosis=diagnosis(*(failures(kind, count) for kind, count in counts.items()))
    )  # type: ignore[arg-type]


def finding(what: str) -> Finding:
    return Finding(what=what, count=2, examples=[], problem=True)


def raters(person: float) -> AgreementRecord:
    return AgreementRecord(alpha=0.6, person=person, n=50)


def score(value: float) -> ScoreRecord:
    return ScoreRecord(score=value, low=value - 0.1, high=value + 0.1, n=50)


@pytest.fixture
def task(tiny: Tiny, mood_rows: list[dict[str, Any]]) -> Task:
    return replace(tiny(rows=mood_rows), stability="stable", owner="the help desk")


@pytest.fixture
def sound(task: Task) -> Case:
    """A plateau below target on sound rows, but more of them than the tiny task has."""
    checked = preflight(task, load_splits(task), RunConfig())
    checked = checked.model_copy(
        update={
            "rows": {"train": 400, "val": 100, "test": 160},
            "baselines": {"nearest": score(0.6)},
        }
    )
    won = {"output_format": 0.1, "nearest_demos": 0.3}
    return Case(
        "plateau",
        0.9,
        score(0.5),
        0.001,
        won,
        ("baseline", "demos"),
        checked,
        diagnosis(failures("boundaries", 20)),
        reasons=False,
    )


def with_preflight(case: Case, **facts: Any) -> Case:
    return replace(case, preflight=case.preflight.model_copy(update=facts))


def test_a_sound_case_opens_it_and_says_what_it_stands_on(task: Task, sound: Case) -> None:
    found = gate(task, sound)
    assert found.open and all(c.passed for c in found.criteria), found
    assert "plateau, 0.50" in found.reasons[0] and "400 train rows" in found.reasons[1]


@pytest.mark.parametrize(
    ("verdict", "told"),
    [
        (
            "reached",
            "the lever that gained most was nearest_demos (+0.300); weights need not change",
        ),
        ("improving", "It is not shown that prompting cannot reach the target"),
        ("indecisive", "It is not shown that prompting cannot reach the target"),
        ("exhausted", "It is not shown that prompting cannot reach the target"),
        ("budget", "optimize run tiny --max-calls "),
        ("no_headroom", "a stronger LM"),
    ],
)
def test_every_verdict_but_a_plateau_closes_it(
    task: Task, sound: Case, verdict: str, told: str
) -> None:
    found = gate(task, replace(sound, verdict=verdict))
    assert not found.open and told in found.reasons[0] and len(found.reasons) == 1


def test_the_cap_that_ended_the_climb_is_the_one_to_raise(task: Task, sound: Case) -> None:
    cost = sound.preflight.cost
    plan = cost.plan.model_copy(update={"cap": "budget_usd", "given": 1.5})
    ended = with_preflight(sound, cost=cost.model_copy(update={"plan": plan}))
    told = gate(task, replace(ended, verdict="budget")).reasons[0]
    assert "--budget-usd 3" in told and "--max-calls" not in told


def test_nothing_is_said_of_a_gain_where_none_is_missing(task: Task, sound: Case) -> None:
    found = gate(task, replace(sound, verdict="reached", best=score(0.95)))
    assert not found.open and "gain to be had" not in {c.name for c in found.criteria}


CHANGES: dict[str, tuple[str, Callable[[Case], Case], bool | None, str]] = {
    "schema": (
        "kind of failure",
        lambda c: failing(c, schema=10, style=9),
        False,
        "optimize run tiny",
    ),
    "knowledge": (
        "kind of failure",
        lambda c: failing(c, knowledge=3),
        False,
        "the lever that fits",
    ),
    "suspect labels": (
        "kind of failure",
        lambda c: failing(c, labels=3),
        False,
        "optimize check tiny",
    ),
    "half of it style": ("kind of failure", lambda c: failing(c, style=11, schema=10), True, ""),
    "too few rows": (
        "train rows",
        lambda c: with_preflight(c, rows={"train": LEAST_ROWS - 1, "val": 9, "test": 160}),
        False,
        "more rows",
    ),
    "few rows": (
        "train rows",
        lambda c: with_preflight(c, rows={"train": LEAST_ROWS, "val": 9, "test": 160}),
        None,
        "Label 50 more rows",
    ),
    "reasoning": ("train rows", lambda c: replace(c, reasons=True), None, "Label 600 more rows"),
    "a label without rows": (
        "labels covered",
        lambda c: with_preflight(c, label_rows={"good": 9, "bad": 0}),
        False,
        "train rows for bad",
    ),
    "a label with few": (
        "labels covered",
        lambda c: with_preflight(c, label_rows={"good": 9, "bad": 2}),
        None,
        "train rows for bad",
    ),
    "conflicts": (
        "contradictions",
        lambda c: with_preflight(c, findings=[finding(CONFLICTS)]),
        False,
        "optimize check tiny",
    ),
    "leaks": (
        "overlap",
        lambda c: with_preflight(c, findings=[finding(LEAKS)]),
        False,
        "Move or remove them",
    ),
    "poison": (
        "random labels",
        lambda c: with_preflight(c, random_labels=score(0.3)),
        False,
        "Mend the labels first",
    ),
    "hard rows": ("random labels", lambda c: with_preflight(c, random_labels=score(0.2)), True, ""),
    "quarrelling raters": (
        "annotators",
        lambda c: with_preflight(c, agreement=raters(0.8)),
        False,
        "lower the target",
    ),
    "agreeing raters": (
        "annotators",
        lambda c: with_preflight(c, agreement=raters(0.95)),
        True,
        "",
    ),
    "a classifier will do": (
        "no LM needed",
        lambda c: with_preflight(c, baselines={"it": score(0.92)}),
        False,
        "Use it instead",
    ),
    "hardly a gain": (
        "gain to be had",
        lambda c: replace(c, best=score(0.86)),
        None,
        "could not be shown",
    ),
    "not worth weights": (
        "gain to be had",
        lambda c: replace(c, best=score(0.89)),
        False,
        "Task(least_gain=0.02)",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_criterion_alone_decides(task: Task, sound: Case, change: str) -> None:
    name, make, passed, told = CHANGES[change]
    found = gate(task, make(sound))
    criterion = next(c for c in found.criteria if c.name == name)
    assert (
        criterion.passed is passed
        and told in criterion.remedy
        and criterion.value
        and criterion.threshold
        and criterion.source
    )
    assert found.open is (passed is not False)
    assert all(c.passed for c in found.criteria if c is not criterion)
    if passed is not True:
        assert any(reason.startswith(f"{name}: ") and told in reason for reason in found.reasons)


def test_a_corpus_asks_for_retrieval_first(tiny: Tiny, task: Task, sound: Case) -> None:
    tiny(corpus=[{"id": "1", "title": "t", "text": "x"}])
    assert "Missing knowledge is no case for weights" in gate(task, sound).reasons[0]
    assert gate(task, replace(sound, families=("baseline", "demos", "retrieval"))).open
    left_out = gate(task, replace(sound, knobs={"without": ["passages", "votes"]})).failed[0]
    assert left_out.command.endswith("--without votes")


def test_a_plateau_without_some_levers_says_so(task: Task, sound: Case) -> None:
    found = gate(task, replace(sound, knobs={"without": ["votes", "simba"]}))
    assert found.open
    assert "levers left out: votes, simba (a plateau says nothing of them)" in found.reasons[1]
    assert found.reasons[1].endswith("Next: optimize run tiny")


@pytest.mark.parametrize("facts", [{"owner": ""}, {"stability": None}, {"stability": "changing"}])
def test_a_task_nobody_owns_or_that_changes_needs_a_waiver_which_stays_on_record(
    task: Task, sound: Case, facts: dict[str, Any]
) -> None:
    undeclared = replace(task, **facts)
    closed, waived = gate(undeclared, sound), gate(undeclared, sound, "a trial on Friday")
    assert not closed.open and "--waive" in closed.reasons[0]
    assert waived.open and waived.waived == "a trial on Friday"
    assert "waived: a trial on Friday" in next(
        c.value for c in waived.criteria if c.name == "waived"
    )
    assert not gate(undeclared, replace(sound, verdict="budget"), "a trial").open, (
        "nothing else can be waived"
    )


def test_a_poisoned_and_a_tiny_variant_of_a_shipped_task_are_stopped(
    shipped: Shipped, sound: Case
) -> None:
    """30 % of the labels drawn at random; 40 rows in all."""
    task, splits = shipped("tickets")
    assert gate(task, replace(sound, preflight=preflight(task, splits, RunConfig()))).open
    rng = random.Random(3)
    desks = sorted({e.desk for e in splits.train})
    poisoned = [
        rows(splits, side, lambda e: e.copy(desk=rng.choice(desks)) if rng.random() < 0.3 else e)
        for side in splits.sides()
    ]
    found = gate(
        task, replace(sound, preflight=preflight(task, Splits(*poisoned, digest=""), RunConfig()))
    )
    assert [c.name for c in found.criteria if c.passed is False] == ["random labels"], found.reasons
    few = Splits(splits.train[:24], splits.val[:8], splits.test[:8], "")
    found = gate(task, replace(sound, preflight=preflight(task, few, RunConfig())))
    assert not found.open and any(
        "24 train rows" in reason and "Label 76 more rows" in reason for reason in found.reasons
    )


def rows(
    splits: Splits, side: str, change: Callable[[dspy.Example], dspy.Example]
) -> tuple[dspy.Example, ...]:
    return tuple(map(change, splits.sides()[side]))


def test_a_teacher_at_the_target_makes_it_a_matter_of_cost(task: Task, sound: Case) -> None:
    found = gate(task, replace(sound, teacher=score(0.95)))
    assert found.open and "--method distill" in found.reasons[-1]
    assert gate(task, replace(sound, teacher=score(0.85))) == gate(task, sound)


def test_synthetic_rows_are_told_and_do_not_meet_the_number_of_train_rows(
    task: Task, sound: Case
) -> None:
    few = with_preflight(sound, rows={"train": 40, "val": 100, "test": 160}, synthetic=500)
    (found,) = [c for c in gate(task, few).criteria if c.name == "train rows"]
    assert found.passed is False
    assert found.value == "40 train rows to learn from, and 500 synthetic ones that do not count"
