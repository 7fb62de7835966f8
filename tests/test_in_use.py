"""`optimize recheck` and `optimize monitor`: the best program asked again, against the record."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest
from fastapi import HTTPException
from typer.testing import CliRunner

from optimize.cli import app
from optimize.commands import in_use
from optimize.commands.applying import batches
from optimize.commands.init import write_project
from optimize.commands.new import write_task
from optimize.lm.batch import box as boxes
from optimize.store.listing import listed
from optimize.store.open import client
from optimize.store.read import Found
from tests.batch_server import BatchServer
from tests.stored import stored_run
from tests.test_lm import chat_app, served

NEUTRAL = [f"{a}{b}{a}{c}" for a in "bdfgklm" for b in "aeiou" for c in "nrs"]
WORDS = {"positive": ["good", "fine", "lovely"], "negative": ["poor", "broken", "late"]}
Row = dict[str, str]


def reviews(rng: random.Random, n: int, neutral: list[str] = NEUTRAL) -> list[Row]:
    rows = []
    for number in range(n):
        verdict = ("positive", "negative")[number % 2]
        words = [*rng.sample(neutral, 7), rng.choice(WORDS[verdict])]
        rows.append({"text": " ".join(words), "verdict": verdict})
    return rows


def judge(text: str) -> str:
    """Right on every review."""
    last = text.split()
    return "positive" if any(word in last for word in WORDS["positive"]) else "negative"


def unlike(text: str) -> str:
    return {"positive": "negative", "negative": "positive"}[judge(text)]


def half(text: str) -> str:
    """Right where the review is positive."""
    return "positive"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its task's best program is right on eight of ten test rows."""
    root = tmp_path_factory.mktemp("in-use")
    write_project(root, [])
    for name in ("review", "unrun", "batched"):
        write_task(root, name)
    rows = reviews(random.Random(0), 160)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "devsets" / "review" / "rows.jsonl").write_text(text)
    stored_run(root, "review", 8, lm="openai/judge", target=0.7)
    return root


