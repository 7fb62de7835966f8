"""Evaluations: what each example cost, failed calls, repeats and races, against an endpoint whose
every answer is known.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dspy
import pytest
from fastapi import FastAPI, HTTPException, Request

from optimize import lm as lms
from optimize.config import RunConfig
from optimize.errors import UserCodeError, WorkbenchError
from optimize.finetune.effects import price
from optimize.lm.meter import Meter
from optimize.program.program import Program, student
from optimize.scoring.evaluate import BLOCK, Asking, evaluate, race
from optimize.scoring.evaluation import Evaluation, Outcome
from optimize.scoring.headroom import headroom
from optimize.store.table import row_table
from optimize.task import Score, Task
from tests.test_lm import completion, served


class Sum(dspy.Signature):
    """Add up."""

    terms: str = dspy.InputField()
    total: int = dspy.OutputField()


def metric(example: dspy.Example, prediction: dspy.Prediction) -> Score:
    return Score(float(example.total == prediction.total))


TASK = Task(signature=Sum, metric=metric, name="sum", max_tokens=40)
ROWS = [dspy.Example(terms=f"{n} plus {n}", total=2 * n).with_inputs("terms") for n in range(60)]


@dataclass
class Adder:
    """Adds right, but for the rows named: off by one, refused (so many times), or right only every
    other time.
    """

    wrong: set[int] = field(default_factory=set)
    refused: Counter[int] = field(default_factory=Counter)
    moody: set[int] = field(default_factory=set)
    asked: Counter[int] = field(default_factory=Counter)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> dict[str, object]:
            body = await request.json()
            n = int(re.findall(r"(\d+) plus", body["messages"][-1]["content"])[-1])
            self.asked[n] += 1
            if self.refused[n] > 0:
                self.refused[n] -= 1
                raise HTTPException(400, "no")
            off = n in self.wrong or (n in self.moody and self.asked[n] % 2 == 0)
            text = f"[[ ## total ## ]]\n{2 * n + off}\n\n[[ ## completed ## ]]"
            return completion(body["model"], text, (10, 3))

        return app


@pytest.fixture
def adder(tmp_path: Path) -> Iterator[tuple[Adder, Program]]:
    lms.configure(tmp_path)
    found = Adder()
    with served(found.app()) as url:
        lm = lms.resolve("openai/adder", url + "/v1", RunConfig(), Meter(10_000), 40)
        with dspy.context(lm=lm):
            yield found, student(TASK)


def test_each_example_knows_what_it_cost(adder: tuple[Adder, Program]) -> None:
    found = evaluate(adder[1], ROWS[:6], Asking(TASK, threads=3))
    assert found.scores == (1.0,) * 6 and found.coverage == 1.0 and found.noise is None
    for outcome in found.outcomes:
        assert (outcome.usage.calls, outcome.usage.tokens_in, outcome.usage.tokens_out) == (
            1,
            10,
            3,
        )
        assert outcome.usage.cost_usd is None and outcome.seconds > 0
    again = evaluate(adder[1], ROWS[:6], Asking(TASK, threads=3))
    assert all((o.usage.asked, o.usage.calls) == (1, 0) for o in again.outcomes), (
        "answered from the cache"
    )


def test_a_failed_call_is_asked_once_more_and_then_missing(adder: tuple[Adder, Program]) -> None:
    adder[0].refused.update({1: 1, 2: 99})
    found = evaluate(adder[1], ROWS[:10], Asking(TASK, threads=3))
    assert found.scores[1] == 1.0 and found.scores[2] is None
    assert (found.missing, found.coverage, found.interval.n) == (1, 0.9, 9)
    assert "LMInvalidRequestError" in found.outcomes[2].error


def test_most_calls_failing_is_no_evaluation(adder: tuple[Adder, Program]) -> None:
    adder[0].refused.update(dict.fromkeys(range(6), 99))
    with pytest.raises(WorkbenchError, match="6 of 10 calls failed"):
        evaluate(adder[1], ROWS[:10], Asking(TASK, threads=3))


def test_repeats_ask_anew_and_tell_the_lms_noise(adder: tuple[Adder, Program]) -> None:
    adder[0].moody = {0, 1}
    found = evaluate(adder[1], ROWS[:8], Asking(TASK, threads=1, repeats=4))
    assert all(adder[0].asked[n] == 4 for n in range(8))
    assert found.scores == (0.5, 0.5, *(1.0,) * 6) and found.outcomes[0].repeats == (
        1.0,
        0.0,
        1.0,
        0.0,
    )
    assert found.noise == pytest.approx((2 * (1 / 3) / 4) ** 0.5 / 8), (
        "variance 1/3 within two rows of eight, four answers each"
    )
    assert found.outcomes[0].usage.calls == 4
    assert found.outcomes[0].asked_anew == 4
    evaluate(adder[1], ROWS[:8], Asking(TASK, threads=1, repeats=4))
    assert all(adder[0].asked[n] == 4 for n in range(8)), (
        "every repeat has its own place in the cache"
    )


def test_an_answer_costs_the_same_however_often_it_is_asked_for(
    adder: tuple[Adder, Program],
) -> None:
    """Half of the first rows' answers come from the cache, and say nothing of what one costs."""
    once = price(evaluate(adder[1], ROWS[:6], Asking(TASK, threads=1)))
    more = evaluate(adder[1], ROWS[:12], Asking(TASK, threads=1, repeats=2))
    assert [o.asked_anew for o in more.outcomes] == [1] * 6 + [2] * 6
    often = price(more)
    assert once and often and often.usd is None
    assert (once.tokens_in, once.tokens_out) == (often.tokens_in, often.tokens_out) == (10, 3)
    assert often.seconds_right == pytest.approx(often.seconds), "every answer was right"


