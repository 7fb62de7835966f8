"""Models that think though no list says so: known by an answer that was cut in its thoughts, given
room from then on, remembered with the answers; and those that think without end.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
from fastapi import FastAPI, Request

from optimize import lm as lms
from optimize.config import RunConfig
from optimize.errors import LmRefused
from optimize.lm import thinking
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM
from optimize.lm.room import room_of
from optimize.program.program import student
from optimize.scoring.evaluate import Asking, evaluate
from tests.test_lm import colour_task, completion, rows, served

RED = "[[ ## colour ## ]]\nred\n\n[[ ## completed ## ]]"
THINGS = ("blood", "fire", "rose", "ruby", "brick", "cherry", "poppy", "rust", "wine", "mars")


def thinking_app(thoughts: int, said: str, apart: bool = False, context: int = 0) -> FastAPI:
    """A server whose model thinks for so many tokens before it says so, within what a request
    allows. apart: its thoughts come as reasoning_content. context: what /v1/models says, if not 0.
    """
    app = FastAPI()
    app.state.rooms = rooms = []

    @app.get("/v1/models")
    def models() -> Any:
        return {"data": [{"id": "qwen", **({"max_model_len": context} if context else {})}]}

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Any:
        body = await request.json()
        room = body.get("max_tokens") or body["max_completion_tokens"]
        rooms.append(room)
        cut = room < thoughts + 20
        took = min(room, thoughts + 20)
        found = completion(body["model"], "", (50, took))
        found["choices"][0]["finish_reason"] = "length" if cut else "stop"
        message = found["choices"][0]["message"]
        if apart:
            message |= {"content": "" if cut else said, "reasoning_content": "Is it red? " * 9}
        else:
            message["content"] = "<think>\nIs it red?" + ("" if cut else f"\n</think>\n\n{said}")
        return found

    return app


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinking, "_known", {})
    monkeypatch.setattr(thinking, "_ended", {})
    lms.configure(tmp_path)


def ours(url: str, meter: Meter, tokens: int = 40, **knobs: Any) -> MeteredLM:
    config = RunConfig(lm="hosted_vllm/qwen", api_base=url + "/v1", **knobs)
    return lms.task_lm(config, meter, tokens)


@pytest.mark.parametrize("apart", [False, True])
def test_it_is_known_by_its_first_answer_and_has_room_from_then_on(
    apart: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = thinking_app(900, RED, apart)
    with served(app) as url, caplog.at_level(logging.WARNING, "optimize"):
        meter, task, things = Meter(99), colour_task(), rows(*THINGS)
        with dspy.context(lm=ours(url, meter)):
            found = evaluate(student(task), things, Asking(task, threads=1))
        assert found.scores == (1.0,) * 10, "thoughts are no part of the answer"
        assert app.state.rooms == [40] + [16_000] * 10
        usage = meter.usage()
        assert (usage.calls, usage.failed, usage.asked, usage.different) == (11, 1, 10, 10)
        assert usage.tokens_out == 40 + 10 * 920, "what was cut was paid too"
        (said,) = [r.getMessage() for r in caplog.records if "thinks" in r.getMessage()]
        assert "LM qwen thinks" in said and "enable_thinking" in said and "16,000" in said

        thinking._known.clear()  # as in another process
        lms.configure(tmp_path)
        again = Meter(99)
        with dspy.context(lm=ours(url, again)):
            assert evaluate(student(task), things, Asking(task, threads=1)).scores == found.scores
    resumed = again.usage()
    assert (resumed.calls, resumed.cached, resumed.different) == (0, 10, 10)
    assert len(caplog.records) == 1
    assert lms.answer_tokens("hosted_vllm/qwen", url + "/v1", 40) == 16_000
    assert lms.answer_tokens("hosted_vllm/other", url + "/v1", 40) == 40


def test_calls_side_by_side_and_async_ones_are_asked_again_too() -> None:
    app = thinking_app(900, "fine")
    with served(app) as url:
        meter = Meter(99)
        lm = ours(url, meter)

        async def all_of_them() -> list[Any]:
            return await asyncio.gather(*(lm.acall(f"Question {n}?") for n in range(6)))

        said = [lm_said[0] for lm_said in asyncio.run(all_of_them())]
        assert lm.say("One more?") == "fine", "say gives no thoughts"
    assert all(text.endswith("fine") for text in said)
    cut = app.state.rooms.count(40)
    assert 1 <= cut <= 6 and meter.usage().calls == 7 + cut
    assert (meter.usage().asked, meter.usage().different) == (7, 7)


def test_the_cap_holds_for_what_is_asked_again() -> None:
    app = thinking_app(900, "fine")
    with served(app) as url, pytest.raises(BaseException, match="cap of 1 LM calls"):
        ours(url, Meter(1))("Hello?")
    assert len(app.state.rooms) == 1


@pytest.mark.parametrize("apart", [False, True])
def test_thoughts_without_end_are_told_after_a_few_answers(apart: bool) -> None:
    app = thinking_app(10**9, "never", apart)
    with served(app) as url:
        meter, task = Meter(99), colour_task()
        with dspy.context(lm=ours(url, meter)), pytest.raises(LmRefused) as told:
            evaluate(student(task), rows(*THINGS), Asking(task, threads=1))
    said = str(told.value)
    assert "8 of its first 8 answers" in said and "enable_thinking" in said, said
    assert "endpoint-" not in said
    assert app.state.rooms[:9] == [40] + [16_000] * 8 and len(app.state.rooms) <= 10


def test_its_room_is_within_the_servers_context() -> None:
    app = thinking_app(900, "fine", context=8192)
    with served(app) as url:
        lm = ours(url, Meter(9))
        assert room_of(lm).tokens == 8192 - 40 - 1000
        assert lm.say("Hello?") == "fine"
        assert app.state.rooms == [40, 4096] and room_of(lm).tokens == 4096
        assert ours(url, Meter(9), tokens=40).kwargs["max_tokens"] == 4096


def test_an_answer_that_is_short_of_room_is_no_thought() -> None:
    """A plain model's, cut at the task's tokens: kept, cached, and counted as cut."""
    app = thinking_app(900, "x", apart=True)

    @app.middleware("http")
    async def plain(request: Request, go: Callable[..., Any]) -> Any:
        reply = await go(request)
        text = b"".join([part async for part in reply.body_iterator])
        found = json.loads(text)
        for choice in found.get("choices", ()):
            choice["message"] = {"role": "assistant", "content": "The colour of this thing is"}
        return dspy_response(found)

    with served(app) as url:
        meter, task = Meter(99), colour_task()
        for _ in range(2):
            with dspy.context(lm=ours(url, meter)):
                found = evaluate(student(task), rows("blood", "fire"), Asking(task, threads=1))
            assert [o.cut for o in found.outcomes] == [40, 40] and found.scores == (0.0, 0.0)
    assert set(app.state.rooms) == {40} and not lms.thinks("hosted_vllm/qwen", url + "/v1")


def dspy_response(found: Any) -> Any:
    from fastapi.responses import JSONResponse

    return JSONResponse(found)
