"""What `optimize check` says of rows with planted faults, and that it asks no LM."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import dspy
import pytest

from optimize.catalogue import EMBEDDED
from optimize.climb.findings import LEAKS
from optimize.climb.preflight import Preflight, preflight
from optimize.climb.rungs import LADDER
from optimize.climb.rungs.passages import without_corpus
from optimize.config import RunConfig
from optimize.data.baselines import baseline_scores
from optimize.data.labelled import put
from optimize.data.rows import load_splits
from optimize.errors import UserCodeError
from optimize.report.planned import plan_sentences
from optimize.report.sentences import preflight_sentences
from optimize.report.text import checks
from optimize.task import Score, Task

Tiny = Callable[..., Task]
Rows = list[dict[str, Any]]
WORDS = {
    "good": ["lovely", "superb", "splendid", "charming"],
    "bad": ["awful", "dreadful", "rotten", "horrid"],
}


@pytest.fixture
def review_rows() -> Rows:
    """120 reviews whose words give the mood away, no two alike."""
    rng = random.Random(0)
    filler = lambda: "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7))  # noqa: E731
    return [
        {
            "text": " ".join([*rng.sample(WORDS[mood], 3), filler(), filler(), filler()]),
            "mood": mood,
        }
        for _ in range(60)
        for mood in ("good", "bad")
    ]


def checked(task: Task, **knobs: Any) -> Preflight:
    return preflight(task, load_splits(task), RunConfig(**knobs))


def counts(found: Preflight) -> dict[str, int]:
    return {finding.what: finding.count for finding in found.findings}


def test_clean_rows_have_no_findings(tiny: Tiny, review_rows: Rows) -> None:
    found = checked(tiny(rows=review_rows))
    assert found.findings == [] and found.agreement is None
    assert sum(found.rows.values()) == 120


def test_planted_faults_are_found_with_their_lines(tiny: Tiny, review_rows: Rows) -> None:
    wrong = review_rows[10] | {"mood": "bad"}
    rows = [
        *review_rows[:10],
        wrong,
        *review_rows[11:],
        review_rows[0],
        review_rows[3] | {"mood": "good"},
    ]
    found = checked(tiny(rows=rows))
    assert counts(found) == {
        "inputs labelled in contradictory ways": 1,
        "rows written more than once": 1,
        "rows whose label looks wrong": 1,
    }
    by_what = {f.what: " ".join(f.examples) for f in found.findings}
    assert (
        "rows.jsonl:4" in by_what["inputs labelled in contradictory ways"]
        and ":122" in by_what["inputs labelled in contradictory ways"]
    )
    assert "rows.jsonl:11 is 'bad'" in by_what["rows whose label looks wrong"]
    twice = by_what["rows written more than once"]
    assert twice.count("rows.jsonl") == 2, "each place is told once"
    lines = preflight_sentences(found, 0.9)
    assert next(n for n, line in enumerate(lines) if line.startswith("Fix")) < next(
        n for n, line in enumerate(lines) if "Look at" in line
    )


class Tags(dspy.Signature):
    text: str = dspy.InputField()
    tags: list[str] = dspy.OutputField()


def test_rows_that_the_metric_takes_for_equal_do_not_contradict(
    tiny: Tiny, review_rows: Rows
) -> None:
    def as_sets(row: dspy.Example, said: dspy.Prediction) -> Score:
        return Score(float(set(row.tags) == set(said.tags)))

    rows = [{"text": row["text"], "tags": [row["mood"], "b"]} for row in review_rows]
    turned = rows[0] | {"tags": rows[0]["tags"][::-1]}
    for twin, count in ((turned, 0), (rows[0] | {"tags": ["c"]}, 1)):
        task = replace(tiny(Tags, rows=[*rows, twin]), metric=as_sets)
        assert checked(task).count("inputs labelled in contradictory ways") == count


def test_rows_on_two_sides_of_a_given_split_are_a_problem(tiny: Tiny, review_rows: Rows) -> None:
    twin = review_rows[0] | {"text": review_rows[0]["text"].upper()}
    found = checked(
        tiny(train=review_rows[:80], val=review_rows[80:100], test=[*review_rows[100:], twin])
    )
    assert found.count(LEAKS) == 1 and next(f for f in found.findings if f.what == LEAKS).problem
    assert found.label_rows == {"good": 40, "bad": 40}


def test_rows_that_say_the_same_are_counted(tiny: Tiny, review_rows: Rows) -> None:
    """Each judging row ten times, with another order number."""
    held = [row | {"text": f"{row['text']} {n}"} for row in review_rows[40:45] for n in range(10)]
    sides = {"train": review_rows[:40], "val": held, "test": review_rows[60:]}
    (finding,) = [f for f in checked(tiny(**sides)).findings if "say nearly the same" in f.what]
    assert finding.count == 5 and "(50 rows, 5 different:" in finding.what and not finding.problem


def test_labels_that_a_side_lacks_are_told(tiny: Tiny, review_rows: Rows) -> None:
    good = [row for row in review_rows if row["mood"] == "good"]
    bad = [row for row in review_rows if row["mood"] == "bad"]
    found = checked(tiny(train=good[:40], val=good[40:50], test=good[50:] + bad[:5]))
    assert counts(found)["labels in test that train never shows"] == 1
    found = checked(tiny(train=[*good[:40], *bad[:3]], val=good[40:50] + bad[3:6], test=good[50:]))
    assert (
        counts(found)["labels of train that test never asks for"] == 1
        and counts(found)["labels that are rare in train"] == 1
    )


def test_a_reference_at_the_target_is_told_first(tiny: Tiny, review_rows: Rows) -> None:
    found = checked(tiny(rows=review_rows))
    assert found.baselines["TF-IDF + logistic regression"].score == 1.0 and found.baselines[
        "same answer to every row"
    ].score == pytest.approx(0.5, abs=0.1)
    assert preflight_sentences(found, 0.9)[0].startswith("No LM needed?")
    assert not any(
        "No LM needed" in line
        for line in preflight_sentences(found.model_copy(update={"baselines": {}}), 0.9)
    )


def test_references_are_scored_by_the_tasks_metric(tiny: Tiny, review_rows: Rows) -> None:
    task = replace(tiny(rows=review_rows), metric=lambda example, prediction: 0.25)
    splits = load_splits(task)
    assert {
        score for row in baseline_scores(task, splits.train, splits.test).values() for score in row
    } == {0.25}


class Both(dspy.Signature):
    """Read the review."""

    text: str = dspy.InputField()
    mood: Literal["good", "bad"] = dspy.OutputField()
    long: bool = dspy.OutputField()
    quote: str = dspy.OutputField()


def test_several_outputs_have_a_baseline_each(tiny: Tiny, review_rows: Rows) -> None:
    """Labels are classified field by field; what is no label comes from the nearest row."""
    rows = [row | {"long": n % 3 == 0, "quote": row["text"]} for n, row in enumerate(review_rows)]
    for row in rows:
        row["text"] += " on and on" if row["long"] else ""
    task = replace(
        tiny(Both, rows=rows),
        metric=lambda e, p: float(e.mood == p.mood) / 2 + float(e.long == p.long) / 2,
    )
    found = checked(task).baselines
    assert found["TF-IDF + logistic regression"].score > found["nearest neighbour"].score > 0.8
    assert found["same answer to every row"].score < 0.65 and found["nearest neighbour"].n == 120


def test_a_baseline_never_learns_from_a_row_that_it_answers(tiny: Tiny, review_rows: Rows) -> None:
    """Moods drawn at random, each row written twice: a row's twin must not give it away."""
    rng = random.Random(1)
    rows = [row | {"mood": rng.choice(("good", "bad"))} for row in review_rows]
    twins = [row | {"text": row["text"].upper()} for row in rows]
    task = tiny(rows=[*rows, *twins])
    for name, score in checked(task).baselines.items():
        assert score.score < 0.62, name


