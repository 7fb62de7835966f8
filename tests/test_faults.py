"""What a server does to a call, over real HTTP, and what becomes of it: nothing is made up, nothing
is paid that the cap forbids, and no server can hold a command.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import dspy
import pytest
from fastapi import FastAPI

from optimize import lm as lms
from optimize import secrets
from optimize.config import RunConfig
from optimize.errors import BudgetExhausted, LmRefused, StoreFailed, WorkbenchError
from optimize.lm import dspy_calls, faults
from optimize.lm.dspy_door import seconds_asked
from optimize.lm.limits import Limits
from optimize.lm.meter import Meter, Summing
from optimize.lm.metered import MeteredLM, count_others
from optimize.lm.pool import pool_of
from optimize.program.program import student
from optimize.scoring.evaluate import Asking, evaluate
from optimize.secrets import keep_secret, redacted
from optimize.store.open import client
from tests.faulty_server import FAULTS, Asked, faulty_app
from tests.test_cli import optimize
from tests.test_lm import colour_task, rows, served

LASTING = (
    *("401", "403", "wrong key", "too long", "refusal", "held back", "429, in a day", "echo"),
    "echo in the answer",
)
PASSING = [fault for fault in FAULTS if fault not in LASTING]
RED = "[[ ## colour ## ]]\nred\n\n[[ ## completed ## ]]"


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An own cache; waits between attempts as they are, a hundred times as fast."""
    lms.configure(tmp_path)
    delay = faults.delay
    monkeypatch.setattr(dspy_calls.execution, "_delay", lambda e, n: delay(e, n) / 100)


def ours(url: str, meter: Meter, **knobs: object) -> MeteredLM:
    return lms.resolve("openai/any", url + "/v1", RunConfig(**knobs), meter, 40)


def once(fault: str) -> Callable[[Asked], str]:
    """Every question's first request meets the fault."""
    seen: set[str] = set()

    def met(asked: Asked) -> str:
        known = asked.text in seen
        seen.add(asked.text)
        return "" if known else fault

    return met


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_asked_again_counted_and_changes_nothing(fault: str) -> None:
    app = faulty_app(lambda text: "fine", once(fault))
    with served(app) as url:
        meter = Meter(9)
        lm = ours(url, meter)
        assert lm("Hello?") == lm("Hello?") == ["fine"]
    usage = meter.usage()
    assert (len(app.state.log), usage.calls, usage.failed, usage.asked) == (2, 2, 1, 2)
    assert (usage.different, meter.remaining()) == (1, 7)


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_stays_is_missing_and_cached_nowhere(fault: str) -> None:
    state = {"fault": fault}
    app = faulty_app(lambda text: RED, lambda asked: state["fault"] * ("rose" in asked.text))
    with served(app) as url:
        meter, task = Meter(99), colour_task()
        with dspy.context(lm=ours(url, meter)):
            things = rows("blood", "fire", "rose")
            found = evaluate(student(task), things, Asking(task, threads=2))
            assert found.scores == (1.0, 1.0, None) and found.missing == 1
            state["fault"] = ""
            sent = meter.usage().calls
            assert evaluate(student(task), things, Asking(task, threads=2)).scores == (1.0,) * 3
    assert meter.usage().calls == sent + 1, "only what was missing is asked"
    assert len(app.state.log) == meter.usage().calls


@pytest.mark.parametrize(
    ("fault", "said"), [("refusal", "I cannot help with that."), ("held back", "filter")]
)
def test_a_refusal_is_the_programs_score(fault: str, said: str) -> None:
    with served(faulty_app(lambda text: RED, lambda asked: fault)) as url:
        task = colour_task()
        with dspy.context(lm=ours(url, Meter(99))):
            (found,) = evaluate(student(task), rows("rose"), Asking(task, threads=1)).outcomes
    assert found.score == 0.0 and said in str(found.answer)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("You exceeded your current quota. Please retry in 43.5s.", 43.5),  # Google's
        ("Rate limit reached for gpt-4.1. Please try again in 850ms.", 0.85),  # OpenAI's
        ("Please try again in 1m12.5s. Visit …", 72.5),
        ("Please retry after 6 seconds.", 6.0),  # Azure's
        ("Rate limit reached.", 0.0),
    ],
)
def test_a_server_may_say_in_words_when_to_ask_again(said: str, seconds: float) -> None:
    assert seconds_asked(dspy.LMRateLimitError(said, model="m")) == seconds
    told = dspy.LMRateLimitError(said, model="m", retry_after=3)
    assert seconds_asked(told) == 3, "its header goes before"