def test_an_answer_by_votes_is_priced_with_the_vote_that_the_cache_knew(
    adder: tuple[Adder, Program],
) -> None:
    """A climb has asked for the first one, without votes."""
    program, rows = adder[1], ROWS[:6]
    once = price(evaluate(program, rows, Asking(TASK, threads=1)))
    program.votes = 5
    elected = evaluate(program, rows, Asking(TASK, threads=1))
    voted = price(elected)
    assert [o.usage.cached for o in elected.outcomes] == [1] * 6
    assert once and voted
    assert (voted.tokens_in, voted.tokens_out) == (5 * once.tokens_in, 5 * once.tokens_out)
    table = json.loads(row_table(program, rows, elected))
    column = table["columns"].index("tokens_in")
    assert [cells[column] for cells in table["data"]] == [5 * once.tokens_in] * 6


def test_a_race_asks_a_worse_program_a_fraction_of_the_rows(adder: tuple[Adder, Program]) -> None:
    best = Evaluation(tuple(Outcome(1.0, {}) for _ in ROWS))
    adder[0].wrong = set(range(0, 60, 2))
    found = race(adder[1], best, ROWS, Asking(TASK, threads=3), lambda calls: 1.0)
    assert BLOCK <= len(found.outcomes) < 60 and len(found.outcomes) % BLOCK == 0
    assert sum(adder[0].asked.values()) == len(found.outcomes)


def test_a_race_against_an_equal_runs_to_its_end(adder: tuple[Adder, Program]) -> None:
    """Where it is cheaper; else it could not be promoted."""
    best = Evaluation(tuple(Outcome(1.0, {}) for _ in ROWS))
    asking = Asking(TASK, threads=3)
    assert race(adder[1], best, ROWS, asking, lambda calls: -0.5).scores == best.scores


def test_headroom_is_the_best_of_several_answers_and_the_teachers(
    adder: tuple[Adder, Program],
) -> None:
    adder[0].wrong, adder[0].moody = {0, 1, 2}, {3, 4}
    found = headroom(adder[1], ROWS[:10], None, Asking(TASK, threads=1))
    assert found.best.mean == pytest.approx(0.7) and found.teacher is None, (
        "five answers mend the moody rows, not the wrong ones"
    )
    taught = headroom(adder[1], ROWS[:10], dspy.settings.lm, Asking(TASK, threads=1))
    assert taught.teacher and taught.teacher.n == 10


