"""Several endpoints that serve one LM, over real HTTP: who is asked, what becomes of one that is
slow, dead, silent or too busy, and that nothing of it shows in scores, counts and keys.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dspy
import pytest
from typer.testing import CliRunner

from optimize import lm as lms
from optimize.cli import app
from optimize.commands.new import write_task
from optimize.commands.recheck import asked_lms
from optimize.config import RunConfig, load_config
from optimize.errors import LmRefused, WorkbenchError
from optimize.lm import pool
from optimize.lm.addresses import addresses, check_apart
from optimize.lm.meter import Meter
from optimize.lm.reach import check_reachable
from optimize.program.program import student
from optimize.scoring.evaluate import Asking, evaluate
from optimize.scoring.evaluation import Evaluation
from tests.faulty_server import Asked, faulty_app
from tests.test_lm import colour_task, rows, served

RED = "[[ ## colour ## ]]\nred\n\n[[ ## completed ## ]]"
KEY = "OPTIMIZE_API_KEY"
DEAD = "http://127.0.0.1:9/v1"  # nobody listens


class Fleet:
    """Servers of one LM. faults: what each answers from now on."""

    def __init__(self, *seconds: float) -> None:
        self.faults = [""] * len(seconds)
        self.apps = [faulty_app(lambda text: RED, self._met(n), s) for n, s in enumerate(seconds)]
        self.urls: list[str] = []

    def _met(self, number: int) -> Any:
        return lambda asked: self.faults[number]

    @property
    def logs(self) -> list[list[Asked]]:
        return [one.state.log for one in self.apps]


@pytest.fixture
def fleet() -> Iterator[Any]:
    with ExitStack() as open_ones:

        def start(*seconds: float) -> Fleet:
            found = Fleet(*seconds)
            found.urls = [f"{open_ones.enter_context(served(app))}/v1" for app in found.apps]
            return found

        yield start


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_pools", {})
    lms.configure(tmp_path)


def scored(
    urls: list[str], count: int, threads: int = 12, **knobs: Any
) -> tuple[Evaluation, Meter]:
    """So many rows, each asked once of an LM at these addresses."""
    config = RunConfig(lm="openai/any", api_base=urls, **knobs)
    meter, task = Meter(20 * count), colour_task()
    with dspy.context(lm=lms.task_lm(config, meter, 40)):
        found = evaluate(student(task), rows(*names(count)), Asking(task, threads=threads))
    return found, meter


def names(count: int) -> list[str]:
    return [f"thing {n}" for n in range(count)]


def whole(found: Evaluation) -> bool:
    return found.missing == 0 and set(found.scores) == {1.0}


def test_the_least_busy_is_asked(fleet: Any) -> None:
    three = fleet(0.05, 0.1, 0.3)
    found, meter = scored(three.urls, 120)
    sent = [len(log) for log in three.logs]
    assert whole(found) and sum(sent) == 120 == meter.usage().calls
    assert sent[0] > sent[1] > sent[2] > 0, sent
    assert not meter.usage().failed


def test_answers_are_the_lms_whoever_gave_them(fleet: Any) -> None:
    two, more = fleet(0, 0), fleet(0)
    scored(two.urls, 10)
    found, meter = scored([*more.urls, two.urls[1]], 10)
    assert whole(found) and meter.usage().calls == 0 and not more.logs[0]
    found, meter = scored(more.urls, 10)
    assert meter.usage().calls == 10, "an address alone is told apart, as nobody said whose it is"


def test_one_that_is_dead_from_the_start_costs_a_few_calls(fleet: Any) -> None:
    (good,) = fleet(0.02).urls
    began = time.monotonic()
    found, meter = scored([DEAD, good], 60)
    assert whole(found) and meter.usage().calls - meter.usage().failed == 60
    assert meter.usage().failed < 20 and time.monotonic() - began < 10


def test_one_dies_and_comes_back(fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "FIRST_REST", 0.2)
    two = fleet(0.03, 0.03)

    def break_and_mend() -> None:
        while len(two.logs[0]) < 40:
            time.sleep(0.01)
        two.faults[0] = "hangs up"
        time.sleep(0.6)
        two.faults[0] = ""

    breaking = threading.Thread(target=break_and_mend)
    breaking.start()
    found, meter = scored(two.urls, 600, threads=8)
    breaking.join()
    first, second = two.logs
    bad = [n for n, asked in enumerate(first) if asked.fault]
    assert whole(found) and bad and len(bad) == meter.usage().failed < 30
    assert len(first) - bad[-1] > 5, "it is asked again once it is back"
    assert len(first) + len(second) == meter.usage().calls


def test_one_that_is_always_too_busy_holds_nobody_up(fleet: Any) -> None:
    two = fleet(0.02, 0.02)
    two.faults[0] = "429"
    began = time.monotonic()
    found, meter = scored(two.urls, 200)
    refused = len(two.logs[0])
    assert whole(found) and len(two.logs[1]) == 200
    assert meter.usage().failed == refused < 30 and time.monotonic() - began < 10


def test_one_that_hangs_is_left_out_after_its_timeout(fleet: Any) -> None:
    two = fleet(0.02, 0.02)
    two.faults[0] = "hangs"
    found, meter = scored(two.urls, 200, timeout=3)
    hung, more = len(two.logs[0]), len(two.logs[1]) - 200  # more: on a busy machine, too late too
    assert whole(found) and meter.usage().failed == hung + more and hung <= 16 and more >= 0


def test_where_all_are_dead_that_is_said_and_nothing_waits(fleet: Any) -> None:
    two = fleet(0, 0)
    two.faults = ["500", "500"]
    with pytest.raises(WorkbenchError, match=r"12 of 12 calls failed.*\(at http://127"):
        scored(two.urls, 12)


@pytest.mark.parametrize("fault", ["hangs up", "429", "500"])
def test_async_calls_go_on_elsewhere(fleet: Any, fault: str) -> None:
    import asyncio

    two = fleet(0.01, 0.01)
    two.faults[0] = fault
    meter = Meter(99)
    lm = lms.task_lm(RunConfig(lm="openai/any", api_base=two.urls), meter, 40)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(lm.acall(name) for name in names(20)))

    assert asyncio.run(all_of_them()) == [[RED]] * 20
    assert len(two.logs[1]) == 20 and meter.usage().calls == sum(map(len, two.logs))


def test_each_key_goes_to_its_own_address(
    fleet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = fleet(0, 0, 0)
    monkeypatch.setenv(KEY, "for-all-0123456789")
    monkeypatch.setenv(f"{KEY}_EAST", "for-east-0123456789")
    monkeypatch.setenv("OPENAI_API_KEY", "for-openai-0123456789")
    lines = ["# ours", three.urls[0], "", f"{three.urls[1]}/  {KEY}_EAST  # east", three.urls[2]]
    (tmp_path / "fleet.txt").write_text("\n".join(lines))
    found, _ = scored([f"@{tmp_path / 'fleet.txt'}"], 60, api_key="for-all-0123456789")
    assert whole(found)
    keys = [{asked.key for asked in log} for log in three.logs]
    all_others = {"Bearer for-all-0123456789"}
    assert keys == [all_others, {"Bearer for-east-0123456789"}, all_others]


def test_a_refused_key_names_its_address(fleet: Any) -> None:
    two = fleet(0, 0)
    two.faults[1] = "401"
    with pytest.raises(LmRefused, match=two.urls[1]):
        scored(two.urls, 12)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "holds no address"),
        ("10.0.0.1:8000", r"fleet.txt:1: a line is an address"),
        ("http://a/v1 sk-secret", "A key itself has no place"),
        ("http://a/v1 OPENAI_API_KEY", "OPTIMIZE_API_KEY_ and more"),
        ("http://a/v1 OPTIMIZE_API_KEY_NONE", "is not set in the environment"),
    ],
)
def test_a_bad_file_is_told(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "fleet.txt").write_text(line)
    with pytest.raises(WorkbenchError, match=says) as error:
        addresses(f"@{tmp_path / 'fleet.txt'}")
    assert "sk-secret" not in str(error.value)
    with pytest.raises(WorkbenchError, match="cannot be read"):
        addresses(f"@{tmp_path / 'none.txt'}")


def test_they_are_given_as_flags_as_a_list_or_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    knobs = 'lm = "openai/any"\napi_base = ["http://a/v1", "http://b/v1"]'
    (tmp_path / "optimize.toml").write_text(knobs)
    assert load_config(tmp_path).api_base == "http://a/v1,http://b/v1"
    assert load_config(tmp_path, api_base=["http://c"]).api_base == "http://c"
    monkeypatch.setenv("OPTIMIZE_API_BASE", "http://d,http://e")
    assert load_config(tmp_path).api_base == "http://d,http://e"
    assert [a.url for a in addresses("http://d/, http://e ,http://d")] == ["http://d", "http://e"]


def test_two_groups_of_one_name_are_refused() -> None:
    with pytest.raises(WorkbenchError, match="under another name"):
        check_apart([("openai/a", "http://a,http://b"), ("openai/a", "http://c,http://d")])
    with pytest.raises(WorkbenchError, match="under another name"):
        asked_lms(["openai/a", "openai/a"], ["http://a,http://b", "http://c,http://d"])
    check_apart([("openai/a", "http://a"), ("openai/a", "http://b"), ("openai/b", "http://a,b")])
    assert asked_lms(["openai/a"], ["http://a", "http://b"]) == [("openai/a", "http://a,http://b")]


def test_what_is_down_before_the_first_call_is_told(
    fleet: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (good,) = fleet(0).urls
    check_reachable(RunConfig(lm="openai/any", api_base=[good, DEAD]))
    assert f"Nothing listens at {DEAD}" in caplog.text and "goes on at its other" in caplog.text
    with pytest.raises(WorkbenchError, match="nor at its 1 other address"):
        check_reachable(RunConfig(lm="openai/any", api_base=[DEAD, "http://127.0.0.1:7/v1"]))
    with pytest.raises(WorkbenchError, match="'nonsense'"):
        check_reachable(RunConfig(lm="openai/any", api_base=[good, "nonsense"]))


def told(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, " ".join((done.stdout + done.stderr).split())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "programs").mkdir()
    write_task(tmp_path, "review")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_doctor_asks_each(fleet: Any, project: Path) -> None:
    two = fleet(0, 0)
    listed = ", ".join(f'"{url}"' for url in [*two.urls, DEAD])
    (project / "optimize.toml").write_text(f'lm = "openai/any"\napi_base = [{listed}]\n')
    two.faults[1] = "500"
    _, said = told("doctor")
    assert "answered at 1 of 3 addresses, one question each" in said, said
    assert f"{two.urls[1]} did not answer" in said and f"{DEAD} did not answer" in said
    assert [len(log) for log in two.logs] == [1, 1]


def test_commands_take_several(fleet: Any, project: Path) -> None:
    two = fleet(0, 0)
    flags = ["--lm", "openai/any", *(word for url in two.urls for word in ("--api-base", url))]
    assert told("try", "review", "Works.", *flags)[0] in (0, 1)
    assert told("lm", "ask", "Hello?", *flags) == (0, " ".join(RED.split()))
    assert sum(map(len, two.logs)) >= 2


def test_an_endpoint_that_is_down_for_hours_is_tried_now_and_then() -> None:
    place = pool.Endpoint()
    for n in range(5000):
        place.rest(float(n))
    assert place.until == 4999.0 + pool.LAST_REST
