"""`--batch` against a provider of ours: the whole way in the shapes of OpenAI and Anthropic, a
failure and a crash at every step, and nothing that is paid twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from optimize import lm as lms
from optimize.commands import apply as applying
from optimize.commands.applying import batches
from optimize.commands.applying.batches import Batched, InBatches, check_batch
from optimize.config import RunConfig
from optimize.data.stream import Given
from optimize.errors import BudgetExhausted, JobLeft, LmRefused, WorkbenchError
from optimize.lm.batch import box as boxes
from optimize.lm.batch.box import Box, is_out
from optimize.lm.batch.http import Silent
from optimize.lm.limits import Limits
from optimize.lm.meter import Summing
from optimize.lm.metered import MeteredLM
from optimize.program.program import Program, student
from tests.batch_server import BatchServer
from tests.test_apply import given, home, read, rows, server, write  # noqa: F401
from tests.test_lm import colour_task, served

THINGS = ("rose", "leaf", "sky")
COUNT = 12
KEY = "sk-test-0123456789"


def colour(text: str) -> str:
    found = ("red", "green", "blue")[next(n for n, t in enumerate(THINGS) if t in text)]
    return f"[[ ## colour ## ]]\n{found}\n\n[[ ## completed ## ]]"


class Case:
    """One command's view: a program, its post and what was said. `again` is the same command after
    it has ended in whatever way.
    """

    def __init__(self, shape: str, provider: BatchServer, url: str, folder: Path) -> None:
        self.shape, self.provider, self.url, self.folder = shape, provider, url, folder
        self.again()

    def again(self, minutes: float | None = None) -> None:
        self.meter, self.said = Summing(), list[str]()
        self.meter.cap(1000, Limits())
        name = {"openai": "openai/any", "anthropic": "anthropic/claude-haiku-4-5"}[self.shape]
        lm = MeteredLM(name, meter=self.meter, api_key=KEY, api_base=self.url, num_retries=0)
        self.program: Program = student(colour_task())
        self.program.lm = lm
        self.box = Box(self.folder / "out.batch", lambda *told: None, minutes)

    def colours(self, count: int = COUNT) -> list[str]:
        """What became of each row: its colour, or why it has none."""
        source = [Given(f"row {n}", {"thing": f"{THINGS[n % 3]} {n}"}) for n in range(count)]
        way = InBatches(self.program, 4, Batched(self.box, self.meter, self.said.append))
        return [a.error or a.outputs["colour"] for _, a in way(source)]

    def paid(self) -> int:
        """Requests that the provider has answered in batches."""
        return sum(batch.answered for batch in self.provider.batches)


RIGHT = [("red", "green", "blue")[n % 3] for n in range(COUNT)]


@pytest.fixture(params=["openai", "anthropic"])
def case(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Case]:
    for name in ("FIRST_POLL", "LAST_POLL", "FIRST_PAUSE", "LAST_PAUSE"):
        monkeypatch.setattr(boxes, name, 0.001)
    monkeypatch.setattr("optimize.lm.batch.http.FIRST_PAUSE", 0.001)
    monkeypatch.setattr(batches, "FEW", 2)
    monkeypatch.setattr("dspy.cache", None)
    lms.configure(tmp_path)
    provider = BatchServer(colour)
    with served(provider.app) as url:
        yield Case(request.param, provider, f"{url}/v1", tmp_path)


def test_the_whole_way_by_half_the_price(case: Case) -> None:
    assert case.colours() == RIGHT
    assert (len(case.provider.batches), case.provider.direct) == (1, [])
    used = case.meter.usage()
    assert (used.calls, used.tokens_in, used.tokens_out) == (COUNT, 7 * COUNT, 2 * COUNT)
    if case.shape == "anthropic":  # whose price is known
        lm = case.program.lm
        assert lm
        full = lm.copy(cache=False)
        full("rose")
        assert used.cost == pytest.approx((case.meter.usage().cost - used.cost) / 2 * COUNT)
    again = case.provider.log.copy()
    assert case.colours() == RIGHT and case.provider.log == again, "all of it is cached"
    case.box.close()
    assert not list(case.folder.glob("out.batch*"))


@pytest.mark.parametrize("fault", [429, "cut"])
@pytest.mark.parametrize("step", [("POST", "files"), ("GET", "batches"), ("GET", "files")])
def test_what_fails_for_a_while_is_tried_again(
    case: Case, step: tuple[str, str], fault: int | str
) -> None:
    method, path = step
    if case.shape == "anthropic":
        path = "messages"  # looks and results are below it
    if case.shape == "anthropic" and method == "POST":
        fault = 500  # a batch that was not made
    case.provider.fail[method, path] = [fault, fault]
    assert case.colours() == RIGHT
    assert len(case.provider.batches) == 1 and case.paid() == COUNT


@pytest.mark.parametrize("fault", [500, "made"])
def test_a_batch_whose_making_failed_is_looked_for_first(case: Case, fault: int | str) -> None:
    path = "messages" if case.shape == "anthropic" else "batches"
    case.provider.fail["POST", path] = [fault]
    assert case.colours() == RIGHT
    assert len(case.provider.batches) == 1 and case.paid() == COUNT


@pytest.mark.parametrize("answered", [7, 11])
def test_an_expired_batch_keeps_what_came(case: Case, answered: int) -> None:
    case.provider.ends = [("expired", answered)]
    assert case.colours() == RIGHT
    left = COUNT - answered
    direct = left if left <= batches.FEW else 0
    assert len(case.provider.direct) == direct and case.paid() == COUNT - direct
    assert sum("one by one" in line for line in case.said) == bool(direct)


def test_a_batch_that_brings_nothing_ends_the_command(case: Case) -> None:
    case.provider.ends = [("expired", 0)]
    with pytest.raises(WorkbenchError, match="brought no answer"):
        case.colours()
    case.again()
    assert case.colours() == RIGHT and not case.provider.direct


def test_lines_with_errors(case: Case) -> None:
    """One that the provider refuses is the row's error; one it was too busy for is asked again."""
    busy = {"leaf 4": 1, "sky 8": 1}

    def line(text: str) -> int:
        if "rose 3" in text:
            return 400
        name = next((name for name in busy if name in text), "")
        busy[name] = busy.get(name, 0) - 1
        return 529 if name and busy[name] >= 0 else 200

    case.provider.line = line
    found = case.colours()
    assert "line 400" in found[3] and found[:3] + found[4:] == RIGHT[:3] + RIGHT[4:]
    assert len(case.provider.direct) == 2 and len(case.provider.batches) == 1


