"""How much an LM of one's own server reads: asked of the server, said by --context, estimated with
care; and what is told of requests that were too long all the same.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse

from optimize import lm as lms
from optimize.commands.new import write_task
from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.lm.addresses import Address
from optimize.lm.meter import Meter
from optimize.lm.room import estimated, room_of
from optimize.lm.served import context_served
from optimize.program.program import student
from optimize.report.record import UsageRecord
from optimize.report.sentences import too_long_sentence
from optimize.scoring.evaluate import Asking, evaluate, race
from optimize.scoring.evaluation import alike
from optimize.scoring.failures import diagnose
from tests.test_cli import optimize
from tests.test_lm import colour_task, completion, rows, served

RED = "[[ ## colour ## ]]\nred\n\n[[ ## completed ## ]]"


def narrow_app(models: Any, props: Any = None, context: int = 10**9) -> FastAPI:
    """A server that says so of its models and its settings, and refuses what is longer, at four
    characters a token.
    """
    app = FastAPI()
    app.state.refused = app.state.asked = app.state.looked = 0

    @app.get("/v1/models")
    def listed() -> Any:
        app.state.looked += 1
        return JSONResponse(models)

    @app.get("/props")
    def settings() -> Any:
        return JSONResponse(props or {})

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Any:
        body = await request.json()
        app.state.asked += 1
        read = sum(len(m["content"]) for m in body["messages"]) // 4
        if read + (body.get("max_tokens") or body["max_completion_tokens"]) > context:
            app.state.refused += 1
            said = f"This model's maximum context length is {context} tokens."
            error = {"message": said, "type": "BadRequestError", "code": 400}  # as vLLM has it
            return JSONResponse({"error": error}, 400)
        return completion(body["model"], RED)

    return app


@pytest.fixture(autouse=True)
def own(tmp_path: Path) -> None:
    lms.configure(tmp_path)


@pytest.mark.parametrize(
    ("models", "props", "tokens"),
    [
        ({"data": [{"id": "qwen", "max_model_len": 4096}]}, None, 4096),  # vLLM, SGLang
        ({"data": [{"id": "a", "max_model_len": 1}, {"id": "qwen", "max_model_len": 9}]}, None, 9),
        ({"data": [{"id": "other", "context_length": 2048}]}, None, 2048),
        (
            {"data": [{"id": "x.gguf", "meta": {"n_ctx_train": 32768}}]},
            {"default_generation_settings": {"n_ctx": 8192}},
            8192,
        ),  # llama.cpp
        ({"data": [{"id": "x.gguf", "meta": {"n_ctx_train": 32768}}]}, None, 32768),
        ({"data": [{"id": "qwen", "max_model_len": "many"}]}, None, None),
        ({"data": [{"id": "qwen"}]}, None, None),
        ({"data": None}, None, None),
        ({"data": 5}, None, None),
        (["no object"], None, None),
    ],
)
def test_a_server_is_asked_how_much_it_reads(models: Any, props: Any, tokens: int | None) -> None:
    app = narrow_app(models, props)
    with served(app) as url:
        place = Address(url + "/v1")
        assert [context_served([place], "qwen") for _ in range(2)] == [tokens] * 2
        assert app.state.looked == 1 and app.state.asked == 0, "once a process, and no LM call"
    assert context_served([Address("http://127.0.0.1:9/v1")], "qwen") is None


def test_what_is_no_such_server_tells_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            one, _ = listening.accept()
            with one:
                one.recv(4096)
                one.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        place = Address(f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
        assert context_served([place], "qwen") is None
        thread.join(10)


def test_the_key_goes_to_no_other_address() -> None:
    app, other = FastAPI(), narrow_app({"data": [{"id": "qwen", "max_model_len": 4096}]})
    with served(other) as elsewhere, served(app) as url:
        app.get("/v1/models")(lambda: RedirectResponse(f"{elsewhere}/v1/models"))
        assert context_served([Address(f"{url}/v1", "sk-secret-0123")], "qwen") is None
    assert other.state.looked == 0


def test_a_prompt_has_what_the_server_or_the_flag_leaves() -> None:
    with served(narrow_app({"data": [{"id": "qwen", "max_model_len": 4096}]})) as url:
        base = {"lm": "openai/qwen", "api_base": url + "/v1"}

        def tokens(**knobs: Any) -> int:
            return room_of(lms.task_lm(RunConfig(**{**base, **knobs}), Meter(9), 96)).tokens

        # less an answer of 96 tokens, and an eighth for reasoning
        assert tokens() == 3488 and tokens(context=1400) == 1129
        assert tokens(context=41_096) == 40_000, "what is asked for is given"
        assert tokens(lm="openai/gpt-4.1", api_base=None, context=1400) == 1129
        assert lms.prompt_tokens(RunConfig(**base, context=1400), 96) == 1129
        other = RunConfig(
            **base, context=1096, teacher="openai/big", teacher_api_base=base["api_base"]
        )
        teacher = lms.teacher_lm(other, Meter(9), 96)
        assert teacher.context == 4096, "--context is the task LM's"
    with served(narrow_app({"data": [{"id": "qwen", "max_model_len": 262_144}]})) as url:
        base = {"lm": "openai/qwen", "api_base": url + "/v1"}
        assert tokens() == 12_000, "each call pays for what it reads"


def test_letters_outside_ascii_are_tokens_of_their_own() -> None:
    assert estimated("a" * 300) == 100 and estimated("顏色" * 150) == 300
    assert estimated("") == 0 and estimated("né") == 2
    room = room_of(dspy.LM("openai/nobody-knows"))
    assert room.fits("a" * 17_000) and not room.fits("色" * 17_000) and room.fits("色" * 5_900)


def test_what_is_too_long_is_counted_and_told_with_its_flag() -> None:
    app = narrow_app({}, context=400)
    with served(app) as url:
        meter, task = Meter(99), colour_task()
        config = RunConfig(lm="openai/qwen", api_base=url + "/v1")
        things = rows("blood", "fire", "rose " * 300, "wine")
        with dspy.context(lm=lms.task_lm(config, meter, 40)):
            found = evaluate(student(task), things, Asking(task, threads=2))
    assert found.scores == (1.0, 1.0, None, 1.0)
    usage = meter.usage()
    assert usage.too_long == usage.failed == app.state.refused == 1, "it is not asked again"
    said = too_long_sentence({r: UsageRecord.of(u) for r, u in meter.by_role().items()})
    assert said.startswith("1 of 4 requests were refused as too long") and "--context" in said
    assert too_long_sentence({}) == ""


def lengthened(folder: Path, more: Callable[[int], str]) -> Path:
    """A project whose rows have more text, by their number."""
    project = folder / "p"
    (project / "programs").mkdir(parents=True)
    write_task(project, "review")
    path = project / "devsets" / "review" / "rows.jsonl"
    made = [json.loads(line) for line in path.read_text().splitlines()]
    longer = [row | {"text": row["text"] + more(n)} for n, row in enumerate(made)]
    path.write_text("\n".join(map(json.dumps, longer)))
    return project


def test_rows_that_no_prompt_brings_in_are_in_no_comparison(tmp_path: Path) -> None:
    """More of them than a verdict may miss: they are counted, and the climb goes on without."""
    project = lengthened(tmp_path, lambda n: f" {n:x}" * (20_000 if n % 8 == 0 else 1))
    flags = ["--lm", "openai/qwen", "--max-calls", "600", "--finetune", "never", "--json"]
    with served(narrow_app({}, context=8000)) as url:
        done = optimize(project, "run", "review", *flags, "--api-base", url + "/v1")
    report = json.loads(done.stdout)
    best, test = report["numbers"]["best"], report["test"]["prompt"]
    val = report["preflight"]["rows"]["val"]
    first = report["attempts"][0]["val"]
    assert first["unread"] > 0.05 * val and first["unread"] + first["n"] == val
    assert best["unread"] >= first["unread"]
    assert best["coverage"] == test["coverage"] == 1.0 and test["unread"] > 0
    tried = [a["rung"] for a in report["attempts"] if a["val"]]
    assert len(tried) > 3, "the climb goes on"
    assert f"{first['unread']} val row" in done.stderr
    page = re.sub(r"\s+", " ", optimize(project, "report", "review", "--details").stdout)
    assert re.search(f"{test['unread']} test rows? (is|are) longer .* in no comparison", page), page


def test_a_row_that_one_prompt_alone_makes_too_long_is_lost_by_that_prompt() -> None:
    task = colour_task()
    short, long = student(task), student(task)
    long.predictors()[0].demos = [dspy.Example(thing="x " * 400, colour="red")]
    texts = "rose", "cherry", "ruby " * 300, "brick " * 2000, "blood"
    asked = [dspy.Example(thing=text, colour="red").with_inputs("thing") for text in texts]
    with served(narrow_app({}, context=700)) as url:
        config = RunConfig(lm="openai/qwen", api_base=url + "/v1")
        with dspy.context(lm=lms.task_lm(config, Meter(99), 40)):
            first = evaluate(short, asked, Asking(task, 2))
            found = race(long, first, asked, Asking(task, 2), lambda calls: -99.0)
            alone = evaluate(long, asked, Asking(task, 2))
    assert (first.scores, first.unread, first.coverage) == ((1.0, 1.0, 1.0, None, 1.0), 1, 1.0)
    assert (found.scores, found.unread, found.answered) == ((1.0, 1.0, 0.0, None, 1.0), 1, 1.0)
    assert alone.unread == 2
    (kind,) = diagnose(long, asked[:1], asked, found.outcomes).kinds
    assert (kind.kind, kind.count) == ("too_long", 1)
    assert alike([alone, first]) == [alone.held_to(first.scores), first]
    assert alike([alone, first])[0].scores == found.scores


def test_rows_that_are_too_long_side_by_side_fail_no_lever() -> None:
    """A race looks at a few rows at a time, of which most may be such ones."""
    task, meter = colour_task(), Meter(99)
    texts = [*("brick " * 2000 for _ in range(12)), *(f"rose {n}" for n in range(16))]
    asked = [dspy.Example(thing=text, colour="red").with_inputs("thing") for text in texts]
    with served(narrow_app({}, context=700)) as url:
        config = RunConfig(lm="openai/qwen", api_base=url + "/v1")
        with dspy.context(lm=lms.task_lm(config, meter, 40)):
            first = evaluate(student(task), asked, Asking(task, 2))
            assert meter.usage().calls == 28, "they are not asked again"
            other = student(task)
            other.predictors()[0].signature = task.signature.with_instructions("Which colour?")
            found = race(other, first, asked, Asking(task, 2), lambda calls: -99.0)
            with pytest.raises(WorkbenchError, match="12 of 12 calls failed"):
                evaluate(other, asked[:12], Asking(task, 2))
    assert (found.unread, found.coverage, found.mean) == (12, 1.0, 1.0)


def test_a_climb_keeps_within_a_servers_context(tmp_path: Path) -> None:
    """Its longest prompts are those with demos, which a guess would make too long."""
    project = lengthened(
        tmp_path, lambda n: "".join(f" w{n * 997 + k * 7919:x}" for k in range(100))
    )
    flags = ["--lm", "openai/qwen", "--max-calls", "400", "--finetune", "never"]
    refused = []
    for models in ({}, {"data": [{"id": "qwen", "max_model_len": 2048}]}):
        app = narrow_app(models, context=2048)
        with served(app) as url:
            done = optimize(project, "run", "review", *flags, "--api-base", url + "/v1")
        said = re.sub(r"\s+", " ", done.stdout)
        assert done.returncode == 1, done.stderr
        told = f"{app.state.refused} of {app.state.asked} requests were refused as too long"
        assert (told in said) == bool(app.state.refused), said
        refused.append(app.state.refused)
    # a prompt for an instruction holds rows, which nobody measures
    assert refused[0] > 50 and refused[1] <= 2