def test_no_baseline_is_scored_on_rows_that_were_chosen(tiny: Tiny, review_rows: Rows) -> None:
    task = tiny(rows=review_rows)
    for n in range(12):
        put(task, {"text": f"neither this nor that, {n * 7919}", "mood": ("good", "bad")[n % 2]})
    found = checked(task)
    assert sum(found.rows.values()) == 132
    assert {score.n for score in found.baselines.values()} == {120}


def test_raters_put_a_ceiling_on_scores(tiny: Tiny, review_rows: Rows) -> None:
    rows = [
        row | {"votes": [row["mood"]] * 2 + ["bad" if n % 4 else "good"]}
        for n, row in enumerate(review_rows)
    ]
    found = checked(replace(tiny(rows=rows), raters=lambda row: row.votes))
    assert found.agreement and 0 < found.agreement.alpha < 1 and found.agreement.n == 120
    assert any("asks for agreement with noise" in line for line in preflight_sentences(found, 0.99))


@pytest.mark.parametrize("raters", [lambda row: row.votes, lambda row: row["votes"]])
def test_rows_that_one_person_labelled_and_empty_votes_are_no_ratings(
    tiny: Tiny, review_rows: Rows, raters: Any
) -> None:
    votes = [["good", "bad"], ["good", "good", None], ["bad", "bad", ""], ["bad", None], None]
    rows = [row | {"votes": votes[n % 5]} for n, row in enumerate(review_rows)]
    task = replace(tiny(rows=rows), raters=raters)
    before = checked(task).agreement
    assert before and before.n == 72 and before.person == pytest.approx(2 / 3)
    put(task, {"text": "neither this nor that", "mood": "good"})
    assert checked(task).agreement == before


