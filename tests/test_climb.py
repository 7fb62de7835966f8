"""Every rung once, with DSPy's real optimizers, against a scripted endpoint that is fast,
deterministic and countable.

The endpoint knows a rule that only demos reveal: it repeats the colour that most of the demos in
the prompt carry.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import dspy
import pytest
from fastapi import FastAPI, HTTPException, Request

from optimize import lm as lms
from optimize.climb.attempts import SLACK, baseline, tried_rung
from optimize.climb.climb import Climb, climb
from optimize.climb.observer import Attempt, Observer
from optimize.climb.rungs import LADDER, Context, Rung, Skip, Starved, ladder, on_tuned
from optimize.climb.rungs.base import PASSES, fits, rows_a_set, searched
from optimize.climb.rungs.demos import spread, with_demos, with_fitting
from optimize.climb.rungs.output_format import output_format
from optimize.climb.rungs.sizes import Demand, Size, share
from optimize.climb.setup import Setup
from optimize.config import RunConfig
from optimize.data.judging_rows import lent
from optimize.data.rows import Splits
from optimize.errors import BudgetExhausted, UserCodeError, WorkbenchError
from optimize.lm.meter import Meter
from optimize.program.guide import Guide
from optimize.program.program import Program, student
from optimize.program.retrieval import Passages
from optimize.stats.intervals import Gain
from optimize.task import Score, Task
from tests.test_lm import completion, served

RUNGS = {rung.name: rung for rung in LADDER}
COLOURS = ("red", "green", "blue")


class Paint(dspy.Signature):
    """Which colour?"""

    thing: str = dspy.InputField()
    colour: Literal["red", "green", "blue"] = dspy.OutputField()


def metric(example: dspy.Example, prediction: dspy.Prediction) -> Score:
    return Score(float(example.colour == prediction.colour), f"It is {example.colour}.")


TASK = Task(signature=Paint, metric=metric, name="paint", max_tokens=60)


def example(n: int) -> dspy.Example:
    """The first word gives the colour away to whoever has seen it in a demo."""
    colour = COLOURS[n % 3]
    word = {"red": "brick", "green": "moss", "blue": "ocean"}[colour]
    return dspy.Example(thing=f"{word} sample number {n * 7}", colour=colour).with_inputs("thing")


def filled(schema: str, said: str) -> str:
    """An answer that says so in each field of a JSON schema."""
    names = re.findall(r'"(\w+)": \{"', schema.split('"properties": ', 1)[1])
    return json.dumps(dict.fromkeys(names, said))


def chance(text: str) -> float:
    """A number below 1 that looks drawn."""
    return zlib.crc32(text.encode()) / 2**32


def painter() -> FastAPI:
    app = FastAPI()
    app.state.calls = 0
    app.state.chats = 1.0  # how often it names the fields of DSPy's chat format

    def answer(messages: list[dict[str, str]]) -> str:
        asked = messages[-1]["content"]
        word = next((w for w in ("brick", "moss", "ocean") if w in asked), None)
        if (
            not word
            or len(messages) < 2
            or "sample number" not in asked
            or "proposed" in asked.lower()
        ):
            return "Name the colour of the thing."  # a proposal of an instruction
        if told := re.search(rf"{word}: (\w+)", messages[0]["content"] + asked):
            return told[1]  # from a passage, or the guide
        turns = list(itertools.pairwise(messages))
        shown = Counter(
            colour
            for user, reply in turns
            if user["role"] == "user" and reply["role"] == "assistant" and word in user["content"]
            for colour in COLOURS
            if colour in reply["content"]
        )
        return shown.most_common(1)[0][0] if shown else "red"

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> dict[str, object]:
        body = await request.json()
        app.state.calls += 1
        if "unanswerable" in body["messages"][-1]["content"]:
            raise HTTPException(400, "flagged")
        colour = answer(body["messages"])
        schema = json.dumps(body.get("response_format") or {})
        text = f"[[ ## colour ## ]]\n{colour}\n\n[[ ## completed ## ]]"
        if '"properties"' in schema:
            text = filled(schema, colour)
        elif '"enum"' in schema:
            text = json.dumps(colour)
        elif colour not in COLOURS or chance(str(body["messages"])) >= app.state.chats:
            text = colour
        return completion(body["model"], text)

    return app


@pytest.fixture(scope="module")
def endpoint() -> Iterator[tuple[str, FastAPI]]:
    app = painter()
    with served(app) as url:
        yield url + "/v1", app


@pytest.fixture
def mute(endpoint: tuple[str, FastAPI]) -> Iterator[None]:
    """The LM does not name the fields."""
    endpoint[1].state.chats = 0.0
    yield
    endpoint[1].state.chats = 1.0


@pytest.fixture
def setup(endpoint: tuple[str, FastAPI], tmp_path: Path) -> Iterator[Setup]:
    lms.configure(tmp_path)
    meter = Meter(4000)
    lm = lms.resolve("openai/painter", endpoint[0], RunConfig(), meter, 60)
    rows = [example(n) for n in range(120)]
    splits = Splits(tuple(rows[:72]), tuple(rows[72:96]), tuple(rows[96:]), "digest")
    with dspy.context(lm=lm):
        yield Setup(TASK, splits, lm, meter, target=0.95, threads=4, seed=0)


@pytest.mark.parametrize(
    "rung", [rung for rung in LADDER if not rung.unfit(TASK)], ids=lambda rung: rung.name
)
def test_every_rung_gives_a_program_within_its_share(setup: Setup, rung: Rung) -> None:
    found = climb(setup, [rung], Observer())
    attempt = found.attempts[1]
    assert attempt.evaluation and not attempt.error and not attempt.skipped, attempt
    assert attempt.usage.asked <= setup.meter.max_calls
    if rung.family == "demos":
        assert attempt.evaluation.interval.mean > 0.9, "demos reveal the rule"
        assert found.decision.verdict == "reached" and found.best is attempt
        assert list(found.levers) == [rung.name]


@pytest.mark.parametrize(
    "rung", [rung for rung in LADDER if not rung.unfit(TASK)], ids=lambda rung: rung.name
)
def test_no_rung_is_sized_beyond_its_share(setup: Setup, rung: Rung) -> None:
    """It would be stopped with nothing to show for its calls."""
    train, pulled = tuple(example(n) for n in range(300)), 0
    for budget in (100, 250, 1200):
        search = searched(len(train), budget)
        context = Context(TASK, train, setup.teacher, budget, 1.0, 4, 0, search)
        with contextlib.suppress(Starved), setup.meter.share(int(budget * SLACK)):
            rung.pull(student(TASK), context)
            pulled += 1
    assert pulled >= 2


def test_the_levers_that_won_are_those_up_to_the_best_program(setup: Setup) -> None:
    found = climb(setup, [], Observer())
    base = found.attempts[0]
    gains = {"output_format": 0.1, "nearest_demos": 0.3, "mipro": -0.1}
    tried = [
        replace(base, rung=name, gain=Gain(gain, gain - 0.05, gain + 0.05, 24), promoted=gain > 0)
        for name, gain in gains.items()
    ]
    best = {n: replace(found, attempts=(base, *tried), close=(a,)) for n, a in enumerate(tried)}
    assert best[0].levers == {"output_format": 0.1}
    assert best[1].levers == {"output_format": 0.1, "nearest_demos": 0.3}
    # the best of all may be one that no other was built on
    assert list(best[2].levers) == ["output_format", "nearest_demos", "mipro"]
    assert replace(found, attempts=(base, *tried)).levers == {}


def test_passages_bring_what_is_missing(setup: Setup, tmp_path: Path) -> None:
    corpus = tmp_path / "devsets" / "paint" / "corpus.jsonl"
    corpus.parent.mkdir(parents=True)
    lines = [
        {"id": w, "title": f"a {w} sample", "text": f"{w}: {c}"}
        for w, c in (("brick", "red"), ("moss", "green"), ("ocean", "blue"))
    ]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = climb(
        replace(setup, task=replace(TASK, root=tmp_path)), [RUNGS["passages"]], Observer()
    )
    assert found.decision.verdict == "reached" and list(found.levers) == ["passages"], (
        found.attempts[1]
    )


@pytest.mark.parametrize("filling", [0, 300])
def test_a_written_guide_is_a_lever(setup: Setup, tmp_path: Path, filling: int) -> None:
    """Also one so long that only the rules that fit a row, or a shorter one, have room."""
    path = tmp_path / "devsets" / "paint" / "GUIDE.md"
    path.parent.mkdir(parents=True)
    rules = ["- A brick sample is brick: red", "- A moss sample is moss: green"]
    rules += ["- An ocean sample is ocean: blue"]
    rules += [f"- Whatever has a lid, case {n}: " + "quiet words " * 8 for n in range(filling)]
    path.write_text("\n".join(rules))
    task = replace(TASK, root=tmp_path)
    found = climb(replace(setup, task=task), [RUNGS["guide"]], Observer())
    assert found.decision.verdict == "reached" and list(found.levers) == ["guide"]
    guide = found.best.program and found.best.program.guide
    assert guide and (guide.k > 0 or guide.text != task.guide or not filling)


@pytest.mark.parametrize("rung", ["nearest_demos", "demo_search"])
def test_demos_may_take_the_place_of_a_guide(setup: Setup, rung: str) -> None:
    start = student(TASK)
    start.guide = Guide("- brick: green\n- moss: blue\n- ocean: red")
    context = Context(TASK, setup.splits.train, setup.teacher, 400, 1.0, 4, 0)
    found = RUNGS[rung].pull(start, context)
    assert found.guide is None and start.guide, "it is wrong, and demos say so"


def test_a_format_whose_answers_are_asked_for_twice_is_the_dearer_one(setup: Setup) -> None:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> dict[str, object]:
        """Knows the colours, and puts them into JSON only."""
        body = await request.json()
        schema, asked = (
            json.dumps(body.get("response_format") or {}),
            body["messages"][-1]["content"],
        )
        right = next(example(n).colour for n in range(3) if example(n).thing.split()[0] in asked)
        text = (
            json.dumps({"colour": right})
            if '"properties"' in schema
            else json.dumps("none of them")
        )
        return completion(body["model"], text)

    with (
        served(app) as url,
        dspy.context(lm=lms.resolve("openai/json", url + "/v1", RunConfig(), setup.meter, 60)),
    ):
        context = Context(TASK, setup.splits.train, setup.teacher, 4000, 1.0, 4, 0)
        best = output_format(student(TASK), context)
    assert best.format == "json", (
        "chat has the shorter prompt, but its answers come at the second call"
    )


def test_candidates_that_are_surely_worse_answer_half_of_the_rows_only(setup: Setup) -> None:
    context = Context(TASK, setup.splits.train, setup.teacher, 4000, 1.0, 4, 0)
    pool, search = context.halves()
    bare = [student(TASK) for _ in range(3)]
    taught = with_demos(student(TASK), spread(pool, TASK, 6, random.Random(0)))
    before = setup.meter.usage().asked
    assert context.best([*bare, taught], search) is taught
    assert setup.meter.usage().asked - before == 4 * 12, (
        "the others are surely worse, so nothing is left to compare"
    )


def test_a_rung_sees_train_rows_only(setup: Setup) -> None:
    def spy(program: Program, context: Context) -> Program:
        assert set(vars(context)) == {
            "task",
            "train",
            "teacher",
            "budget",
            "calls",
            "threads",
            "seed",
            "search",
            "embedder",
            "synthetic",
            "right",
            "writes_chat",
        }
        seen.append(context.train)
        return program

    seen: list[tuple[dspy.Example, ...]] = []
    given = replace(setup, splits=replace(setup.splits, given=True))
    for found in (setup, given):
        assert not climb(found, [Rung("spy", "demos", spy)], Observer()).attempts[1].error
    train = set(map(id, setup.splits.train))
    assert len(seen[0]) == len(train) / 2 and set(map(id, seen[0])) < train, "the others judge"
    assert seen[1] == setup.splits.train, "a split of the user's own stands"


def test_a_rung_that_crashes_skips_or_overspends_is_recorded_and_the_climb_goes_on(
    setup: Setup,
) -> None:
    def crash(program: Program, context: Context) -> Program:
        raise RuntimeError("boom")

    def skip(program: Program, context: Context) -> Program:
        raise Skip("not for this task")

    def overspend(program: Program, context: Context) -> Program:
        for n in range(10_000):
            context.teacher(f"question {n}")
        return program

    rungs = [
        Rung("crash", "demos", crash),
        Rung("skip", "format", skip),
        Rung("overspend", "instructions", overspend),
    ]
    seen: list[Attempt] = []

    class Watch(Observer):
        def finished(self, attempt: Attempt) -> None:
            seen.append(attempt)

    small = Setup(setup.task, setup.splits, setup.teacher, Meter(400), 0.95, 4, 0)
    small.teacher.meter = small.meter
    found = climb(small, [*rungs, RUNGS["demo_search"]], Watch())
    assert [a.rung for a in seen] == ["zero_shot", "crash", "skip", "overspend", "demo_search"]
    assert seen[1].error == "RuntimeError: boom" and seen[2].skipped == "not for this task"
    assert found.untried[:2] == ["crash (failed)", "skip (skipped)"]
    assert "more than its share" in seen[3].error and seen[3].usage.asked < 400 * 3 / 4
    assert found.decision.verdict == "reached", "one rung's greed does not starve the next"


@pytest.mark.parametrize(
    "rung", [rung for rung in LADDER if not rung.unfit(TASK)], ids=lambda rung: rung.name
)
def test_a_metrics_bug_inside_a_rung_ends_the_climb(setup: Setup, rung: Rung) -> None:
    """DSPy's optimizers swallow a metric's exceptions; this one comes on train rows alone."""
    train = {e.thing for e in setup.splits.train}

    def buggy(example: dspy.Example, prediction: dspy.Prediction) -> Score:
        return Score(1 / 0) if example.thing in train else metric(example, prediction)

    broken = replace(setup, task=replace(TASK, metric=buggy))
    with pytest.raises(UserCodeError, match=r"test_climb\.py:\d+, in buggy: ZeroDivisionError"):
        climb(broken, [rung], Observer())


def test_a_rung_tells_how_much_of_its_share_it_has_asked_for(setup: Setup) -> None:
    seen: list[tuple[int, int]] = []

    class Watch(Observer):
        def scored(self, done: int, total: int, note: str = "") -> None:
            if "LM calls" in note:
                seen.append((done, total))

    def spend(program: Program, context: Context) -> Program:
        for n in range(5):
            context.teacher(f"progress {n}")
        return program

    climb(setup, [Rung("spend", "demos", spend)], Watch())
    assert [done for done, _ in seen] == [1, 2, 3, 4, 5]
    assert len({total for _, total in seen}) == 1 and seen[0][1] > 5


def test_a_small_cap_goes_to_the_first_rungs_instead_of_to_none(setup: Setup) -> None:
    """Equal shares of what is left would be less than any rung needs."""
    small = Setup(setup.task, setup.splits, setup.teacher, Meter(500), 0.999, 4, 0)
    small.teacher.meter = small.meter
    pulled: list[int] = []

    def spend(program: Program, context: Context) -> Program:
        pulled.append(context.budget)
        for n in range(context.budget):
            context.teacher(f"question {len(pulled)} {n}")
        return program

    climb(small, [Rung(f"rung {n}", "demos", spend) for n in range(12)], Observer())
    need = PASSES * searched(len(setup.splits.train) // 2)  # half of train judges
    whole = [n for n in pulled if n >= need]
    assert len(whole) >= 3 and min(whole) < 1.5 * need, pulled
    assert pulled[: len(whole)] == whole, "those that have too few come last"


def test_a_lever_whose_search_got_no_answers_has_not_been_tried(setup: Setup) -> None:
    """DSPy's optimizers count failed calls as wrong answers, and return what they began with."""

    app = FastAPI()

    @app.post("/v1/chat/completions")
    def refuse() -> None:
        raise HTTPException(400, "no")

    def spend(program: Program, context: Context) -> Program:
        lm = lms.resolve("openai/none", f"{url}/v1", RunConfig(), setup.meter, 40)
        for n in range(8):
            with contextlib.suppress(dspy.LMError):
                lm(f"question {n}")
        return program

    with served(app) as url:
        found = climb(setup, [Rung("search", "demos", spend)], Observer()).attempts[1]
    assert found.error == "8 of 8 calls of its search failed" and not found.evaluation


