"""LMs for real: the embedded server, the meter and its cap, the cache's key, foreign endpoints, hub
downloads.
"""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal

import dspy
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response

from optimize import lm as lms
from optimize.config import RunConfig
from optimize.errors import (
    BudgetExhausted,
    LmRefused,
    ShareExhausted,
    StoreFailed,
    WorkbenchError,
)
from optimize.lm import embedded, paid, weights
from optimize.lm.kept import Kept
from optimize.lm.limits import Limits
from optimize.lm.meter import Meter
from optimize.program.program import student
from optimize.scoring.evaluate import Asking, evaluate
from optimize.task import Score, Task


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The app on a free loopback port, stopped at the end."""
    server = uvicorn.Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=1
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=10)


def completion(model: str, text: str, tokens: tuple[int, int] = (7, 2)) -> dict[str, Any]:
    """An endpoint's answer. tokens: in and out."""
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": text},
    }
    usage = {
        "prompt_tokens": tokens[0],
        "completion_tokens": tokens[1],
        "total_tokens": sum(tokens),
    }
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [choice],
        "usage": usage,
    }


def chat_app(answer: Callable[[str], str | int]) -> FastAPI:
    """An OpenAI-compatible endpoint that answers the last message; an int is an error status."""
    app = FastAPI()
    app.state.bodies = []

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Any:
        body = await request.json()
        app.state.bodies.append(body)
        text = answer(body["messages"][-1]["content"])
        if isinstance(text, int):
            return Response(
                json.dumps({"error": {"message": "refused", "type": "invalid_request_error"}}),
                status_code=text,
            )
        return completion(body["model"], text)

    return app


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path) -> None:
    lms.configure(tmp_path)


class Colour(dspy.Signature):
    """Which colour does the thing have?"""

    thing: str = dspy.InputField()
    colour: Literal["red", "green", "blue"] = dspy.OutputField()


def colour_task() -> Task:
    return Task(
        signature=Colour,
        metric=lambda e, p: Score(float(p.colour == e.colour)),
        name="colour",
        max_tokens=40,
    )