def test_raters_that_fail_are_a_clear_error(tiny: Tiny, review_rows: Rows) -> None:
    with pytest.raises(
        UserCodeError,
        match=r"test_preflight\.py:\d+: AttributeError.*on row .*jsonl:\d+",
    ):
        checked(replace(tiny(rows=review_rows), raters=lambda row: row.votes))


def test_what_a_dev_set_can_see(tiny: Tiny, review_rows: Rows) -> None:
    found = checked(tiny(rows=review_rows))
    assert found.rows["val"] == 18 and found.smallest_gain == pytest.approx(0.346, abs=0.005)
    assert found.rows_to_see["0.05"] > 4 * found.rows_to_see["0.10"] * 0.9


def test_what_a_run_may_cost(tiny: Tiny, review_rows: Rows) -> None:
    task = tiny(rows=review_rows)
    local, priced, unknown = (
        checked(task, lm=lm, max_calls=100).cost
        for lm in ("embedded", "openai/gpt-4.1-mini", "openai/nobody-knows")
    )
    assert local.usd == 0.0 and local.calls == 100 and 0 < local.tokens_out < local.tokens_in
    assert priced.usd and priced.usd > 0 and unknown.usd is None
    taught = [
        checked(task, max_calls=100, lm="embedded", teacher=t).cost.usd
        for t in ("openai/gpt-4.1-mini", "openai/nobody-knows")
    ]
    assert taught == [priced.usd, None]
    assert any(
        "unknown price" in line
        for line in preflight_sentences(checked(task, lm="openai/nobody-knows"), 0.9)
    )
    capped = preflight_sentences(checked(task, budget_usd=1, max_minutes=9), 0.9)
    assert any(
        "--budget-usd 1.0 and --max-minutes 9.0 may end it earlier" in line for line in capped
    )
    assert any(
        "full climb takes --max-calls" in line and "No lever can run under --max-calls 100" in line
        for line in preflight_sentences(checked(task, max_calls=100), 0.9)
    )


