"""No DSPy call escapes the meter: async, a metric's own LM, a program's own. Over real HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from time import sleep
from typing import Any

import dspy
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from optimize import lm as lms
from optimize.climb.observer import Observer
from optimize.commands.session import open_session
from optimize.config import RunConfig
from optimize.errors import BudgetExhausted
from optimize.lm.limits import Limits
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM, count_others, one_example
from optimize.program.program import student
from optimize.scoring.evaluate import Asking, evaluate
from optimize.task import Score, Task
from optimize.threads import in_threads
from tests.conftest import Says
from tests.test_lm import Colour, chat_app, rows, served

PRICED = "openai/gpt-4.1-mini"  # DSPy's list has its price; asked at another address
RED = "[[ ## colour ## ]]\nred\n\n[[ ## completed ## ]]"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path) -> None:
    lms.configure(tmp_path)


@pytest.fixture
def endpoint() -> Iterator[tuple[FastAPI, str]]:
    """An endpoint that refuses what is broken and finds everything else red, and its address."""
    app = chat_app(lambda text: 400 if "broken" in text else RED)
    with served(app) as url:
        yield app, url + "/v1"


def ours(url: str, meter: Meter) -> MeteredLM:
    return lms.resolve("openai/any", url, RunConfig(), meter, 40)


def plain(url: str, **more: Any) -> dspy.LM:
    """An LM as anyone would make it in a metric."""
    return dspy.LM(PRICED, api_base=url, api_key="none", num_retries=0, **more)


async def gathered(lm: dspy.LM, *questions: str) -> list[Any]:
    """The answers, or what was raised."""
    return await asyncio.gather(*(lm.acall(q) for q in questions), return_exceptions=True)


@pytest.mark.parametrize("make", [ours, plain])
def test_the_cap_holds_for_async_calls(endpoint: tuple[FastAPI, str], make: Any) -> None:
    app, url = endpoint
    meter = Meter(2)
    count_others(meter)
    lm = make(url, meter) if make is ours else make(url)
    found = asyncio.run(gathered(lm, *(f"question {n}" for n in range(5))))
    assert sum(isinstance(answer, BudgetExhausted) for answer in found) == 3
    assert len(app.state.bodies) == meter.usage().calls == 2
    assert (meter.usage().tokens_in, meter.usage().tokens_out) == (14, 4)
    known = next(n for n, answer in enumerate(found) if isinstance(answer, list))
    assert asyncio.run(gathered(lm, f"question {known}")) == [[RED]], "the cache knows it"
    assert (meter.usage().asked, len(app.state.bodies)) == (3, 2)


def judged(url: str) -> Task:
    """A task whose metric makes an LM of its own, and asks it once for each answer."""

    def metric(example: dspy.Example, prediction: dspy.Prediction) -> Score:
        (said,) = plain(url)(f"Is {prediction.colour} right for {example.thing}?")
        return Score(float("red" in said))

    return Task(signature=Colour, metric=metric, name="colour", max_tokens=40)


def test_a_metrics_own_lm_is_counted_and_priced_but_is_not_what_an_answer_costs(
    endpoint: tuple[FastAPI, str],
) -> None:
    app, url = endpoint
    meter, task = Meter(100), judged(url)
    count_others(meter)
    with dspy.context(lm=MeteredLM("x", meter=meter, engine=Says(repeat(RED)), local=True)):
        found = evaluate(student(task), rows("blood", "fire", "rose"), Asking(task, threads=2))
    assert found.scores == (1.0,) * 3 and len(app.state.bodies) == 3
    assert (meter.usage().asked, meter.usage().calls, meter.usage().tokens_in) == (6, 6, 3 + 21)
    assert meter.usage().cost_usd and all(
        (o.usage.calls, o.usage.tokens_in, o.usage.cost_usd) == (1, 1, 0.0) for o in found.outcomes
    )
    assert [(o.scoring.calls, o.scoring.tokens_in, o.asked) for o in found.outcomes] == [
        (1, 7, 2)
    ] * 3


def test_the_cap_is_exact_where_a_metric_asks_an_lm_too(endpoint: tuple[FastAPI, str]) -> None:
    app, url = endpoint
    meter, task = Meter(5), judged(url)
    count_others(meter)
    things = rows("blood", "fire", "rose", "ruby", "brick", "cherry")
    with dspy.context(lm=ours(url, meter)), pytest.raises(BudgetExhausted):
        evaluate(student(task), things, Asking(task, threads=3))
    assert len(app.state.bodies) == meter.usage().calls == 5


def test_an_lm_made_anywhere_is_seen_in_any_thread(endpoint: tuple[FastAPI, str]) -> None:
    """A user's own pool knows neither DSPy's settings nor our context."""
    app, url = endpoint
    meter = Meter(3)
    count_others(meter)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(plain(url), f"question {n}") for n in range(8)]
    assert sum(isinstance(one.exception(), BudgetExhausted) for one in asked) == 5
    assert len(app.state.bodies) == meter.usage().calls == 3


@pytest.mark.parametrize("threads", [2, 64])
@pytest.mark.parametrize(("knob", "each"), [("tokens", 10), ("usd", 0.01)])
def test_a_cap_on_tokens_or_money_holds_however_many_are_asked_at_once(
    threads: int, knob: str, each: float
) -> None:
    meter = Meter(10_000, Limits(**{knob: 100 * each}))
    took = {"tokens": {"tokens_in": 8, "tokens_out": 2}, "usd": {"cost": 0.01}}[knob]

    def ask(number: int) -> bool:
        try:
            meter.send(1)
        except BudgetExhausted:
            return False
        sleep(0.02)
        meter.add(0.02)
        meter.spend(**took)
        return True

    sent = sum(in_threads(ask, range(300), threads))
    assert 99 <= sent <= 104, "about a hundred are paid for"


def test_a_call_that_fails_is_counted_as_one(endpoint: tuple[FastAPI, str]) -> None:
    _, url = endpoint
    meter = Meter(9)
    count_others(meter)
    for lm in (ours(url, meter), plain(url)):
        with pytest.raises(dspy.LMError):
            lm("broken")
        (failed,) = asyncio.run(gathered(lm, "broken too"))
        assert isinstance(failed, dspy.LMError)
    usage = meter.usage()
    assert (usage.asked, usage.calls, usage.failed, usage.tokens_in) == (4, 4, 4, 0)


def test_several_answers_to_a_call_count_as_many(endpoint: tuple[FastAPI, str]) -> None:
    app, url = endpoint
    meter = Meter(4)
    lm = ours(url, meter).copy(temperature=1.0)
    assert len(lm("question", n=3)) == meter.usage().calls == len(app.state.bodies) == 3
    with pytest.raises(BudgetExhausted):
        lm("another", n=3)
    assert len(app.state.bodies) == 3, "three do not fit, so none is sent"


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_repeat_asks_every_lm_anew(endpoint: tuple[FastAPI, str], asynchronous: bool) -> None:
    app, url = endpoint
    for time in (0, 1, 1, 2):
        with one_example(time):
            found = asyncio.run(plain(url).acall("Hi")) if asynchronous else plain(url)("Hi")
        assert found == [RED]
    assert len(app.state.bodies) == 3, "and finds its own answer again"
    assert not any("rollout_id" in body for body in app.state.bodies)


def test_a_command_counts_what_a_program_makes_itself(
    endpoint: tuple[FastAPI, str], tmp_path: Path, mood_rows: list[dict[str, Any]]
) -> None:
    _, url = endpoint
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "mood.py").write_text(OWN.format(url=url, model=PRICED))
    (tmp_path / "devsets" / "mood").mkdir(parents=True)
    (tmp_path / "devsets" / "mood" / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in mood_rows)
    )
    config = RunConfig(lm="openai/any", api_base=url, max_calls=2)
    session = open_session(tmp_path, "mood", config, Observer())
    with dspy.context(lm=session.lm), pytest.raises(BudgetExhausted):
        evaluate(student(session.task), session.splits.val, session.asking)
    assert (session.meter.usage().asked, session.meter.usage().calls) == (2, 2)


OWN = """
from typing import Literal