@pytest.mark.parametrize("step", ["upload", "create", "look", "results"])
def test_the_same_command_after_a_crash_goes_on_with_the_same_batch(
    case: Case, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """As kill -9 does: after the step is done at the provider, before its end is noted here."""

    class Killed(BaseException):
        pass

    with monkeypatch.context() as patch:
        kind = type(
            boxes.provider_of(
                f"{case.url}/{'messages' * (case.shape == 'anthropic')}"
                f"{'chat/completions' * (case.shape == 'openai')}",
                {},
            )
        )
        real: Callable[..., Any] = getattr(kind, step)

        def dies(*given: Any) -> Any:
            found = real(*given)
            if step == "results":
                next(found)
            raise Killed

        patch.setattr(kind, step, dies)
        with pytest.raises(Killed):
            case.colours()
    case.again()
    assert is_out(case.folder / "out.batch"), "so that nothing of it is asked apart"
    assert case.colours() == RIGHT
    assert (len(case.provider.batches), case.paid(), case.provider.direct) == (1, COUNT, [])


def test_a_batch_of_another_account_or_that_is_gone_does_not_stand_in_the_way(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def dies(*given: Any) -> Any:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(boxes.Box, "_collect", dies)
        with pytest.raises(Killed):
            case.colours()
    case.provider.batches.clear()  # as after its last day there
    case.again()
    assert case.colours() == RIGHT and len(case.provider.batches) == 1


def test_a_killed_command_has_lost_no_row_of_a_batch_that_came(case: Case) -> None:
    """Some rows are written when it dies: the batch of those to come is another one, whose requests
    are answered already.
    """
    case.colours()
    (case.folder / ".optimize" / "answers.db").unlink()
    lms.configure(case.folder)
    case.again()
    assert case.colours() == RIGHT and len(case.provider.batches) == 1


def test_ctrl_c_leaves_the_batch_to_the_provider(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(boxes, "wait", stopped)
        with pytest.raises(JobLeft) as left:
            case.colours()
    assert left.value.job == "batch-0"
    case.again()
    assert case.colours() == RIGHT and len(case.provider.batches) == 1
    left.value.cancel()
    assert case.provider.batches[0].ends == "cancelled"


def test_caps(case: Case) -> None:
    case.meter.cap(5, Limits())
    with pytest.raises(BudgetExhausted):
        case.colours()
    assert case.paid() == 5, "no batch holds more than the cap allows"
    case.again(minutes=0.00001)
    with pytest.raises(WorkbenchError, match="--max-minutes"):
        case.colours()
    case.again()
    assert case.colours() == RIGHT and case.paid() == COUNT


def test_what_the_provider_refuses_is_told_in_its_words(case: Case) -> None:
    path = "messages" if case.shape == "anthropic" else "files"
    case.provider.fail["POST", path] = [400, 401]
    with pytest.raises(WorkbenchError, match="refuses a request: it answered 400: no POST"):
        case.colours()
    with pytest.raises(LmRefused, match="refuses the key"):
        case.colours()
    case.provider.fail["POST", path] = [500] * 8
    with pytest.raises(Silent, match="goes on from there"):
        case.colours()
    assert not case.provider.batches and case.colours() == RIGHT


def test_a_batch_that_is_not_taken_is_told(case: Case) -> None:
    if case.shape == "anthropic":
        pytest.skip("its batches do not fail as a whole")
    case.provider.ends = [("failed", 0)]
    with pytest.raises(WorkbenchError, match="failed: Enqueued token limit reached"):
        case.colours()
    assert case.colours() == RIGHT


def test_a_batch_of_too_many_tokens_is_made_smaller(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case.shape == "anthropic":
        pytest.skip("its batches do not fail as a whole")
    monkeypatch.setattr(boxes, "FEWEST", COUNT // 4)
    case.provider.ends = [("failed", 0), ("failed", 0)]
    assert case.colours() == RIGHT
    sizes = [len(batch.requests) for batch in case.provider.batches]
    assert sizes[:3] == [COUNT, COUNT // 2, COUNT // 4] and max(sizes[2:]) == COUNT // 4


def test_no_key_is_kept(case: Case) -> None:
    case.provider.looks = 10**9
    case.again(minutes=0.00001)
    with pytest.raises(WorkbenchError):
        case.colours()
    kept = [path for path in case.folder.rglob("*") if path.is_file()]
    assert kept and not any(KEY.encode() in path.read_bytes() for path in kept)


def test_programs_of_several_calls_and_local_lms_are_refused() -> None:
    program = student(colour_task())
    hosted = RunConfig(lm="openai/any")
    check_batch(program, hosted)
    with pytest.raises(WorkbenchError, match="runs in this process"):
        check_batch(program, RunConfig())
    program.votes = 5
    with pytest.raises(WorkbenchError, match="makes 5 LM calls a row"):
        check_batch(program, hosted)


def test_the_command_asks_a_pilot_and_then_batches(
    server: Any,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.test_apply import verdict

    monkeypatch.setattr(boxes, "FIRST_POLL", 0.001)
    monkeypatch.setattr(applying, "BATCH_PILOT", 4)
    monkeypatch.setattr(batches, "CHUNK", 20)
    provider = BatchServer(verdict)
    write("in.jsonl", rows(50))
    with served(provider.app) as url:
        flags = ["--lm", "openai/any", "--api-base", f"{url}/v1", "--batch", "--json"]
        provider.ends = [("completed", 20), ("failed", 0)]
        failed = given("in.jsonl", "-o", "out.jsonl", *flags, code=2)
        assert "Enqueued token limit" in failed.stderr and len(read("out.jsonl")) == 24
        told = json.loads(given("in.jsonl", "-o", "out.jsonl", *flags).stdout)
    assert (told["answered"], told["resumed"], told["calls"]) == (50, 24, 26)
    assert [row["row_id"] for row in read("out.jsonl")] == [f"r{n}" for n in range(50)]
    assert (len(provider.direct), [len(b.requests) for b in provider.batches]) == (
        4,
        [20, 20, 20, 6],
    )
    assert {path.name for path in Path().iterdir()} == {
        *("in.jsonl", "out.jsonl", "out.jsonl.about.json"),
    }