def test_a_cap_that_is_too_small_is_told_before_the_first_call(
    tiny: Tiny, review_rows: Rows
) -> None:
    """Also where it is what follows the climb that makes it too small."""
    task = tiny(rows=review_rows)
    enough = checked(task).cost.plan.enough
    found = {
        after: preflight_sentences(
            preflight(task, load_splits(task), RunConfig(max_calls=enough), after), task.target
        )
        for after in (0, 300)
    }
    assert not any("Too few calls" in line for line in found[0])
    assert any(f"--max-calls {enough + 300}" in line for line in found[300])
    plan = preflight(task, load_splits(task), RunConfig(max_calls=300)).cost.plan
    tried = [r.rung for r in plan.rungs if r.calls]
    assert 0 < len(tried) < len(plan.rungs) and tried == [r.rung for r in plan.rungs][: len(tried)]
    assert sum(r.calls for r in plan.rungs) <= 300
    fewer = preflight(task, load_splits(task), RunConfig(without=("demo_search",))).cost.plan
    assert "demo_search" not in {rung.rung for rung in fewer.rungs} and fewer.enough < enough


def test_where_rows_leave_hardly_a_lever_its_calls_fewer_rows_are_advised(
    tiny: Tiny, review_rows: Rows
) -> None:
    words = [row["text"] for row in review_rows]
    many = [
        {**row, "text": f"{row['text']} {words[-n]} {n * 7919}"}
        for n in range(4)
        for row in review_rows
    ]
    task = tiny(rows=many)
    splits, config = load_splits(task), RunConfig(max_calls=420)
    found = preflight(task, splits, config)
    few = found.cost.plan.fewer_rows
    assert few and few.val < len(splits.val) and few.test < len(splits.test)
    advice = f"--val-rows {few.val} --test-rows {few.test}"
    assert any(advice in line for line in preflight_sentences(found, task.target))
    cut = preflight(task, splits.at_most(few.val, few.test), config).cost.plan
    assert cut.paid == few.rungs and len(cut.paid) > len(found.cost.plan.paid)
    assert preflight(task, splits, RunConfig(max_calls=2000)).cost.plan.fewer_rows is None


def test_a_plan_counts_every_cap(tiny: Tiny, review_rows: Rows) -> None:
    """Tokens and dollars are calls as well; minutes only where it is known how long one takes."""
    task = tiny(rows=review_rows)
    splits, lm = load_splits(task), "openai/gpt-4.1-mini"
    plain = checked(task, lm=lm).cost.plan
    tokens = checked(task, lm=lm, max_tokens=60_000).cost.plan
    money = checked(task, lm=lm, budget_usd=0.02).cost.plan
    slow = preflight(task, splits, RunConfig(max_minutes=3), per_minute=100.0).cost.plan
    assert (plain.allowed, plain.cap) == (5000, "max_calls") and slow.allowed == 300
    assert [p.cap for p in (tokens, money, slow)] == ["max_tokens", "budget_usd", "max_minutes"]
    for plan in (tokens, money, slow):
        assert 100 < plan.allowed < 1500 and len(plan.paid) < len(plain.paid)
        flag = f"--{plan.cap.replace('_', '-')} "
        assert plan.full.startswith(flag) and "--max-calls" not in plan.full
        assert any(plan.full in line for line in plan_sentences(plan))
    raised = float(tokens.full.split()[1])
    again = checked(task, lm=lm, max_tokens=int(raised)).cost.plan
    assert again.paid == [rung.rung for rung in again.rungs]


def test_levers_that_hang_on_what_others_leave_are_told_apart(
    tiny: Tiny, review_rows: Rows
) -> None:
    plan = checked(tiny(rows=review_rows), max_calls=600).cost.plan
    perhaps = [rung.rung for rung in plan.rungs if rung.if_left]
    assert plan.paid and perhaps and not set(plan.paid) & set(perhaps)
    said = " ".join(plan_sentences(plan))
    assert f"leave some of their calls: {perhaps[0]}" in said
    hopeless = checked(tiny(rows=review_rows), max_calls=60).cost.plan
    assert hopeless.hopeless and plan_sentences(hopeless)[0].startswith("No lever can run under")


