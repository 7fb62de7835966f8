"""What levers ask and of whom, against a scripted endpoint: it knows the colours as soon as it is
shown rows or an instruction that was proposed, and says "red" before.
"""

from __future__ import annotations

import enum
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import dspy
import pytest
from fastapi import FastAPI, Request

from optimize import lm as lms
from optimize.climb.rungs import LADDER, Context, Starved
from optimize.climb.rungs.base import PASSES, compared_on, searched, steps, unheld
from optimize.climb.rungs.demos import (
    MANY,
    likeliest,
    nearest,
    to_bootstrap,
    with_demos,
    with_nearest,
)
from optimize.climb.rungs.guide import LONG
from optimize.climb.rungs.output_format import output_format
from optimize.climb.rungs.search import (
    candidates,
    distinct,
    instructions,
    proposals,
    with_instructions,
)
from optimize.config import RunConfig
from optimize.errors import ShareExhausted
from optimize.lm.dspy_door import evaluating
from optimize.lm.meter import Meter
from optimize.lm.room import HOSTED_THOUGHT, THOUGHT
from optimize.program.guide import Guide
from optimize.program.program import Program, read_program, render, save, student
from optimize.task import Task
from tests.test_climb import COLOURS, TASK, Paint, example, filled
from tests.test_lm import completion, served

RUNGS = {rung.name: rung for rung in LADDER}
TRAIN = tuple(example(n) for n in range(90))


def knower() -> FastAPI:
    app = FastAPI()
    app.state.proposed, app.state.asked, numbers = [], set(), itertools.count(1)
    app.state.proposes_again = True

    def colour(messages: list[dict[str, str]]) -> str:
        told = len(messages) > 2 or "Advice" in messages[0]["content"]
        word = re.findall(r"(brick|moss|ocean) sample", messages[-1]["content"])[-1]
        return {"brick": "red", "moss": "green", "ocean": "blue"}[word] if told else "red"

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> dict[str, Any]:
        body = await request.json()
        messages, schema = body["messages"], json.dumps(body.get("response_format") or {})
        last = messages[-1]["content"]
        if last.count("sample number") == 1 and "proposed" not in last:
            said = colour(messages)
            app.state.asked |= set(re.findall(r"sample number \d+", last))
        else:
            said = f"Advice {next(numbers)}: name the colour."
            room = body.get("max_tokens") or body.get("max_completion_tokens")
            app.state.proposed.append((body.get("temperature"), room))
        if "attempted_instructions" in last and not app.state.proposes_again:
            return completion(body["model"], "I cannot say.")
        if '"properties"' in schema:
            return completion(body["model"], filled(schema, said))
        asked = re.findall(r"`\[\[ ## (\w+) ## \]\]`", last)
        shown = [f"[[ ## {name} ## ]]\n{said}" for name in asked]
        return completion(body["model"], "\n\n".join(shown) or said)

    return app


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, FastAPI]]:
    app = knower()
    with served(app) as url:
        yield url + "/v1", app


@pytest.fixture
def context(endpoint: tuple[str, FastAPI], tmp_path: Path) -> Iterator[Context]:
    lms.configure(tmp_path)
    endpoint[1].state.proposed.clear()
    lm = lms.resolve("openai/knower", endpoint[0], RunConfig(), Meter(100_000), 60)
    with dspy.context(lm=lm):
        yield Context(TASK, TRAIN, lm, 600, 1.0, 4, 0)


class Chain(dspy.Module):
    """The last of three steps answers."""

    def __init__(self, signature: type[dspy.Signature]) -> None:
        super().__init__()
        for n in range(3):
            told = f"Look {n} at it. Which colour?"
            setattr(self, f"step_{n}", dspy.Predict(Paint.with_instructions(told)))

    def forward(self, thing: str) -> dspy.Prediction:
        return [step(thing=thing) for step in self.predictors()][-1]


def look_up(word: str) -> str:
    """The colour of a word, as the book has it."""
    return word


def of_steps(module: Any) -> Task:
    return replace(TASK, program=module)