import dspy

from optimize.task import Task


class Mood(dspy.Signature):
    text: str = dspy.InputField()
    mood: Literal["good", "bad"] = dspy.OutputField()


class Asks(dspy.Module):
    def __init__(self, signature):
        super().__init__()
        self.answer = dspy.Predict(signature)
        self.own = dspy.LM("{model}", api_base="{url}", api_key="none")

    def forward(self, text):
        self.own(text)
        return dspy.Prediction(mood="good")


task = Task(signature=Mood, metric=lambda row, answer: float(row.mood == answer.mood), program=Asks)
"""


@pytest.mark.parametrize(
    ("limits", "calls", "expected"),
    [
        (Limits(), 5, "max_calls"),
        (Limits(tokens=50), 100, "max_tokens"),
        (Limits(tokens=5000, usd=0.02), 100, "budget_usd"),
        (Limits(tokens=5000, usd=2.0), 10, "max_calls"),
    ],
)
def test_the_cap_that_ends_a_run_is_the_one_that_is_known(
    limits: Limits, calls: int, expected: str
) -> None:
    meter = Meter(calls, limits)
    assert meter.tightest() == "max_calls", "nothing was asked"
    for n in range(4):
        meter.begin(1, f"question {n}")
        meter.send(1)
        meter.add(0.1, tokens_in=8, tokens_out=2, cost=0.004)
    assert meter.tightest() == expected


def test_what_a_climb_was_planned_with_weighs_like_so_many_calls() -> None:
    """Zero-shot prompts are short: what they took is not what a call with demos takes."""
    meter = Meter(10_000, Limits(tokens=100_000))
    assert meter.remaining() == 10_000, "nobody knows what a call takes"
    meter.expect((1000, 0, 0), 50)
    assert meter.remaining() == 100, "as planned, also where the cache knows all answers"
    for _ in range(50):
        meter.send(1)
        meter.add(0.0, tokens_in=90, tokens_out=10)
    assert meter.remaining() == pytest.approx((100_000 - 5000) / 550, abs=1)


def test_a_call_for_several_answers_is_paid_request_by_request() -> None:
    """A later one may fail, or be one too many."""
    left = [4]

    def answer(text: str) -> str | int:
        left[0] -= 1
        return "fine" if left[0] >= 0 else 400

    app = chat_app(answer)
    with served(app) as url:
        meter = Meter(99)
        with pytest.raises(dspy.LMInvalidRequestError):
            ours(url + "/v1", meter)("Hello?", n=10, temperature=1.0)
        used = meter.usage()
        assert (used.calls, used.failed, used.tokens_in, used.tokens_out) == (5, 1, 4 * 7, 4 * 2)
        left[0], meter = 99, Meter(99, Limits(tokens=20))
        with pytest.raises(BudgetExhausted, match="20 tokens"):
            ours(url + "/v1", meter)("Hello again?", n=10, temperature=1.0)
    assert meter.usage().calls == 3


def test_a_program_streams_through_an_lm_with_a_timeout() -> None:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def stream(request: Request) -> Any:
        def chunk(text: str, end: str | None = None) -> str:
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": end}
            made = {"id": "x", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
            return f"data: {json.dumps(made)}\n\n"

        assert (await request.json())["stream"]
        parts = [*map(chunk, ["[[ ## colour ## ]]\n", "r", "ed", "\n\n[[ ## completed ## ]]"])]
        return StreamingResponse([*parts, chunk("", "stop"), "data: [DONE]\n\n"])

    async def seen(program: dspy.Module) -> list[Any]:
        return [part async for part in dspy.streamify(program)(thing="rose")]

    with served(app) as url:
        meter = Meter(9)
        program = dspy.Predict(Colour)
        program.lm = ours(url + "/v1", meter)
        *_, last = asyncio.run(seen(program))
    assert last.colour == "red" and meter.usage().failed == 0