def test_rungs_that_a_small_cap_starves_end_in_budget_not_in_nothing_left(setup: Setup) -> None:
    reserve = 3 * len(setup.splits.val) + 2 * len(setup.splits.test)
    small = Setup(setup.task, setup.splits, setup.teacher, Meter(reserve), 0.999, 4, 0)
    small.teacher.meter = small.meter
    found = climb(small, LADDER, Observer())
    assert any(a.starved and a.skipped for a in found.attempts)
    assert found.decision.verdict == "budget"


class Noting(Observer):
    """Keeps what it is told in passing."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def noted(self, line: str) -> None:
        self.notes.append(line)


def test_calls_for_second_asking_are_not_kept_from_the_lever_that_ends_it(
    setup: Setup, mute: None
) -> None:
    """An LM that never names the fields is asked twice for each row."""
    reserve = 2 * len(setup.splits.val) + 4 * len(setup.splits.test)
    given = replace(setup.splits, given=True)  # so that no train rows judge
    small = Setup(setup.task, given, setup.teacher, Meter(reserve + 90), 0.999, 4, 0)
    small.teacher.meter = small.meter
    watch = Noting()
    found = climb(small, LADDER, watch)
    (told,) = watch.notes
    assert told.startswith("An answer took 2.0 LM calls, not one")
    formats = next(a for a in found.attempts if a.rung == "output_format")
    assert found.attempts[0].calls == 2
    assert formats.promoted and formats.calls == 1, formats.skipped
    assert small.meter.remaining() >= 3 * len(setup.splits.test), "kept for the test rows"


@pytest.mark.parametrize(("chats", "more"), [(0, 90), (0, 150), (0, 240), (0.3, 140), (0.3, 300)])
def test_no_lever_is_lost_for_answers_that_are_asked_again(
    setup: Setup, mute: None, endpoint: tuple[str, FastAPI], chats: float, more: int
) -> None:
    """However often the LM keeps to chat, and whatever calls there are."""
    endpoint[1].state.chats = chats
    reserve = 2 * len(setup.splits.val) + 4 * len(setup.splits.test)
    given = replace(setup.splits, given=True)
    small = Setup(setup.task, given, setup.teacher, Meter(reserve + more), 2.0, 4, 0)
    small.teacher.meter = small.meter
    found = climb(small, LADDER, Observer())
    assert {a.rung: a.error for a in found.attempts if a.error} == {}
    nearest = next(a for a in found.attempts if a.rung == "nearest_demos")
    assert nearest.evaluation or more == 90, nearest
    needed = (found.attempts[0].calls + found.best.calls) * len(setup.splits.test)
    assert small.meter.remaining() >= needed, "the test rows can be asked"


def test_a_request_made_again_and_answered_is_no_failed_search(setup: Setup) -> None:
    """A rate limit, say."""

    def limited(program: Program, context: Context) -> Program:
        meter = context.teacher.meter
        for n in range(9):
            meter.begin(1, f"question {n}")
            for failed in (1, 1, 0):
                meter.send(1)
                meter.add(0.0, failed=failed)
        return program

    attempt = climb(setup, [Rung("limited", "demos", limited)], Observer()).attempts[1]
    assert attempt.usage.failed == 18 and attempt.evaluation and not attempt.error


@pytest.mark.parametrize(("most", "left"), [(60, False), (1000, True)])
def test_a_lever_that_meets_its_share_is_left_to_be_tried_if_more_calls_would_help(
    setup: Setup, most: int, left: bool
) -> None:
    def greedy(program: Program, context: Context) -> Program:
        for n in range(2 * context.budget):
            context.teacher(f"question {n}")
        return program

    rung = Rung("greedy", "demos", greedy, useful=Size(once=60), most=Size(once=most))
    found = climb(with_left(setup, 240), [rung], Observer())
    assert "more than its share" in found.attempts[1].error
    assert found.attempts[1].starved is left and bool(found.history.rungs_left) is left


def test_larger_searches_come_before_votes(setup: Setup) -> None:
    """Whose program takes several calls an answer, as all that is built on it would."""
    seen: list[int] = []
    val, test = len(setup.splits.val), len(setup.splits.test)
    votes = Rung("votes", "votes", lambda p, c: p, useful=Size(), most=Size(), dearer=2)
    rungs = [greedy("cut", seen), *IDLE, votes]
    found = climb(with_left(setup, 1000 + 2 * val + test), rungs, Observer())
    tried = [a.rung for a in found.attempts]
    assert tried == ["zero_shot", "cut", "idle", "lazy", "slack", "cut_again", "votes"]
    assert found.attempts[-1].evaluation, "the larger search has left its calls"


def test_the_same_seed_gives_the_same_climb(setup: Setup) -> None:
    def told(found: Climb) -> list[tuple[object, ...]]:
        return [
            (a.rung, a.evaluation and a.evaluation.scores, a.gain, a.promoted)
            for a in found.attempts
        ]

    first = climb(setup, LADDER[:2], Observer())
    paid = setup.meter.usage().calls
    again = Meter(4000)
    setup.teacher.meter = again
    second = climb(
        Setup(TASK, setup.splits, setup.teacher, again, 0.95, 4, 0), LADDER[:2], Observer()
    )
    assert told(first) == told(second)
    assert paid > 0 and again.usage().calls == 0 and again.usage().asked > 0, (
        "the second climb came from the cache"
    )


class Asked(dspy.Module):
    """The module asked several times for one answer, and wrong on the things that end as told."""

    def __init__(self, inner: dspy.Module, times: int, wrong: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.inner, self.times, self.wrong = inner, times, wrong

    def forward(self, **inputs: str) -> dspy.Prediction:
        answers = [self.inner(**inputs) for _ in range(self.times)]
        return (
            dspy.Prediction(colour="none") if inputs["thing"].endswith(self.wrong) else answers[-1]
        )


def asked(times: int, *wrong: str) -> Callable[[Program, Context], Program]:
    """A lever whose program asks so often, and is wrong on what ends so."""

    def pull(program: Program, context: Context) -> Program:
        taught = with_demos(student(TASK), spread(context.halves()[0], TASK, 6, random.Random(1)))
        taught.inner = Asked(taught.inner, times, wrong)
        return taught

    return pull


def test_a_cheaper_program_is_built_on_unless_it_loses_something(setup: Setup) -> None:
    """504: one val row of 24, which is more than half a standard error."""
    aimed = replace(setup, target=1.01)
    rungs = [Rung("twice", "demos", asked(2)), Rung("once", "demos", asked(1, " 504"))]
    found = climb(aimed, rungs, Observer())
    _, twice, once = found.attempts
    assert twice.promoted and once.gain and once.gain.mean < 0 and not once.promoted
    assert found.best is twice or found.best.rung == "twice"
    assert [a.rung for a in found.close] == ["twice", "once"] and list(found.levers) == ["twice"]
    level = climb(aimed, [rungs[0], Rung("once", "demos", asked(1))], Observer())
    assert level.attempts[2].promoted and level.best.rung == "once"


def test_programs_that_val_cannot_tell_apart_are_asked_on_more_rows(setup: Setup) -> None:
    """One is wrong on train rows that judge, and right on all val rows: val alone would keep it,
    as it came first.
    """
    _, spare = lent(TASK, setup.splits)
    wrong = tuple(f" {e.thing.split()[-1]}" for e in spare[:8])
    rungs = [Rung("worse", "demos", asked(1, *wrong)), Rung("better", "demos", asked(1))]
    found = climb(replace(setup, target=1.01), rungs, Observer())
    worse, better = found.attempts[1:]
    assert worse.evaluation and better.evaluation
    assert worse.evaluation.scores == better.evaluation.scores
    assert found.best.rung == "better" and found.decision.best.interval.n > len(setup.splits.val)
    assert worse.beyond.missing == 0 and min(worse.beyond.known) == 0.0
    assert found.attempts[0].beyond.outcomes == (), "surely worse on val: asked no more"


def spending(name: str, seen: list[int], useful: int = 48, most: int = 96) -> Rung:
    """A lever that uses what it may, and makes a program of its own at each size."""

    def spend(program: Program, context: Context) -> Program:
        seen.append(context.budget)
        for n in range(context.budget):
            context.teacher(f"{name} {n}")
        made = student(TASK)
        made.predictors()[0].signature = made.predictors()[0].signature.with_instructions(
            f"Name the colour, as {name} would with {min(context.budget, most)}."
        )
        return made

    sizes = Size(once=useful), Size(once=most), Size()
    return Rung(name, "demos", spend, lambda task: "", *sizes)


def with_left(setup: Setup, left: int) -> Setup:
    """So many calls for levers, on a split without rows to spare."""
    given = replace(setup.splits, given=True)
    small = Meter(len(given.val) + 2 * len(given.test) + left)
    setup.teacher.meter = small
    return replace(setup, splits=given, meter=small, target=1.01)


def test_a_rung_starved_by_its_share_comes_again_with_what_the_others_left(setup: Setup) -> None:
    """The cap is not blamed where calls are left in the end."""
    seen: list[int] = []
    own = Rung("modest", "demos", lambda program, context: program, useful=Size(once=150))
    hungry = spending("hungry", seen, useful=250, most=250)
    found = climb(with_left(setup, 290), [hungry, own], Observer())
    assert [a.rung for a in found.attempts] == ["zero_shot", "hungry", "modest"]
    found = climb(with_left(setup, 290), [own, hungry], Observer())
    assert [a.rung for a in found.attempts] == ["zero_shot", "modest", "hungry"]
    assert not found.attempts[2].skipped and found.decision.verdict == "exhausted"


def test_levers_that_are_left_out_cost_nothing_and_are_no_levers_left(setup: Setup) -> None:
    rungs = ladder(setup.splits, [rung.name for rung in LADDER[1:]])
    found = climb(setup, rungs, Observer())
    out = [a for a in found.attempts if "--without" in a.skipped]
    able = [rung for rung in LADDER[1:] if not rung.unfit(setup.task)]
    assert [a.rung for a in out] == [rung.name for rung in able]
    assert all(a.unfit and not a.usage.calls for a in out)
    assert not found.history.rungs_left and not found.untried
    assert found.decision.verdict == "exhausted" and "demos" in found.decision.lacking
    tuned = [rung.name for rung in on_tuned(setup.task)]
    assert "nearest_demos" in tuned
    assert [r.name for r in on_tuned(setup.task, ["nearest_demos"])] == tuned[1:]


def test_a_lever_that_is_begun_has_its_useful_size(setup: Setup) -> None:
    seen: list[int] = []
    rungs = [spending("first", seen, 48, 200), spending("second", seen, 100, 200)]
    found = climb(with_left(setup, 140), rungs, Observer())
    assert seen == [116], "the second one's 124 calls are not there; the first has all"
    assert found.history.rungs_left == 1 and found.decision.verdict == "budget"


def test_calls_that_are_too_few_for_every_lever_go_to_the_first_one(setup: Setup) -> None:
    """It has had no whole try: it counts as left, and nothing is given up."""
    seen: list[int] = []
    rungs = [
        spending("first", seen, 100, 100),
        spending("second", seen, 200, 300),
        spending("third", seen, 150, 150),
    ]
    found = climb(with_left(setup, 200), rungs, Observer())
    assert [a.rung for a in found.attempts] == ["zero_shot", "first", "second"]
    assert seen == [100, 200 - 124 - 24] and found.attempts[2].evaluation
    assert found.history.rungs_left == 2 and found.decision.verdict == "budget"


def greedy(name: str, seen: list[int], enough: int = 300) -> Rung:
    """Makes a program with so many calls, and meets its share with fewer."""

    def pull(program: Program, context: Context) -> Program:
        seen.append(context.budget)
        for n in range(2 * context.budget if context.budget < enough else 0):
            context.teacher(f"{name} {n}")
        made = student(TASK)
        made.predictors()[0].signature = made.predictors()[0].signature.with_instructions(name)
        return made

    return Rung(name, "demos", pull, useful=Size(once=100), most=Size(once=1000))


# levers that could use more than they do
IDLE = [
    Rung(name, "demos", lambda p, c: p, useful=Size(once=100), most=Size(once=1000))
    for name in ("idle", "lazy", "slack")
]


def test_calls_that_are_left_go_to_a_lever_that_had_too_few(setup: Setup) -> None:
    """Once; and it is no second optimizer."""
    seen: list[int] = []
    found = climb(with_left(setup, 1000), [greedy("cut", seen), *IDLE], Observer())
    tried = [a.rung for a in found.attempts]
    assert tried == ["zero_shot", "cut", "idle", "lazy", "slack", "cut_again"]
    assert "more than its share" in found.attempts[1].error and not found.untried
    assert len(seen) == 2 and seen[1] >= 1.5 * seen[0]
    assert found.history.rungs_left == 0
    assert found.decision.verdict == "exhausted" and "instructions" in found.decision.lacking


def test_a_lever_that_had_its_calls_comes_once(setup: Setup) -> None:
    """However many are left: it would mostly find what it has found."""
    found = climb(with_left(setup, 1000), IDLE, Observer())
    assert [a.rung for a in found.attempts] == ["zero_shot", "idle", "lazy", "slack"]


@pytest.mark.parametrize(
    ("last", "left", "expected"),
    [
        (100, 1000, [200, 300, 100]),  # all have what they can use
        (100, 450, [175, 175, 100]),  # the third can use no more: the others have what it leaves
        (200, 300, [150, 150, 0]),  # what is too little for the third is not lost
        (100, 150, [150, 0, 0]),  # one done, not two begun
        (100, 99, [0, 0, 0]),
    ],
)
def test_shares_go_down_the_ladder(last: int, left: int, expected: list[int]) -> None:
    demands = [Demand(100, 200), Demand(100, 300), Demand(last, last)]
    found = []
    for n, demand in enumerate(demands):
        part = share(demands[n:], left)
        found.append(part if part >= demand.useful else 0)
        left -= found[-1]
    assert found == expected


def test_a_good_teacher_is_asked_on_few_rows_a_set() -> None:
    assert rows_a_set(0.0) == rows_a_set(0.1) == 24 and rows_a_set(0.9) == 5


@pytest.mark.parametrize("left", [200, 300])
def test_a_dearer_lever_leaves_the_calls_that_its_test_rows_will_take(
    setup: Setup, left: int
) -> None:
    """24 val and 24 test rows at five calls: 120 to judge it, and 96 more than the incumbent's."""
    first = baseline(setup, Observer())
    once = replace(first, calls=1.0)
    found = tried_rung(setup, RUNGS["votes"], once, setup.splits.train, left, (), Observer())
    assert found.starved is (left == 200) and (found.evaluation is None) is found.starved