AGENT = of_steps(lambda signature: dspy.ReAct(signature, tools=[look_up]))


@pytest.mark.parametrize(("passes", "depth"), [(20, 1), (40, 2), (56, 3)])
def test_copro_counts_what_it_asks_of_a_chain(context: Context, passes: int, depth: int) -> None:
    """At each depth it evaluates the candidates of those before once more, for each step."""
    context = replace(context, task=of_steps(Chain), calls=3.0, budget=3 * passes * 24)
    evaluated: list[int] = []
    share = context.teacher.meter.share(context.budget)
    with evaluating(lambda program, results: evaluated.append(len(results))), share:
        found = RUNGS["copro"].pull(student(context.task), context)
    assert evaluated == [24] * (3 * 3 * depth * (depth + 1) // 2)
    assert "Advice" in render(found, TRAIN[0])


def test_a_chain_has_what_copro_needs_in_the_plan(context: Context) -> None:
    task = of_steps(Chain)
    copro, calls = RUNGS["copro"].priced(task), steps(task)
    needs = copro.searches(24, calls).useful
    context = replace(context, task=task, calls=calls, budget=needs)
    assert RUNGS["copro"].pull(student(task), context)
    less = replace(context, budget=RUNGS["copro"].searches(24, calls).useful)
    with pytest.raises(Starved):
        RUNGS["copro"].pull(student(task), less)


def calls(context: Context, name: str, share: int) -> tuple[int, Program]:
    """How many the lever makes within a share, with nothing in the cache, and what comes of it."""
    meter = context.teacher.meter = Meter(100_000)
    with meter.share(share):
        found = RUNGS[name].pull(student(TASK), context)
    return meter.usage().different, found


@pytest.mark.parametrize("name", ["bootstrapped_demos", "mipro", "gepa", "copro"])
def test_the_best_program_so_far_is_kept_where_a_share_ends(
    context: Context, tmp_path: Path, name: str
) -> None:
    whole, _ = calls(context, name, 10_000)
    lms.configure(tmp_path / "again")
    few, found = calls(context, name, whole * 2 // 3)
    assert few <= whole * 2 // 3, "it was stopped"
    assert render(found, TRAIN[0]) != render(student(TASK), TRAIN[0])
    assert [found(thing=e.thing).colour for e in TRAIN[:3]] == list(COLOURS)


def test_a_proposal_that_nobody_can_read_costs_no_lever(
    context: Context, endpoint: tuple[str, FastAPI]
) -> None:
    endpoint[1].state.proposes_again = False
    try:
        _, found = calls(context, "copro", 10_000)
    finally:
        endpoint[1].state.proposes_again = True
    assert "Advice" in render(found, TRAIN[0])


@pytest.mark.parametrize(("name", "share"), [("simba", 60), ("copro", 30)])
def test_a_share_that_ends_before_any_comparison_leaves_nothing(
    context: Context, name: str, share: int
) -> None:
    with pytest.raises(ShareExhausted):
        calls(context, name, share)


@pytest.mark.parametrize(
    ("name", "heat"), [("gepa", 1.0), ("copro", 1.0), ("demo_search", 1.0), ("mipro", 1.0)]
)
def test_what_proposes_has_room_and_a_temperature_that_all_take(
    context: Context, endpoint: tuple[str, FastAPI], name: str, heat: float
) -> None:
    RUNGS[name].pull(student(TASK), context)
    proposed = endpoint[1].state.proposed
    assert proposed and {room for _, room in proposed} == {4_000}
    assert max(given for given, _ in proposed) == heat


def test_reasoning_keeps_the_rows_that_are_looked_up(context: Context) -> None:
    near = with_nearest(student(TASK), context, 4)
    for shown, budget in ((near, 600), (near, 4 * 24), (near, 10), (student(TASK), 10)):
        found = RUNGS["reasoning"].pull(shown, replace(context, budget=budget))
        assert (found.reasoning, found.neighbours) == (HOSTED_THOUGHT, shown.neighbours)
        asked = render(found, TRAIN[0])
        assert ("sample number" in asked.split("--- user ---")[1]) and "reasoning" in asked
    assert "--- assistant ---" not in asked and "--- assistant ---" in render(near, TRAIN[0])
    context.teacher.local = True
    assert RUNGS["reasoning"].pull(near, context).reasoning == THOUGHT


def test_reasoning_is_a_lever_for_an_lm_that_does_not_think() -> None:
    rung = RUNGS["reasoning"]
    assert rung.why_not(TASK, True) == "the LM reasons by itself" and not rung.why_not(TASK, False)
    assert not any(r.why_not(TASK, True) for r in LADDER if r.family == "instructions")
    known = {
        "openai/o4-mini": True,
        "anthropic/claude-sonnet-4-5": False,  # only if asked to, which nobody does
        "openai/gpt-4.1-mini": False,
        "smol": False,
    }
    assert {name: lms.thinks(name, None) for name in known} == known
    assert lms.thinks("openai/gpt-5", "http://127.0.0.1:9/v1"), "behind a gateway as well"


def test_a_proposal_leaves_an_agent_its_tools_and_is_made_for_each_step(context: Context) -> None:
    # both steps of the agent have one instruction: one answer, from the cache for the second
    for task, count in ((AGENT, 1), (of_steps(Chain), 3)):
        start, own = student(task), replace(context, task=task)
        before = context.teacher.meter.usage().different
        told = next(proposals(start, own, list(TRAIN[:2])))
        assert len(told) == len(start.predictors())
        assert len(set(told)) == count == context.teacher.meter.usage().different - before
        made = with_instructions(start, told)
        for step, said, was in zip(made.predictors(), told, start.predictors(), strict=True):
            assert step.signature.instructions.startswith(said)
            tools = "look_up" in was.signature.instructions
            assert tools is ("look_up" in step.signature.instructions)
        assert [own for _, own, _ in instructions(made)] == list(told), "not the tools"
        again = with_instructions(made, tuple("x" for _ in told)).predictors()[0]
        assert again.signature.instructions.count("You are an Agent") == (task is AGENT)
        assert "Advice" not in again.signature.instructions


def test_an_agent_that_shows_no_rows_has_few_candidates(context: Context) -> None:
    own = replace(context, task=AGENT)
    pool, search = own.halves()
    found = list(itertools.islice(distinct(candidates(student(AGENT), own, pool, search)), 16))
    assert len(found) == len({json.dumps(c.dump_state(), default=str) for c in found}) == 5, (
        "as it is, in two other formats, and told otherwise twice"
    )
    plain = distinct(candidates(student(TASK), context, pool, search))
    assert len(list(itertools.islice(plain, 64))) == 64


@pytest.mark.parametrize(("json_wrong", "best"), [(0, "json"), (2, "json"), (9, "compact")])
def test_the_format_that_does_best_is_taken(context: Context, json_wrong: int, best: str) -> None:
    """Not a shorter one within a standard error of it: compact has three wrong rows. Where JSON is
    wrong, so are the others, which are asked for it once more; chat and XML cost two calls.
    """
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> dict[str, Any]:
        body = await request.json()
        schema, last = json.dumps(body.get("response_format") or {}), body["messages"][-1]
        number = next(n for n, e in enumerate(rows) if e.thing in last["content"])
        as_json = '"properties"' in schema
        wrong = number < json_wrong if as_json else number < 3
        right = rows[number].colour
        said = next(c for c in COLOURS if (c != right) is wrong)
        return completion(body["model"], json.dumps({"colour": said} if as_json else said))

    _, rows = context.halves()
    with served(app) as url:
        lm = lms.resolve("openai/formats", url + "/v1", RunConfig(), Meter(999), 60)
        with dspy.context(lm=lm):
            assert output_format(student(TASK), context).format == best


def test_comparing_takes_what_is_said(context: Context) -> None:
    meter, (_, search) = context.teacher.meter, context.halves()
    for count in (2, 3, 6, 16):
        before = meter.usage().asked
        context.compare([student(TASK) for _ in range(count)], search)
        assert meter.usage().asked - before == compared_on(count, len(search))


@pytest.mark.parametrize(("share", "rows"), [(60, 12), (100, 24)])
def test_a_race_that_its_share_ends_goes_by_its_last_whole_round(
    context: Context, share: int, rows: int
) -> None:
    pool, search = context.halves()
    begun = [with_demos(student(TASK), [e]) for e in pool[:4]]
    with context.teacher.meter.share(share):
        lasting = context.compare(begun, search)
    assert {len(evaluation.outcomes) for _, evaluation in lasting} == {rows}
    assert lasting[0][0] in begun


def test_a_race_of_which_nothing_is_known_chooses_nothing(context: Context) -> None:
    """But for levers whose first program is a try as well."""
    pool, search = context.halves()
    begun = [with_demos(student(TASK), [e]) for e in pool[:4]]
    with context.teacher.meter.share(40), pytest.raises(ShareExhausted):
        context.best(begun, search)
    with context.teacher.meter.share(20):
        assert context.best_or_first(begun[::-1], search) is begun[3]


def test_an_lm_that_never_keeps_to_chat_is_not_asked_in_it(context: Context) -> None:
    begun, rows = student(TASK), context.unheld_rows()
    for format, writes, shown in (
        ("compact", True, {"compact", "chat"}),
        ("compact", False, {"compact"}),
        ("json", False, {"compact", "json"}),
        ("chat", False, {"compact"}),
    ):
        begun.format = format
        found = likeliest(begun, replace(context, writes_chat=writes), 4, rows)
        assert len(found) == 4 and {program.format for program in found} == shown


def test_reasoning_has_a_program_where_its_share_ends(context: Context) -> None:
    few, found = calls(context, "reasoning", 30)
    assert few == 30 and "reasoning" in render(found, TRAIN[0])


def test_a_long_guide_is_shortened_with_what_the_lever_needs(
    context: Context, endpoint: tuple[str, FastAPI], tmp_path: Path
) -> None:
    path = tmp_path / "devsets" / "paint" / "GUIDE.md"
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(f"- Sample {n} is as its word says." for n in range(LONG)))
    task = replace(TASK, root=tmp_path)
    for passes, proposed in ((PASSES, 1), (PASSES - 1, 0)):
        endpoint[1].state.proposed.clear()
        own = replace(context, task=task, budget=passes * 24)
        with context.teacher.meter.share(own.budget):
            RUNGS["guide"].pull(student(task), own)
        assert len(endpoint[1].state.proposed) == proposed


def test_rows_to_bootstrap_show_every_label(context: Context) -> None:
    many = [e.copy(colour=f"colour {n % 40}") for n, e in enumerate(TRAIN * 3)]
    shown = to_bootstrap(many, context)
    assert len(shown) == len({e.colour for e in shown}) == 40 > MANY
    few = to_bootstrap(list(TRAIN), context)
    assert len(few) == 24 and {e.colour for e in few} == set(COLOURS)
    free = replace(TASK, signature=dspy.Signature("thing -> colour"))
    assert len(to_bootstrap(many, replace(context, task=free))) == 24, "without labels"


def test_rules_are_found_by_the_input_not_by_its_passages() -> None:
    program = student(TASK)
    program.guide = Guide("1. A brick is red.\n2. An ocean is blue.", 1)

    signature = Paint.prepend("passages", dspy.InputField(), list[str])
    adapter = program.adapter_for({"thing": "brick"})
    long = ["the ocean is wide, an ocean is deep, an ocean is blue"] * 5
    told = adapter.format(signature, [], {"thing": "a brick", "passages": long})
    assert "A brick is red" in told[-1]["content"] and "2. An ocean" not in told[-1]["content"]


@pytest.mark.parametrize(
    ("format", "shown_in", "cap", "best"),
    [
        ("chat", "compact", 600, "compact"),
        ("compact", "chat", 600, "chat"),
        ("chat", "chat", 600, "chat"),
        ("chat", "compact", 32, "chat"),
    ],
)
def test_the_nearest_rows_are_shown_in_the_format_that_suits_them(
    context: Context, format: str, shown_in: str, cap: int, best: str
) -> None:
    """An LM that reads rows in one format only; without calls to compare on, the present format."""
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> dict[str, Any]:
        body = await request.json()
        messages = body["messages"]
        own = "chat" if "[[ ##" in messages[0]["content"] else "compact"
        word = re.findall(r"(brick|moss|ocean) sample", messages[-1]["content"])[-1]
        said = {"brick": "red", "moss": "green", "ocean": "blue"}[word]
        said = said if own == shown_in and len(messages) > 2 else "red"
        return completion(
            body["model"], said if own == "compact" else f"[[ ## colour ## ]]\n{said}"
        )

    with served(app) as url:
        lm = lms.resolve("openai/formats", url + "/v1", RunConfig(), Meter(999), 60)
        begun = student(TASK)
        begun.format = format
        with dspy.context(lm=lm):
            found = nearest(begun, replace(context, budget=cap))
    assert found.neighbours and found.format == best


@pytest.mark.parametrize(("rows", "compared"), [(21, 21), (30, 24), (90, 24)])
def test_few_train_rows_all_compare_what_shows_none_its_own(
    context: Context,
    endpoint: tuple[str, FastAPI],
    tmp_path: Path,
    rows: int,
    compared: int,
) -> None:
    few = replace(context, train=TRAIN[:rows], search=searched(rows))
    assert len(few.unheld_rows()) == compared == unheld(few.search)
    assert few.unheld_rows()[: few.search] == few.halves()[1], "what others ask comes first"
    shown = with_demos(student(TASK), list(TRAIN[:1]))
    for number, (pull, start, asked) in enumerate(
        (
            (nearest, student(TASK), compared),
            (output_format, student(TASK), compared),
            (output_format, shown, few.search),
        )
    ):
        lms.configure(tmp_path / str(number))
        endpoint[1].state.asked.clear()
        pull(start, few)
        assert len(endpoint[1].state.asked) == asked
    assert RUNGS["nearest_demos"].searches(few.search).most == 5 * compared


def test_a_race_is_sized_by_what_it_asks(context: Context) -> None:
    """Each candidate answers one row at least, so that on three rows 64 of them take 64 calls and
    more, however many passes that is.
    """
    for rows, budget in itertools.product((3, 17, 24, 100), (2, 20, 47, 68, 120, 700)):
        many = replace(context, budget=budget).comparable(rows, 64)
        assert many == 1 or compared_on(many, rows) <= 1.1 * budget
        assert many == 64 or compared_on(2 * many, rows) > 1.1 * budget
    assert replace(context, budget=47).comparable(3, 64) == 32
    assert replace(context, budget=4 * 17).comparable(17, 64) == 8, "four passes, rounded up"


class Shade(enum.Enum):
    LIGHT = "light"
    DARK = "dark"


@pytest.mark.parametrize("show", [with_demos, None])
def test_demos_of_any_type_are_kept_without_the_columns_beside_them(
    context: Context, tmp_path: Path, show: Any
) -> None:
    signature = dspy.Signature(
        "thing: str, seen: datetime.date -> shade: Shade",
        custom_types={
            "Shade": Shade,
            "datetime.date": date,
        },
    )
    own = replace(TASK, signature=signature, root=tmp_path)
    rows = tuple(
        dspy.Example(
            thing=f"thing {n}",
            seen=date(2026, 1, n + 1),
            shade=Shade.DARK,
            cost=Decimal(n),
            raw=b"\xff",
        ).with_inputs("thing", "seen")
        for n in range(9)
    )
    given = replace(context, task=own, train=rows)
    made = show(student(own), list(rows)) if show else with_nearest(student(own), given, 3)
    save(made, tmp_path / "kept.json")
    assert "raw" not in (tmp_path / "kept.json").read_text()
    loaded = read_program(own, tmp_path / "kept.json", lambda name: context.teacher)
    assert render(loaded, rows[0]) == render(made, rows[0])