def test_no_providers_key_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = "tgp-super-secret-0123"
    monkeypatch.setenv("TOGETHERAI_API_KEY", key)
    with served(faulty_app(lambda text: f"My key is {key}.", lambda asked: "")) as url:
        monkeypatch.setenv("TOGETHER_AI_API_BASE", f"{url}/v1")
        lm = lms.resolve("together_ai/any", None, RunConfig(), Meter(9), 40)
        assert lm("Hello?") == ["My key is [key]."]
    assert not [p for p in tmp_path.iterdir() if p.is_file() and key.encode() in p.read_bytes()]


@pytest.mark.parametrize("fault", ["refusal", "held back"])
def test_what_an_answer_is_does_not_hang_on_the_way_to_its_provider(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DSPy asks through LiteLLM where the environment names an address; an address that another
    one is known at answers for itself.
    """
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-nobody-0123")
    said = []
    for answer in ("fine", "well"):
        app = faulty_app(
            lambda text, answer=answer: answer, lambda asked: fault * (asked.text == "no")
        )
        with served(app) as url:
            monkeypatch.setenv("OPENAI_API_BASE", f"{url}/v1")
            lm = lms.resolve("openai/any", None, RunConfig(), Meter(9), 40)
            first = lm("no")
            assert lm("no") == first != [""], "the cache says the same"
            said += lm("yes")
        assert len(app.state.log) == 2
    assert said == ["fine", "well"]


def test_an_embedded_lm_may_say_nothing() -> None:
    with served(faulty_app(lambda text: "", lambda asked: "")) as url:
        lm = ours(url, Meter(9))
        lm.local = True
        assert lm("Hello?") == [""]


@pytest.mark.parametrize("fault", ["500", "empty content"])
def test_the_cap_holds_for_what_is_asked_again(fault: str) -> None:
    app = faulty_app(lambda text: RED, lambda asked: fault)
    with served(app) as url:
        meter, task = Meter(20), colour_task()
        things = rows(*(f"thing {n}" for n in range(40)))
        with dspy.context(lm=ours(url, meter)), pytest.raises(BudgetExhausted):
            evaluate(student(task), things, Asking(task, threads=8))
    assert len(app.state.log) == meter.usage().calls == 20


@pytest.mark.parametrize("fault", ["401", "wrong key"])
def test_a_refused_key_ends_everything_at_once(fault: str) -> None:
    """DSPy's optimizers would count each such call as a wrong answer."""
    app = faulty_app(lambda text: RED, lambda asked: fault)
    with served(app) as url:
        task = colour_task()
        with dspy.context(lm=ours(url, Meter(99))), pytest.raises(LmRefused, match="the key"):
            evaluate(student(task), rows(*map(str, range(40))), Asking(task, threads=4))
    assert len(app.state.log) <= 8, "those in flight"


def test_an_address_that_knows_no_such_model_ends_everything_at_once() -> None:
    with served(FastAPI()) as url:
        task, lm = colour_task(), lms.resolve("openai/x", f"{url}/v2", RunConfig(), Meter(99), 40)
        with dspy.context(lm=lm), pytest.raises(LmRefused, match=r"404.* mostly ends with /v1"):
            evaluate(student(task), rows(*map(str, range(40))), Asking(task, threads=4))


def test_a_server_that_stays_down_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is back before that is asked on."""
    monkeypatch.setattr(faults, "SILENT_SECONDS", 0.3)
    task, down = colour_task(), False
    app = faulty_app(lambda text: RED, lambda asked: "500" * down)
    with served(app) as url:
        lm = lms.resolve("openai/down", url + "/v1", RunConfig(), Meter(999), 40)
        with dspy.context(lm=lm):
            assert evaluate(student(task), rows("rose"), Asking(task, 4)).scores == (1.0,)
            down = True
            some = rows(*(f"red {n}" for n in range(10)))
            with pytest.raises(WorkbenchError, match="10 of 10 calls failed"):
                evaluate(student(task), some, Asking(task, 4))
            down = False
            assert evaluate(student(task), some, Asking(task, 4)).scores == (1.0,) * 10
            down, more = True, rows(*(f"crimson {n}" for n in range(200)))
            with pytest.raises(LmRefused, match=r"has answered none of .* same command goes on"):
                evaluate(student(task), more, Asking(task, 4))
    assert len(app.state.log) < 400, "the others are not asked any more"


def test_a_text_that_a_gateway_forbids_is_missing_and_the_others_go_on() -> None:
    app = faulty_app(lambda text: RED, lambda asked: "403" * ("rose" in asked.text))
    with served(app) as url:
        task = colour_task()
        lm = lms.resolve("openai/guarded", url + "/v1", RunConfig(), Meter(99), 40)
        with dspy.context(lm=lm), pytest.raises(LmRefused, match="flagged"):
            evaluate(student(task), rows("rose"), Asking(task, threads=1))  # it has never answered
        with dspy.context(lm=lm):
            found = evaluate(student(task), rows("fire", "rose", "blood"), Asking(task, threads=1))
    assert found.scores == (1.0, None, 1.0)


def test_equal_calls_that_are_not_kept_are_answered_side_by_side() -> None:
    """As in a service, where nobody would find the first one's answer."""
    app = faulty_app(lambda text: "fine", lambda asked: "", seconds=0.5)
    with served(app) as url, ThreadPoolExecutor(8) as threads:
        lm = ours(url, Meter(9))
        dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
        start = time.monotonic()
        assert list(threads.map(lm, ["hello"] * 8)) == [["fine"]] * 8
    assert len(app.state.log) == 8 and time.monotonic() - start < 3.5


def test_a_program_in_use_is_told_of_a_refused_key_by_dspys_own_error() -> None:
    """A service catches Exceptions; a BaseException would end its threads."""
    app = faulty_app(lambda text: RED, lambda asked: "401")
    with served(app) as url, pytest.raises(dspy.LMAuthError):
        ours(url, Summing())("Hello?")


def test_a_server_that_wants_to_be_asked_tomorrow_is_not_waited_for() -> None:
    state = {"fault": "429, in a day"}
    app = faulty_app(lambda text: RED, lambda asked: state["fault"])
    with served(app) as url:
        with pytest.raises(dspy.LMRateLimitError):
            ours(url, Meter(99))("Hello?")
        state["fault"], start = "", time.monotonic()
        assert ours(url, Meter(99))("Hello?") == [RED] and time.monotonic() - start < 5
    assert len(app.state.log) == 2


@pytest.mark.parametrize("fault", ["hangs", "drips"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_call_that_hangs_is_given_up_and_made_again(fault: str, asynchronous: bool) -> None:
    """Also where the server keeps the connection alive with a byte now and then."""
    app, meter = faulty_app(lambda text: "fine", once(fault)), Meter(9)
    with served(app) as url:
        start, lm = time.monotonic(), ours(url, meter, timeout=1)
        found = asyncio.run(lm.acall("Hello?")) if asynchronous else lm("Hello?")
        assert found == ["fine"] and time.monotonic() - start < 6
    assert (meter.usage().calls, meter.usage().failed) == (2, 1) and len(app.state.log) == 2


@pytest.mark.parametrize("fault", ["hangs", "drips"])
def test_a_cap_on_minutes_ends_a_request_under_way(fault: str) -> None:
    app, meter = faulty_app(lambda text: "fine", lambda asked: fault), Meter(9)
    meter.limits = Limits(minutes=2 / 60)
    with served(app) as url:
        start = time.monotonic()
        with pytest.raises(BudgetExhausted, match="max-minutes"):
            ours(url, meter, timeout=60)("Hello?")
        assert time.monotonic() - start < 6
    assert len(app.state.log) == 1


def test_the_key_of_a_metrics_own_lm_is_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    """A server echoes it in an answer, and in an error."""
    key = "sk-canary-of-a-metric-123"
    for fault in ("echo in the answer", "echo"):
        with served(faulty_app(lambda text: RED, lambda asked, f=fault: f)) as url:
            judge = dspy.LM("openai/judge", api_base=f"{url}/v1", api_key=key)
            count_others(Meter(9))
            try:
                said = str(judge("Is it red?"))
            except dspy.LMError as error:
                said = str(error)
            finally:
                count_others(None)
        assert key not in said and "[key]" in said
    assert key not in "".join(capfd.readouterr())


def test_more_time_for_a_call_does_not_ask_it_again() -> None:
    app = faulty_app(lambda text: "fine", lambda asked: "")
    with served(app) as url:
        for seconds in (5, 50):
            assert ours(url, Meter(9), timeout=seconds)("Hello?") == ["fine"]
    assert len(app.state.log) == 1


def test_answers_are_plain_data(tmp_path: Path) -> None:
    """A pickle in a project that somebody shares does not run."""
    with served(faulty_app(lambda text: "fine", lambda asked: "")) as url:
        lm = ours(url, Meter(9))
        lm("Hello?")
        (file,) = (tmp_path / ".optimize").glob("answers.db")
        evil = b"cposix\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR."
        kept = dspy.cache.kept
        kept._do(lambda f: f.execute("UPDATE kept SET value = ?", (evil,)))
        with pytest.raises(StoreFailed, match="is damaged"):
            lm("Hello?")
    assert file.is_file() and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "value", [b"5", b"null", b"[]", b'{"choices": []}', b'{"_dspy_format": "x"}', None]
)
def test_what_is_json_and_no_answer_is_no_lm_that_says_nothing(value: bytes | None) -> None:
    with served(faulty_app(lambda text: "fine", lambda asked: "")) as url:
        lm = ours(url, Meter(9))
        lm("Hello?")
        dspy.cache.kept._do(lambda f: f.execute("UPDATE kept SET value = ?", (value,)))
        with pytest.raises(StoreFailed, match="is damaged"):
            lm("Hello?")


def test_of_two_keys_the_longer_one_is_hidden_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_keys", set())
    for key in ("sk-proj-AAAA", *(f"sk-proj-AAAA-{n}-TAIL" for n in range(20))):
        keep_secret(key)
    assert redacted("Bearer sk-proj-AAAA-7-TAIL") == "Bearer [key]"


def test_many_threads_need_few_files() -> None:
    app = faulty_app(lambda text: RED, lambda asked: "", seconds=0.02)
    with served(app) as url:
        task, lm = colour_task(), ours(url, Meter(999))
        before = len(os.listdir("/proc/self/fd"))
        most = 0

        def watched(done: int, total: int) -> None:
            nonlocal most
            most = max(most, len(os.listdir("/proc/self/fd")))

        with dspy.context(lm=lm):
            for part in range(4):
                things = rows(*(f"thing {part} {n}" for n in range(64)))
                evaluate(student(task), things, Asking(task, threads=16, progress=watched))
    # of each of 16 connections this process holds both ends
    assert most - before < 60


@pytest.fixture
def silent() -> Iterator[tuple[dict[str, str], str]]:
    """Answers that every review is positive, or does as `fault` says."""
    state = {"fault": ""}
    text = "[[ ## verdict ## ]]\npositive\n\n[[ ## completed ## ]]"
    with served(faulty_app(lambda asked: text, lambda asked: state["fault"])) as url:
        yield state, url + "/v1"


@pytest.mark.parametrize("fault", ["echo", "echo in the answer", "401"])
def test_a_key_that_a_server_echoes_is_written_nowhere(
    project: Path, silent: tuple[dict[str, str], str], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, url = silent
    state["fault"] = fault
    monkeypatch.setenv("OPTIMIZE_API_KEY", "sk-canary-0123456789")
    flags = ["--lm", "openai/any", "--api-base", url, "--finetune", "never", "--max-calls", "60"]
    done = optimize(project, "run", "review", *flags, "--debug")
    assert "canary" not in done.stdout + done.stderr.replace("OPTIMIZE_API_KEY", "")
    written = [p for p in project.rglob("*") if p.is_file()]
    assert len(written) > 5 and not [p for p in written if b"canary" in p.read_bytes()]


def test_a_silent_server_is_no_plateau_and_spoils_no_later_run(
    project: Path, silent: tuple[dict[str, str], str]
) -> None:
    state, url = silent
    flags = ["--lm", "openai/any", "--api-base", url, "--finetune", "never", "--max-calls", "60"]
    state["fault"] = "empty content"
    done = optimize(project, "run", "review", *flags, "--threads", "16")
    assert done.returncode == 2 and "calls failed, so there is no score" in done.stderr
    assert "PLATEAU" not in done.stdout and "Traceback" not in done.stderr
    state["fault"] = ""
    done = optimize(project, "run", "review", *flags, "--target", "0.05")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no way to interrupt one process")
def test_one_signal_ends_a_command_whatever_hangs(
    project: Path, silent: tuple[dict[str, str], str]
) -> None:
    """SIGTERM and SIGHUP: test_next.py, while it waits."""
    state, url = silent
    state["fault"] = "hangs"
    command = [sys.executable, "-m", "optimize", "run", "review", "--lm", "openai/any"]
    running = subprocess.Popen(
        [*command, "--api-base", url], cwd=project, stderr=subprocess.PIPE, text=True
    )
    assert running.stderr
    for line in running.stderr:  # its first calls are on the way
        if line.startswith("zero_shot"):
            break
    time.sleep(1)
    start = time.monotonic()
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=180)[1]
    assert running.returncode == 130 and "Stopped." in said
    assert time.monotonic() - start < 3
    store = client(project)
    (experiment,) = [e for e in store.search_experiments() if e.name == "review"]
    assert [r.info.status for r in store.search_runs([experiment.experiment_id])] == ["KILLED"]


def test_two_runs_of_one_task_at_once_ask_nothing_twice(
    project: Path, silent: tuple[dict[str, str], str]
) -> None:
    flags = ["--lm", "openai/any", "--api-base", silent[1], "--finetune", "never", "--json"]
    command = [sys.executable, "-m", "optimize", "run", "review", *flags, "--max-calls", "40"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    both = [subprocess.Popen(command, cwd=project, text=True, **quiet) for _ in range(2)]
    reports = [json.loads(running.communicate(timeout=120)[0]) for running in both]
    assert [running.returncode for running in both] == [1, 1]
    assert sorted(report["lm_calls"] > 0 for report in reports) == [False, True]
    assert reports[0]["attempts"][0]["val"] == reports[1]["attempts"][0]["val"]
    asked = max((report["roles"]["task"] for report in reports), key=lambda used: used["calls"])
    assert asked["calls"] == max(r["lm_calls"] for r in reports) and asked["tokens_in"] > 0


def test_a_cap_that_cannot_pay_for_the_rows_is_told_before_any_call(
    project: Path, silent: tuple[dict[str, str], str]
) -> None:
    flags = ["--lm", "openai/any", "--api-base", silent[1], "--max-calls", "20"]
    done = optimize(project, "run", "review", *flags)
    assert done.returncode == 2 and "take 32 calls" in done.stderr
    assert not (project / "mlruns").exists()


def test_the_cache_is_shown_and_cleared(project: Path, silent: tuple[dict[str, str], str]) -> None:
    def shown(*flags: str) -> list[str]:
        done = optimize(project, "cache", *flags)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert "answers.db: 0 answers" in shown()[0]
    for n in range(3):
        ours(silent[1].removesuffix("/v1"), Meter(9))(f"question {n}")
    assert "answers.db: 3 answers, 0." in shown()[0]
    assert shown("--clear")[1].endswith("cleared") and "answers.db: 0 answers" in shown()[0]


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(tokens=90), "The cap of 90 tokens is reached .--max-tokens"),
        (Limits(usd=1e-5), "US dollars is reached .--budget-usd"),
        (Limits(minutes=0.005), "minutes is reached .--max-minutes"),
    ],
)
def test_no_call_is_sent_beyond_a_cap(limits: Limits, said: str) -> None:
    """Nine tokens a call."""
    app = faulty_app(lambda text: RED, lambda asked: "", seconds=0.05)
    with served(app) as url:
        meter, task = Meter(999, limits), colour_task()
        count_others(meter)
        priced = dspy.LM("openai/gpt-4.1-mini", api_base=f"{url}/v1", api_key="none")
        things = rows(*(f"thing {n}" for n in range(80)))
        with dspy.context(lm=priced), pytest.raises(BudgetExhausted, match=said):
            evaluate(student(task), things, Asking(task, threads=2))
    sent = len(app.state.log)
    assert sent == meter.usage().calls < 60 and meter.remaining() == 0
    if limits.tokens:
        assert 10 <= sent <= 11, "those in flight are let through"