def closed_to_other_machines(port: int) -> None:
    """At the address that this machine has for others, nobody answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way, suppress(OSError):
        way.connect(("198.51.100.1", 9))  # sends nothing; chooses an interface
        outward = way.getsockname()[0]
        assert not outward.startswith("127.")
        with socket.socket() as probe:
            assert probe.connect_ex((outward, port)) != 0, f"{outward} answers"


def rows(*things: str) -> list[dspy.Example]:
    return [dspy.Example(thing=t, colour="red").with_inputs("thing") for t in things]


@pytest.mark.lm
def test_the_embedded_server_is_closed_to_others() -> None:
    endpoint = embedded.serve(weights.pull_embedded(print))
    closed_to_other_machines(int(endpoint.url.removesuffix("/v1").rsplit(":", 1)[1]))
    body = json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}).encode()
    headers = {"Content-Type": "application/json", "Origin": "http://evil.example"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(
            urllib.request.Request(endpoint.url + "/chat/completions", body, headers)
        )
    assert refused.value.code == 401
    headers["Authorization"] = f"Bearer {endpoint.key}"
    with urllib.request.urlopen(
        urllib.request.Request(endpoint.url + "/chat/completions", body, headers)
    ) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] not in ("*", "http://evil.example")
    assert embedded.serve(weights.pull_embedded(print)) == endpoint, "one server per process"


@pytest.mark.lm
@pytest.mark.parametrize("name", ["json", "compact"])
def test_schema_constrained_answers_always_parse(name: str) -> None:
    meter = Meter(50)
    lm = lms.task_lm(RunConfig(), meter, max_tokens=40)
    program = student(colour_task())
    program.format = name
    with dspy.context(lm=lm):
        found = evaluate(
            program,
            rows("blood", "grass", "a rainy sky", "a fire engine"),
            Asking(colour_task(), threads=4),
        )
    assert all(o.answer.get("colour") in ("red", "green", "blue") for o in found.outcomes)
    usage = meter.usage()
    assert usage.calls == usage.asked == len(usage.latencies) == 4
    assert usage.tokens_in > 40 and usage.tokens_out > 4 and usage.cost_usd == 0


def test_the_meter_counts_under_threads_and_the_cache_pays_nothing_twice() -> None:
    with served(chat_app(lambda text: text[::-1])) as url:
        meter = Meter(100)
        lm = lms.resolve("openai/any", url + "/v1", RunConfig(), meter, 40)
        with ThreadPoolExecutor(8) as pool:
            first = list(pool.map(lambda n: lm(f"question {n}"), range(40)))
            second = list(pool.map(lambda n: lm(f"question {n}"), range(40)))
    usage = meter.usage()
    assert first == second
    assert (usage.asked, usage.calls, usage.tokens_in, usage.tokens_out) == (80, 40, 280, 80)
    assert usage.cost_usd is None, "a price that is not known is not zero"


def test_the_cap_is_hard_under_threads_and_cached_answers_still_come() -> None:
    app = chat_app(lambda text: "fine")
    with served(app) as url:
        meter = Meter(10)
        lm = lms.resolve("openai/any", url + "/v1", RunConfig(), meter, 40)

        def ask(n: int) -> bool:
            try:
                return bool(lm(f"question {n}"))
            except BudgetExhausted:
                return False

        with ThreadPoolExecutor(8) as pool:
            answered = list(pool.map(ask, range(40)))
        assert sum(answered) == len(app.state.bodies) == 10
        assert ask(answered.index(True)), (
            "an answer that is known costs nothing, also after the cap"
        )


def test_a_rungs_share_is_hard_and_ends_with_it() -> None:
    with served(chat_app(lambda text: "fine")) as url:
        meter = Meter(100)
        lm = lms.resolve("openai/any", url + "/v1", RunConfig(), meter, 40)
        with pytest.raises(ShareExhausted), meter.share(3):
            for n in range(9):
                lm(f"question {n}")
        assert meter.usage().asked == 3
        assert lm("another") == ["fine"]


def test_a_call_counts_once_a_run_whoever_answers_it() -> None:
    with served(chat_app(lambda text: "fine")) as url:

        def run() -> tuple[int, int, int]:
            meter = Meter(10)
            lm = lms.resolve("openai/any", url + "/v1", RunConfig(), meter, 40)
            with meter.share(4):
                for n in (0, 1, 0, 2, 1, 0, 2, 3):
                    lm(f"question {n}")
            with pytest.raises(ShareExhausted), meter.share(1):
                for n in (3, 4, 4, 5):
                    lm(f"question {n}")
            return meter.remaining(), meter.usage().asked, meter.usage().calls

        assert run() == (5, 11, 5)
        assert run() == (5, 11, 0), "from the cache it plans and stops as it did at first"


def test_equal_calls_at_once_are_sent_once() -> None:
    def slow(text: str) -> str:
        time.sleep(0.3)
        return "fine"

    app = chat_app(slow)
    with served(app) as url, ThreadPoolExecutor(8) as pool:
        meter = Meter(2)
        lm = lms.resolve("openai/any", url + "/v1", RunConfig(), meter, 40)
        found = list(pool.map(lm, [f"question {n % 2}" for n in range(8)]))
    assert found == [["fine"]] * 8 and len(app.state.bodies) == 2
    assert (meter.usage().asked, meter.usage().calls, meter.remaining()) == (8, 2, 0)


def test_what_an_optimizer_left_running_in_the_background_spends_no_more() -> None:
    """DSPy's executor does not wait for the jobs it has begun when one of them ends the rung."""
    app = chat_app(lambda text: "fine")
    with served(app) as url:
        meter = Meter(1000)
        lm = lms.resolve("openai/any", url + "/v1", RunConfig(), meter, 40)
        with dspy.context(lm=lm):
            questions = [
                dspy.Example(question=f"question {n}").with_inputs("question") for n in range(200)
            ]
            with pytest.raises(ShareExhausted), meter.share(20):
                dspy.Parallel(num_threads=4, disable_progress_bar=True)(
                    [(dspy.Predict("question -> answer"), q) for q in questions]
                )
            for n in range(30):
                lm(f"what the next rung asks {n}")
        assert meter.usage().asked == len(app.state.bodies) == 20 + 30


def test_a_damaged_cache_is_a_clear_error(tmp_path: Path) -> None:
    damaged = tmp_path / "other" / ".optimize" / "answers.db"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("no database " * 100)
    with pytest.raises(StoreFailed, match=r"answers.db cannot be used: .*move it away"):
        lms.configure(tmp_path / "other")


def test_two_endpoints_with_the_same_model_name_do_not_share_answers() -> None:
    with (
        served(chat_app(lambda text: "first")) as one,
        served(chat_app(lambda text: "second")) as other,
    ):
        answers = [
            lms.resolve("openai/same", url + "/v1", RunConfig(), Meter(9), 40)("Hello?")
            for url in (one, other, one)
        ]
    assert answers == [["first"], ["second"], ["first"]]