def test_a_cap_below_the_baseline_is_told_before_the_climb(setup: Setup) -> None:
    setup.teacher.meter = Meter(5)
    with pytest.raises(WorkbenchError, match="Not even the baseline fits"):
        climb(
            Setup(TASK, setup.splits, setup.teacher, setup.teacher.meter, 0.95, 4, 0),
            LADDER,
            Observer(),
        )


def test_a_row_that_no_call_answers_costs_no_lever(setup: Setup, tmp_path: Path) -> None:
    """Candidates are compared on one row, then two: the first may be the one."""
    context = Context(TASK, setup.splits.train, setup.teacher, 4000, 1.0, 4, 0)
    pool, search = context.halves()
    refused = dspy.Example(thing="unanswerable", colour="red").with_inputs("thing")
    taught = with_demos(student(TASK), spread(pool, TASK, 6, random.Random(0)))
    bare = [student(TASK) for _ in range(15)]
    others = sorted(search, key=lambda e: "brick" in e.thing)  # on which red is right unseen
    assert context.best([*bare, taught], [refused, *others]) is taught


def test_a_lever_that_a_cap_ends_was_not_tried(setup: Setup) -> None:
    """So nothing says that every lever was."""

    def capped(program: Program, context: Context) -> Program:
        raise BudgetExhausted("The cap of 9 minutes is reached (--max-minutes).")

    rungs = [Rung("own", "demos", lambda program, context: program), Rung("c", "demos", capped)]
    found = climb(replace(setup, target=0.999), rungs, Observer())
    assert [a.rung for a in found.attempts] == ["zero_shot", "own", "c"]
    assert found.decision.verdict == "budget" and found.history.rungs_left == 1