def test_what_is_left_is_told_in_calls() -> None:
    meter = Meter(100, Limits(tokens=90))
    assert meter.remaining() == 100, "before the first call nobody knows what one takes"
    meter.begin(1, "a")
    meter.send(1)
    meter.add(0.1)
    meter.spend(tokens_in=8, tokens_out=1)
    assert meter.remaining() == 9
    assert meter.remaining(2, (45, 0, 0)) == 4, "half of the tokens are kept for a dearer program"
    assert meter.remaining(97) == 2


def test_minutes_of_a_training_are_spent_but_are_not_those_of_calls() -> None:
    meter, start = Meter(100_000, Limits(minutes=1)), time.monotonic()
    for _ in range(10):
        meter.send(1)
        time.sleep(0.02)
        meter.add(0.02)
    asking = time.monotonic() - start
    with meter.idle():
        time.sleep(0.6)
    spent = time.monotonic() - start
    assert meter.remaining() == pytest.approx((60 - spent) * 10 / asking, rel=0.2)
    assert meter.average()[2] * 60 == pytest.approx(asking / 10, rel=0.3)


def test_rows_beyond_a_cap_are_missing_where_that_is_wanted(tmp_path: Path) -> None:
    app = faulty_app(lambda text: RED, lambda asked: "")
    things, asking = rows(*(f"thing {n}" for n in range(20))), Asking(colour_task(), threads=1)
    with served(app) as url:
        with dspy.context(lm=ours(url, Meter(8))), pytest.raises(BudgetExhausted):
            evaluate(student(colour_task()), things, asking)
        known = replace(asking, to_the_cap=True)
        lms.configure(tmp_path / "fresh")
        with dspy.context(lm=ours(url, Meter(8))):
            found = evaluate(student(colour_task()), things, known)
        lms.configure(tmp_path / "fresh again")
        told = "room for 7 of 20 answers.*a higher cap goes on.*--max-calls"
        with dspy.context(lm=ours(url, Meter(7))), pytest.raises(WorkbenchError, match=told):
            evaluate(student(colour_task()), things, known)
    assert [outcome.score is None for outcome in found.outcomes] == [False] * 8 + [True] * 12
    assert "--max-calls" in found.outcomes[9].error