@pytest.fixture(autouse=True)
def here(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(dspy, "cache", dspy.cache)


@pytest.fixture
def at() -> Iterator[Callable[[Callable[[str], Any]], tuple[str, list[Any]]]]:
    """at(answer): the address of an endpoint that answers so, and what it was asked."""
    running = []

    def serve(answer: Callable[[str], Any]) -> tuple[str, list[Any]]:
        server = chat_app(answer)
        running.append(served(server))
        return f"{running[-1].__enter__()}/v1", server.state.bodies

    yield serve
    for one in running:
        one.__exit__(None, None, None)


def asked(command: str, *arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, [command, "review", *arguments, "--json"])
    assert done.exit_code == code, (done.exit_code, done.stderr)
    return json.loads(done.stdout)


def told(command: str, *arguments: str) -> str:
    done = CliRunner().invoke(app, [command, "review", *arguments])
    assert done.exit_code == 2, done.output
    return " ".join(done.stderr.split())


def test_the_same_lm_is_asked_anew_each_time(at: Any) -> None:
    url, bodies = at(judge)
    flags = "--api-base", url, "--target", "0.5"
    found = asked("recheck", *flags)
    n = found["before"]["n"]
    (lm,) = found["lms"]
    assert n >= 30 and len(bodies) == n == lm["calls"] and lm["at_target"]
    assert (lm["verdict"], lm["gain"]["worse"]) == ("better", 0)
    assert lm["other_answers"] == 0 and lm["price"]["tokens_in"] == 7
    again = asked("recheck", *flags)
    assert len(bodies) == 2 * n and again["anew"] == found["anew"] + 1, (
        "today's endpoint, not the cache"
    )
    assert again["test_reads"] == found["test_reads"], "the same scores are no new reading"
    store = client(Path.cwd())
    (review,) = [e for e in store.search_experiments() if e.name == "review"]
    for run in store.search_runs([review.experiment_id], "tags.command = 'recheck'"):
        store.delete_run(run.info.run_id)
    asked("recheck", *flags)
    assert len(bodies) == 3 * n, "whatever runs somebody has deleted"


def test_another_best_program_ends_a_command_that_waited(
    at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, bodies = at(judge)
    first = in_use.champion
    calls = iter(range(9))

    def later(root: Path, name: str) -> Found:
        found = first(root, name)
        return replace(found, id="0" * 32) if next(calls) else found

    monkeypatch.setattr(in_use, "champion", later)  # as a run that ends meanwhile crowns it
    assert "another program became the best one" in told("recheck", "--api-base", url)
    assert not bodies


def test_rows_whose_calls_failed_are_no_random_ones(at: Any, tmp_path: Path) -> None:
    rows = reviews(random.Random(4), 40, [f"zo{word}" for word in NEUTRAL])

    def refusing(body: dict[str, Any]) -> Any:
        if any(row["text"] in json.dumps(body) for row in rows[:12]):
            raise HTTPException(400, "flagged")
        return judge(body)

    url, _ = at(refusing)
    path = written(tmp_path / "new.jsonl", rows)
    found = asked("monitor", path, "--api-base", url, code=1)
    assert found["verdict"] == "relabel" and found["score"] is None and found["failed"] == 12


def test_an_export_that_holds_the_devset_can_be_monitored(at: Any, tmp_path: Path) -> None:
    url, _ = at(judge)
    lines = Path("devsets/review/rows.jsonl").read_text().splitlines()
    known = [json.loads(line) for line in lines]
    rows = reviews(random.Random(5), 20, [f"zo{word}" for word in NEUTRAL])
    path = written(tmp_path / "all.jsonl", known + rows)
    found = asked("monitor", path, "--ask", "0", "--api-base", url, code=1)
    assert found["known"] == len(known) and found["auc_shown"] is None
    assert (found["verdict"], found["tests"]) == ("cannot tell", [])
    flags = ["monitor", "review", path, "--ask", "0", "--api-base", url]
    shown = CliRunner().invoke(app, flags).stdout
    assert "nothing to hold the new rows against" in shown and "the new rows alone" in shown


def test_several_endpoints_of_one_lm_are_asked_as_one(at: Any) -> None:
    (first, some), (second, others) = at(judge), at(judge)
    (lm,) = asked("recheck", "--api-base", f"{first},{second}", "--target", "0.5")["lms"]
    assert some and others and len(some) + len(others) == lm["calls"] == lm["gain"]["n"]


def test_test_rows_asked_in_a_batch_twice_each_are_paid_at_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("FIRST_POLL", "LAST_POLL"):
        monkeypatch.setattr(boxes, name, 0.001)
    monkeypatch.setattr(batches, "FEW", 0)
    provider = BatchServer(judge)
    provider.line = lambda text: 200 if "lovely" not in text or provider.batches[1:] else 500
    flags = "--target", "0.5", "--batch", "--repeats", "2"
    with served(provider.app) as url:
        found = asked("recheck", "--api-base", f"{url}/v1", *flags)
        again = asked("recheck", "--api-base", f"{url}/v1", *flags)
    (lm,), n = found["lms"], found["before"]["n"]
    assert lm["score"]["n"] == n and lm["score"]["score"] == 1.0 and lm["calls"] == 2 * n
    assert provider.direct == [] and again["anew"] == found["anew"] + 1
    ids = [row["custom_id"] for batch in provider.batches for row in batch.requests]
    assert len(provider.batches) >= 2 and len(set(ids)) == 4 * n, "a repeat has its own request"
    assert not list(Path(".optimize/batches").iterdir()), "nothing is kept of what is done"


def test_a_run_asks_its_test_rows_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_POLL", "LAST_POLL"):
        monkeypatch.setattr(boxes, name, 0.001)
    provider = BatchServer(judge)
    words = "--lm openai/judge --val-rows 8 --test-rows 8 --max-calls 120 --finetune never --batch"
    with served(provider.app) as url:
        words += f" --api-base {url}/v1 --target 1 --json"
        done = CliRunner().invoke(app, ["run", "batched", *words.split()])
    assert done.exit_code in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert report["test"]["prompt"]["n"] == report["test"]["zero_shot"]["n"] == 8
    sent = sum(len(batch.requests) for batch in provider.batches)
    assert sent >= 8 and report["lm_calls"] == sent + len(provider.direct)
    assert "--batch" in report["next"] or report["next"].startswith("optimize check")


@pytest.mark.parametrize("lm", ["embedded", "openai/judge"])
def test_what_no_batch_can_answer_is_told_before_a_call(lm: str, at: Any) -> None:
    url, bodies = at(judge)
    base = [] if lm == "embedded" else ["--api-base", f"{url},{url}2"]
    for command in (["run", "unrun"], ["recheck", "review"]):
        done = CliRunner().invoke(app, [*command, "--batch", "--lm", lm, *base])
        assert done.exit_code == 2 and "--batch" in done.stderr, done.stderr
    assert bodies == []


def test_a_worse_lm_is_told_counted_and_taken_for_no_climb(at: Any, project: Path) -> None:
    before = asked("report", code=1)
    url, _ = at(unlike)
    reads = asked("recheck", "--api-base", url, code=1)["test_reads"]
    url, _ = at(half)
    found = asked("recheck", "--lm", "openai/new", "--api-base", url, code=1)
    (lm,) = found["lms"]
    assert lm["verdict"] == "worse" and found["test_reads"] == reads + 1
    assert lm["other_answers"] == lm["gain"]["n"] // 2
    assert asked("report", code=1) == before and asked("runs")["runs"][0]["command"] == "recheck"
    shown = CliRunner().invoke(app, ["runs", "review"]).stdout
    assert "worse" in shown and "openai/new" in shown and str(lm["score"]["n"]) in shown
    (run, *_) = [run for run in listed(project, "review") if run.command == "recheck"]
    assert run.metrics["score"] == pytest.approx(lm["score"]["score"], abs=1e-4)
    assert "is a recheck" in told_of(run.found.id)


def told_of(run: str) -> str:
    return " ".join(CliRunner().invoke(app, ["report", run]).stderr.split())


def test_several_lms_are_asked_and_a_broken_one_costs_nothing_twice(at: Any) -> None:
    good, bodies = at(judge)
    refusing, _ = at(lambda text: 401)
    flags = ["--lm", "openai/a", "--api-base", good, "--lm", "openai/b", "--api-base"]
    assert "refuses the key" in told("recheck", *flags, refusing, "--target", "0.5")
    first = len(bodies)
    bad, _ = at(unlike)
    found = asked("recheck", *flags, bad, "--target", "0.5", code=1)
    assert len(bodies) == first, "what it had answered was kept"
    assert [lm["verdict"] for lm in found["lms"]] == ["better", "worse"]
    assert found["lms"][0]["price"] is None and found["lms"][1]["calls"] == first
    done = CliRunner().invoke(app, ["recheck", "review", *flags, bad, "--test-rows", "20"])
    assert "2 LMs: at least 40 calls" in done.stderr and "20 test rows asked again" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--api-base", "http://127.0.0.1:9/v1"], "Nothing listens"),
        (["--lm", "gpt"], "DSPy model string"),
        (["--lm", "openai/a", "--lm", "openai/b", "--lm", "openai/c", *["--api-base", "x"] * 2],
         "2 --api-base for 3 --lm"),
        (["--target", "7"], "'target'"),
    ],
)  # fmt: skip
def test_what_cannot_be_rechecked_is_told(arguments: list[str], says: str) -> None:
    assert says in told("recheck", *arguments)