def test_a_failed_call_is_missing_and_an_unparsable_answer_is_zero() -> None:
    def answer(text: str) -> str | int:
        return 400 if "broken" in text else "no idea" if "odd" in text else '"red"'

    with served(chat_app(answer)) as url:
        lm = lms.resolve("openai/any", url + "/v1", RunConfig(), Meter(99), 40)
        program = student(colour_task())
        program.format = "compact"
        with dspy.context(lm=lm):
            found = evaluate(
                program,
                rows("blood", "broken", "odd", "fire", "rose"),
                Asking(colour_task(), threads=2),
            )
            assert found.scores == (1.0, None, 0.0, 1.0, 1.0)
            assert (found.interval.n, found.interval.mean, found.missing) == (4, 0.75, 1)
            with pytest.raises(WorkbenchError, match="2 of 3 calls failed"):
                evaluate(
                    program,
                    rows("broken one", "broken two", "fire"),
                    Asking(colour_task(), threads=2),
                )


def test_the_key_of_an_endpoint_is_never_saved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPTIMIZE_API_KEY", "sk-very-secret")
    with served(chat_app(lambda text: '"red"')) as url:
        config = RunConfig()
        lm = lms.resolve("openai/any", url + "/v1", config, Meter(9), 40)
        program = student(colour_task())
        with dspy.context(lm=lm):
            evaluate(program, rows("blood"), Asking(colour_task(), threads=1))
    assert "sk-very-secret" not in repr(config) + config.model_dump_json() + json.dumps(
        program.dump_state()
    )
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"sk-very-secret" not in stored


@pytest.mark.parametrize("name", ["gpt-4o", "gguf:nowhere.gguf", "nothing"])
def test_a_name_that_is_no_lm_says_what_to_use(name: str) -> None:
    with pytest.raises(WorkbenchError, match=r"optimize lm list|DSPy model string"):
        lms.resolve(name, None, RunConfig(), Meter(1), 40)


@pytest.mark.parametrize(
    ("name", "base", "tokens", "temperature"),
    [
        ("openai/gpt-4.1-mini", None, 40, 0.5),
        ("gemini/gemini-2.5-flash", None, 16_000, 0.5),  # its thoughts count as answer
        ("openai/gpt-5-mini", None, 16_000, None),  # and it takes no temperature
        ("openai/gpt-5-mini", "http://127.0.0.1:9/v1", 16_000, None),  # nor behind a gateway
        ("anthropic/claude-sonnet-4-5", None, 40, 0.5),  # thinks only when asked to
        ("anthropic/claude-opus-4-20250514", None, 40, 0.5),
        ("anthropic/claude-opus-4-7", None, 40, None),  # refuses a temperature
        ("anthropic/claude-sonnet-5", None, 40, None),
        ("bedrock/us.anthropic.claude-opus-4-8", None, 40, None),
        ("openrouter/anthropic/claude-opus-4.7", None, 40, None),
        ("openai/claude-opus-5", "http://127.0.0.1:9/v1", 40, None),  # nor behind a gateway
    ],
)
def test_models_that_think_have_the_room_for_it(
    name: str, base: str | None, tokens: int, temperature: float | None
) -> None:
    lm = lms.task_lm(RunConfig(lm=name, api_base=base, temperature=0.5), Meter(9), 40)
    given = lm.kwargs.get("max_tokens") or lm.kwargs["max_completion_tokens"]
    assert (given, lm.kwargs.get("temperature")) == (tokens, temperature)
    assert lms.answer_tokens(name, base, 40) == tokens


@pytest.mark.parametrize(
    ("name", "base", "tokens", "temperature"),
    [
        ("openai/gpt-4.1-mini", None, 4_000, 1.0),
        ("openai/gpt-3.5-turbo", None, 4_000, 1.0),
        ("groq/meta-llama/llama-prompt-guard-2-22m", None, 512, 1.0),  # writes no more
        ("openai/whatever", "http://127.0.0.1:9/v1", 4_000, 1.0),
        ("openai/gpt-5-mini", None, 16_000, None),
        ("gemini/gemini-2.5-flash", None, 16_000, 1.0),
    ],
)
def test_a_hosted_teacher_has_room_for_a_whole_proposal(
    name: str, base: str | None, tokens: int, temperature: float | None
) -> None:
    teacher = lms.teacher_lm(RunConfig(lm=name, api_base=base), Meter(9), 40)
    warm = lms.proposing(teacher, 1.0)
    given = warm.kwargs.get("max_tokens") or warm.kwargs["max_completion_tokens"]
    assert (given, warm.kwargs.get("temperature")) == (tokens, temperature)
    assert warm.role == "teacher" and lms.proposal_tokens(name, base) == tokens
    assert lms.thinks(name, base) is (tokens == 16_000)
    teacher.local = True  # a small one in the process rambles to its limit
    assert lms.proposing(teacher).kwargs == teacher.kwargs