def test_levers_that_can_do_nothing_are_not_counted_as_left(setup: Setup) -> None:
    never = [Rung(f"never {n}", "demos", output_format, lambda task: "not for it") for n in "ab"]
    small = replace(setup, meter=Meter(3 * len(setup.splits.val) + 2 * len(setup.splits.test)))
    small.teacher.meter = small.meter
    found = climb(replace(small, target=0.999), [never[0], RUNGS["votes"], never[1]], Observer())
    assert found.decision.verdict == "budget" and found.history.rungs_left == 1


def test_one_row_that_leaves_no_room_shortens_nothing_for_the_others(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, search = Context(TASK, setup.splits.train, setup.teacher, 4000, 1.0, 4, 0).halves()
    long = dspy.Example(thing="brick " * 9000, colour="red").with_inputs("thing")
    demos = [example(n) for n in range(12)]
    assert len(with_fitting(student(TASK), demos, search).predictors()[0].demos) == 12
    assert len(with_fitting(student(TASK), demos, [*search, long]).predictors()[0].demos) == 12


def test_passages_that_leave_no_room_are_no_candidate(setup: Setup, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    long = {"id": "a", "title": "Brick", "text": "brick " * 9000}
    corpus.write_text(json.dumps(long) + "\n")
    _, search = Context(TASK, setup.splits.train, setup.teacher, 4000, 1.0, 4, 0).halves()
    shown = student(TASK)
    shown.use_passages(Passages(1, corpus, None))
    assert fits(student(TASK), search) and not fits(shown, search)