def test_a_cap_that_cannot_pay_and_a_task_without_a_program(at: Any) -> None:
    url, bodies = at(judge)
    assert "--max-calls 5 cannot pay" in told("recheck", "--api-base", url, "--max-calls", "5")
    done = CliRunner().invoke(app, ["recheck", "unrun"])
    assert done.exit_code == 2 and "has no best program" in done.stderr and not bodies


def written(path: Path, rows: list[Row]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_new_rows_of_the_same_kind_are_ok(at: Any, tmp_path: Path, project: Path) -> None:
    url, bodies = at(judge)
    rows = reviews(random.Random(1), 60)
    known = [json.loads(line) for line in (project / "devsets/review/rows.jsonl").open()][:3]
    bare = [{"text": row["text"]} for row in rows[:40]]
    path = written(tmp_path / "new.jsonl", [*bare, *rows[40:], *known])
    found = asked("monitor", path, "--ask", "30", "--api-base", url)
    assert (found["verdict"], found["rows"], found["known"]) == ("ok", 60, 3)
    assert (found["labelled"], found["score"]["n"], found["score"]["score"]) == (20, 20, 1.0)
    assert len(bodies) == 30 == found["asked"] and not found["to_label"]
    assert {test["kind"] for test in found["tests"]} == {"inputs", "unknown words", "answers"}
    again = asked("monitor", path, "--ask", "30", "--api-base", url)
    assert len(bodies) == 30 and again["tests"] == found["tests"], "what was asked is cached"
    assert asked("runs")["runs"][0]["verdict"] == "ok"


def test_other_rows_without_labels_are_to_be_labelled(at: Any, tmp_path: Path) -> None:
    url, bodies = at(judge)
    rows = reviews(random.Random(2), 60, [f"zo{word}" for word in NEUTRAL])
    path = tmp_path / "new.csv"
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, ["text", "verdict"])
        table.writeheader()
        table.writerows(row | {"verdict": ""} for row in rows)
    found = asked("monitor", str(path), "--ask", "0", "--api-base", url, code=1)
    assert found["verdict"] == "relabel" and not bodies and found["score"] is None
    drifted = {test["kind"] for test in found["tests"] if test["p_all"] <= 0.05}
    assert drifted == {"inputs", "unknown words"} and all(w[:2] == "zo" for w in found["words"])
    assert len(found["to_label"]) >= 8 and f"{path} row" in found["to_label"][0]
    flags = ["monitor", "review", str(path), "--ask", "0", "--api-base", url]
    shown = CliRunner().invoke(app, flags).stdout
    assert shown.startswith("RELABEL") and "none of them is labelled" in shown
    assert "Next: label the rows named above." in shown