def test_what_is_kept_back_is_not_spent_before() -> None:
    meter = Meter(100, Limits(tokens=90))
    meter.send(1)
    meter.spend(tokens_in=40)
    with meter.keeping(lambda: (50, 0, 0)), pytest.raises(BudgetExhausted, match="90 tokens"):
        meter.send(1)
    meter.send(1)


def test_a_budget_needs_a_price(project: Path, silent: tuple[dict[str, str], str]) -> None:
    flags = ["--lm", "openai/any", "--api-base", silent[1], "--budget-usd", "2"]
    for command in ("check", "run"):
        done = optimize(project, command, "review", *flags)
        assert done.returncode == 2 and "so --budget-usd cannot be kept to" in done.stderr


def test_a_climb_ends_at_its_cap_with_a_report(
    project: Path, silent: tuple[dict[str, str], str]
) -> None:
    flags = ["--lm", "openai/any", "--api-base", silent[1], "--finetune", "never"]
    done = optimize(project, "run", "review", *flags, "--max-tokens", "900", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["verdict"]) == (1, "budget"), done.stderr
    spent = sum(a["tokens_in"] + a["tokens_out"] for a in found["attempts"])
    assert found["lm_calls"] <= 104 and spent <= 900 and "--max-tokens 1800" in found["next"]


def test_an_endpoint_is_asked_as_much_as_it_takes() -> None:
    """Six at once, and 429 beyond: 32 threads find that out, and lose nothing."""
    inside, most = 0, 0
    lock = threading.Lock()

    def fault(asked: Asked) -> str:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
            if inside > 6:
                inside -= 1
                return "429"
            return ""

    def answer(text: str) -> str:
        nonlocal inside
        with lock:
            inside -= 1
        return RED

    app = faulty_app(answer, fault, seconds=0.05)
    with served(app) as url:
        meter, task = Meter(2000), colour_task()
        lm = ours(url, meter)
        with dspy.context(lm=lm):
            things = rows(*(f"thing {n}" for n in range(300)))
            found = evaluate(student(task), things, Asking(task, threads=32))
    assert found.scores == (1.0,) * 300 and found.missing == 0
    refused = sum(asked.fault == "429" for asked in app.state.log)
    assert len(app.state.log) == 300 + refused == meter.usage().calls and refused < 60
    assert pool_of(lm.model).endpoints[0].limiter.limit < 16