def test_a_call_with_a_room_of_its_own_reaches_a_reasoning_model() -> None:
    """Which is told its room under another name; two of them would be refused."""
    app = chat_app(lambda text: "fine")
    with served(app) as url:
        lm = lms.resolve("openai/gpt-5-mini", url + "/v1", RunConfig(), Meter(9), 40)
        assert lm("Hello?", max_tokens=700) == ["fine"]
    (sent,) = app.state.bodies
    rooms = {sent.get(name) for name in ("max_tokens", "max_completion_tokens")}
    assert rooms - {None} == {16_000} and "temperature" not in sent


def test_a_server_of_ones_own_is_told_the_room_by_the_name_that_all_know() -> None:
    app = chat_app(lambda text: "fine")
    with served(app) as url:
        assert lms.resolve("openai/qwen3", url + "/v1", RunConfig(), Meter(9), 40)("Hi") == ["fine"]
    (sent,) = app.state.bodies
    assert sent["max_tokens"] == 40 and "max_completion_tokens" not in sent


def test_a_claude_that_takes_no_temperature_is_given_none_by_a_call_either() -> None:
    app = chat_app(lambda text: "fine")
    with served(app) as url:
        for name in ("claude-opus-4-7", "claude-opus-4-6"):
            lm = lms.resolve(f"openai/{name}", url + "/v1", RunConfig(), Meter(9), 40)
            assert lm("Hi", temperature=1.0) == ["fine"]
    newer, older = app.state.bodies
    assert "temperature" not in newer and older["temperature"] == 1.0


def test_an_answer_that_dspy_cannot_price_costs_what_the_list_says() -> None:
    told = {"prompt_tokens": 1000, "completion_tokens": 10}
    known = paid.listed_price("openai/gpt-4.1-mini", told)
    assert known == pytest.approx(1000 * 4e-7 + 10 * 1.6e-6)
    for name in ("openai/nobody-knows", "endpoint-0123456789ab/gpt-4.1-mini", "claude-code/opus"):
        assert paid.listed_price(name, told) is None
    assert paid.listed_price("openai/gpt-4.1-mini", {}) is None


def test_a_budget_that_can_no_longer_be_kept_to_ends_the_command() -> None:
    """As where a metric asks an LM of its own, whose price nobody has looked up before."""
    app = chat_app(lambda text: "fine")
    with served(app) as url:
        for limits in (Limits(), Limits(usd=1.0)):
            lm = lms.resolve("openai/any", url + "/v1", RunConfig(), Meter(9, limits), 40)
            ends = pytest.raises(LmRefused, match="costs is not known, so --budget-usd")
            with ends if limits.usd else nullcontext():
                lm(f"Hello, {limits}?")


def test_a_models_thoughts_have_their_room_in_every_call() -> None:
    app = chat_app(lambda text: "fine")
    with served(app) as url:
        lm = lms.resolve("openai/any", url + "/v1", RunConfig(), Meter(9), 9000)
        lm("No thoughts.", max_tokens=700)
        lm.thinking = 9000
        lm.copy()("Thoughts.", max_tokens=700)
    rooms = [body.get("max_tokens") or body["max_completion_tokens"] for body in app.state.bodies]
    assert rooms == [700, 9000]


def test_a_full_cache_loses_its_oldest_tenth_once(tmp_path: Path) -> None:
    """The file does not shrink by that, and must not be taken for full again."""
    path = tmp_path / "kept.db"
    Kept(path).put({f"{n:04}": bytes(1000) for n in range(420)})
    with closing(sqlite3.connect(path)) as file:
        (pages,) = file.execute("PRAGMA page_count").fetchone()
        (each,) = file.execute("PRAGMA page_size").fetchone()
    most = int(0.95 * pages * each)
    assert [Kept(path, most).count() for _ in range(4)] == [378] * 4