def test_a_plan_counts_every_step_of_a_program(tiny: Tiny, review_rows: Rows) -> None:
    class Steps(dspy.Module):
        def __init__(self, signature: type[dspy.Signature]) -> None:
            super().__init__()
            self.first = dspy.Predict("text -> short")
            self.last = dspy.Predict(signature)

        def forward(self, text: str) -> Any:
            return self.last(text=self.first(text=text).short)

    task = tiny(rows=review_rows)
    once = checked(task).cost.plan
    twice = checked(replace(task, program=Steps)).cost.plan
    assert twice.least == once.least and twice.enough > 1.8 * once.enough
    for steps, plan in ((task, once), (replace(task, program=Steps), twice)):
        again = checked(steps, max_calls=plan.enough).cost.plan
        assert again.paid == [r.rung for r in again.rungs], "with what is advised all can be tried"


def test_the_ceiling_counts_the_thoughts_of_a_model_that_thinks(
    tiny: Tiny, review_rows: Rows
) -> None:
    task = tiny(rows=review_rows)
    plain, thinking = (
        checked(task, lm=lm).cost for lm in ("openai/gpt-4.1-mini", "gemini/gemini-2.5-flash")
    )
    assert (plain.thinking, thinking.thinking) == (0, 16_000)
    assert thinking.tokens_out == 16_000 * thinking.calls
    said = preflight_sentences(checked(task, lm="gemini/gemini-2.5-flash"), 0.9)
    assert any("16,000 tokens of thoughts and answer" in line for line in said)


def test_the_ceiling_counts_proposals_and_reasoning_of_a_hosted_lm(
    tiny: Tiny, review_rows: Rows
) -> None:
    task = tiny(rows=review_rows)
    hosted, here = (checked(task, lm=lm).cost for lm in ("openai/gpt-4.1-mini", EMBEDDED))
    answer = task.max_tokens + 1_000
    assert hosted.tokens_out == hosted.calls * answer + hosted.calls // 6 * (4_000 - answer)
    assert here.tokens_out == here.calls * (task.max_tokens + 300)


@pytest.mark.parametrize(
    ("lm", "planned"), [("openai/o4-mini", False), ("anthropic/claude-sonnet-4-5", True)]
)
def test_the_plan_has_reasoning_for_an_lm_that_does_not_think(
    tiny: Tiny, review_rows: Rows, lm: str, planned: bool
) -> None:
    plan = checked(tiny(rows=review_rows), lm=lm).cost.plan
    assert ("reasoning" in [rung.rung for rung in plan.rungs]) is planned


def test_a_judge_is_asked_about_the_elected_answer_alone(tiny: Tiny) -> None:
    votes, judged = LADDER[-1], replace(tiny(), judge="critic")
    assert votes.priced(tiny()).judged(10) == 50
    assert votes.priced(judged).judged(10, calls=2) == 60, "five answers and one verdict a row"


def test_passages_are_no_lever_where_the_program_asks_for_none(tiny: Tiny) -> None:
    task = tiny(corpus=[{"id": "a", "title": "A", "text": "An A."}])
    steps = replace(task, program=lambda signature: dspy.ReAct(signature, tools=[]))
    assert not without_corpus(task) and "asks for none" in without_corpus(steps)


def test_no_lm_is_asked(tiny: Tiny, review_rows: Rows) -> None:
    class Never(dspy.utils.DummyLM):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raise AssertionError("the checks asked an LM")

    with dspy.context(lm=Never([])):
        checks(checked(tiny(rows=review_rows)), 0.9, "tiny", "Next: optimize run tiny")


def test_all_rows_that_do_not_fit_are_named_at_once(
    tiny: Tiny, review_rows: Rows, tmp_path: Path
) -> None:
    broken = [row | {"mood": "fair"} if n in (2, 5) else row for n, row in enumerate(review_rows)]
    task = tiny(rows=broken)
    with pytest.raises(Exception, match="2 rows do not fit") as caught:
        load_splits(task)
    assert "rows.jsonl:3" in str(caught.value) and "rows.jsonl:6" in str(caught.value)


def test_a_preflight_survives_json(tiny: Tiny, review_rows: Rows) -> None:
    found = checked(tiny(rows=review_rows))
    assert Preflight.model_validate(json.loads(found.model_dump_json())) == found