def test_an_error_of_the_metric_itself_is_not_a_failed_call(adder: tuple[Adder, Program]) -> None:
    def broken(example: dspy.Example, prediction: dspy.Prediction) -> Score:
        raise KeyError("totl")

    broken_task = Task(signature=Sum, metric=broken, name="sum")
    with pytest.raises(UserCodeError, match=r"test_evaluate\.py:\d+, in broken: KeyError: 'totl'"):
        evaluate(adder[1], ROWS[:3], Asking(broken_task, threads=1))


class Careless(dspy.Module):
    """A module whose author made a mistake that shows on all rows but the first two."""

    def __init__(self, signature: type[dspy.Signature]) -> None:
        super().__init__()
        self.add = dspy.Predict(signature)

    def forward(self, terms: str) -> dspy.Prediction:
        answer = self.add(terms=terms)
        if not terms.startswith(("0", "1")):
            answer.total += answer.totall
        return answer


@pytest.mark.parametrize(("refused", "missing"), [({}, 0), ({0: 9}, 1)])
def test_a_modules_bug_is_no_failed_call_but_its_lms_failure_is(
    adder: tuple[Adder, Program], refused: dict[int, int], missing: int
) -> None:
    adder[0].refused.update(refused)
    task = Task(signature=Sum, metric=metric, name="sum", program=Careless)
    assert evaluate(student(task), ROWS[:2], Asking(task, threads=1)).missing == missing
    with pytest.raises(UserCodeError, match=r"in forward: AttributeError.*on row terms='2 plus 2'"):
        evaluate(student(task), ROWS[:3], Asking(task, threads=1))


def test_a_module_that_takes_other_inputs_is_told(adder: tuple[Adder, Program]) -> None:
    class Other(Careless):
        def forward(self, term: str) -> dspy.Prediction:
            return self.add(terms=term)

    task = Task(signature=Sum, metric=metric, name="sum", program=Other)
    with pytest.raises(UserCodeError, match=r"test_evaluate\.py:\d+: TypeError.*argument 'terms'"):
        evaluate(student(task), ROWS[:1], Asking(task, threads=1))


def test_a_metric_whose_own_lm_fails_is_a_failed_call(adder: tuple[Adder, Program]) -> None:
    def judged(example: dspy.Example, prediction: dspy.Prediction) -> float:
        if example.terms.startswith("0"):
            raise dspy.LMError("the judge is away")
        return 1.0

    task = Task(signature=Sum, metric=judged, name="sum")
    assert evaluate(adder[1], ROWS[:3], Asking(task, threads=1)).scores == (None, 1.0, 1.0)


def test_the_lms_own_words_are_kept_cached_or_not(adder: tuple[Adder, Program]) -> None:
    words = "[[ ## total ## ]]\n4\n\n[[ ## completed ## ]]"
    for _ in range(2):
        found = evaluate(adder[1], ROWS[2:3], Asking(TASK, threads=1)).outcomes[0]
        assert found.said == (words,)
    assert adder[0].asked[2] == 1


def test_one_look_of_several_is_judged_with_those_before_it(adder: tuple[Adder, Program]) -> None:
    """A row that no call can answer must not end what others have been asked, nor what begins."""
    adder[0].refused.update({0: 99, 12: 99})
    asking = Asking(TASK, threads=1)
    found = evaluate(adder[1], ROWS[:1], asking, ())
    assert found.scores == (None,) and found.mean == 0.0
    longer = evaluate(adder[1], ROWS[1:3], asking, found.outcomes)
    assert longer.scores == (None, 1.0, 1.0) and longer.mean == 1.0
    incumbent = evaluate(adder[1], ROWS[:13], asking)
    raced = race(adder[1], incumbent, ROWS[:13], asking, lambda calls: -1.0)
    assert raced.scores[12] is None, "the last block is one row"
    adder[0].refused.update(dict.fromkeys(range(20, 26), 99))
    with pytest.raises(WorkbenchError, match="7 of 9 calls failed"):
        evaluate(adder[1], ROWS[20:26], asking, longer.outcomes)