def test_other_rows_that_it_still_gets_right_are_ok_and_wrong_ones_are_not(
    at: Any, tmp_path: Path
) -> None:
    rows = reviews(random.Random(3), 80, [f"zo{word}" for word in NEUTRAL])
    path = written(tmp_path / "new.jsonl", rows)
    url, _ = at(judge)
    found = asked("monitor", path, "--api-base", url)
    assert found["verdict"] == "ok" and found["change"]["low"] > 0
    url, _ = at(half)
    found = asked("monitor", path, "--api-base", url, code=1)
    assert found["verdict"] == "re-optimize" and found["worse"] and found["drop_shown"] < 0.4
    (changed,) = [c for c in found["by_label"] if c["change"]["high"] < 0]
    assert changed["label"] == "negative" and changed["after"] == 0
    shown = CliRunner().invoke(app, ["monitor", "review", path, "--api-base", url]).stdout
    assert "Surely worse than on record" in shown and "with another mix of labels" in shown


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.txt", "x", "none of .jsonl, .csv, .parquet"),
        ("none.jsonl", None, "cannot be read"),
        ("a.jsonl", '{"text": "one"}\n', "8 are the least"),
        ("b.jsonl", '{"txt": "one"}\n', "field 'text' is missing"),
        ("c.jsonl", '{"text": "one", "verdict": "maybe"}\n', "'maybe' is not one of"),
    ],
)
def test_rows_that_cannot_be_monitored(
    at: Any, tmp_path: Path, name: str, content: str | None, says: str
) -> None:
    url, _ = at(judge)
    if content is not None:
        (tmp_path / name).write_text(content)
    assert says in told("monitor", str(tmp_path / name), "--api-base", url)


def test_the_target_is_that_of_the_climb(at: Any) -> None:
    """Which a flag had set, whatever the task's file says."""
    url, _ = at(judge)
    assert asked("recheck", "--api-base", url)["target"] == 0.7


def test_inputs_that_recur_are_of_the_same_kind(at: Any, tmp_path: Path, project: Path) -> None:
    url, bodies = at(judge)
    known = [json.loads(line) for line in (project / "devsets/review/rows.jsonl").open()]
    again = random.Random(3).choices(known, k=150)
    path = written(tmp_path / "new.jsonl", [*again, *reviews(random.Random(4), 10)])
    found = asked("monitor", path, "--ask", "0", "--api-base", url)
    assert (found["verdict"], found["known"], found["rows"]) == ("ok", 150, 10) and not bodies


def test_what_recurs_is_left_out_of_the_record_too(at: Any, tmp_path: Path, project: Path) -> None:
    """All positive test rows come again, among rows that are negative: the program's answers to
    these are held against its answers to negative rows alone.
    """
    url, _ = at(judge)
    known = [json.loads(line) for line in (project / "devsets/review/rows.jsonl").open()]
    good = [row for row in known if row["verdict"] == "positive"]
    bad = [row for row in reviews(random.Random(6), 80) if row["verdict"] != "positive"]
    path = written(tmp_path / "new.jsonl", [*good, *bad])
    found = asked("monitor", path, "--api-base", url)
    tests = {test["kind"]: test for test in found["tests"]}
    assert found["known"] == len(good) and "answers" in tests
    assert tests["answers"]["p_all"] > 0.5 and set(found["shares"]) == {"negative"}


def test_another_lm_is_no_other_kind_of_rows(at: Any, tmp_path: Path) -> None:
    url, _ = at(judge)
    path = written(tmp_path / "new.jsonl", reviews(random.Random(5), 40))
    found = asked("monitor", path, "--lm", "openai/another", "--api-base", url)
    assert {test["kind"] for test in found["tests"]} == {"inputs", "unknown words"}
