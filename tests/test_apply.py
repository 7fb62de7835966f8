"""`optimize apply`: rows of any form in, all of them out, in their order, whatever happens."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
import pyarrow.parquet
import pytest
from click.testing import Result
from fastapi import FastAPI
from typer.testing import CliRunner

from optimize.cli import app as command
from optimize.commands import apply as applying
from optimize.commands.applying.answering import Answer
from optimize.commands.applying.writing import Review, Writer
from optimize.commands.init import write_project
from optimize.commands.new import write_task
from optimize.config import find_root
from optimize.data.stream import Given, Rows, row_id
from optimize.errors import WorkbenchError
from optimize.report import shards
from optimize.report.answers import columns_of
from optimize.task import Task
from tests.faulty_server import Asked, faulty_app
from tests.stored import stored_run
from tests.test_lm import served

Server = Callable[..., tuple[FastAPI, list[str]]]


def verdict(text: str) -> str:
    """What the server says of a review, in the form that it is asked in; of one unreadably."""
    found = "positive" if "good" in text else "negative"
    if "unreadable" in text:
        return "Hm."
    chat = "[[ ##" in text
    return f"[[ ## verdict ## ]]\n{found}\n\n[[ ## completed ## ]]" if chat else found


def review(number: int) -> str:
    return f"Review {number}: {'good' if number % 2 else 'poor'}"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose task `review` was never run; its store takes seconds to make."""
    root = tmp_path_factory.mktemp("home")
    write_project(root, [])
    write_task(root, "review")
    return root


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """server(fault) serves; gives the app, with its log, and the flags that lead to it. The current
    folder is an empty one of the project.
    """
    monkeypatch.chdir(tempfile.mkdtemp(dir=home))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(dspy, "cache", dspy.cache)
    monkeypatch.setattr("optimize.lm.dspy_calls.execution._delay", lambda error, number: 0.0)
    open_ones = []

    def serve(fault: Callable[[Asked], str] = lambda asked: "") -> tuple[FastAPI, list[str]]:
        found = faulty_app(verdict, fault)
        running = served(found)
        open_ones.append(running)
        return found, ["--lm", "openai/any", "--api-base", f"{running.__enter__()}/v1"]

    yield serve
    for running in open_ones:
        running.__exit__(None, None, None)


def given(*arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(command, ["apply", "review", *map(str, arguments)])
    assert done.exit_code == code, (done.exit_code, done.output, done.stderr)
    return done


def found(*arguments: object) -> Any:
    return json.loads(given(*arguments, "--json").stdout)


def write(path: str, rows: list[Any]) -> Path:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Path(path)


def read(path: str | Path) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"r{n}", "text": review(n), "shop": n % 3} for n in range(count)]


def test_every_row_comes_out_in_its_order_with_what_it_had(server: Server) -> None:
    app, flags = server()
    write("in.jsonl", rows(30))
    told = found("in.jsonl", "-o", "out.jsonl", *flags)
    assert (told["rows"], told["answered"], told["failed"], told["calls"]) == (30, 30, 0, 30)
    assert read("out.jsonl") == [
        row
        | {"verdict": "positive" if n % 2 else "negative"}
        | {"confidence": None, "error": None, "row_id": row["id"]}
        for n, row in enumerate(rows(30))
    ]
    assert len(app.state.log) == 30
    again = found("in.jsonl", "-o", "out.jsonl", *flags)
    assert (again["resumed"], again["calls"], len(read("out.jsonl"))) == (30, 0, 30)


def test_of_two_endpoints_the_one_that_fails_costs_no_row(server: Server) -> None:
    (good, flags), (broken, more) = server(), server(lambda asked: "500")
    write("in.jsonl", rows(60))
    told = found("in.jsonl", "-o", "out.jsonl", *flags, *more[2:])
    assert (told["answered"], told["failed"]) == (60, 0)
    assert len(good.state.log) == 60 and broken.state.log


def test_a_row_that_fails_is_written_with_why(server: Server) -> None:
    _, flags = server(lambda asked: "too long" * ("endless" in asked.text))
    lines = [json.dumps(row) for row in rows(6)]
    lines += ['{"text": "endless"}', '{"text": "unreadable"}', '{"text": 7}', "{", "[1]", ""]
    Path("in.jsonl").write_text("\n".join([*lines, '{"id": null, "shop": 1}']) + "\n")
    told = found("in.jsonl", "-o", "out.jsonl", "--below", "0.6", *flags)
    assert (told["rows"], told["answered"], told["failed"]) == (12, 6, 6)
    failed = {row["error"]: row for row in read("out.jsonl") if row["error"]}
    says = ["maximum context length", "could not be read: Hm.", "in.jsonl:9: field 'text'"]
    says += ["in.jsonl:10: not JSON", "in.jsonl:11: a row is a JSON object", "'text' is missing"]
    for error, part in zip(failed, says, strict=True):
        assert part in error, (error, part)
    assert all(row["verdict"] is None and row["row_id"] for row in failed.values())
    assert len({row["row_id"] for row in failed.values()}) == 6
    looked_at = read("out.jsonl.review.jsonl")
    assert told["reviewed"] == len(looked_at) == 6 and looked_at[0]["text"] == "endless"
    assert set(looked_at[0]) == {"text", "suggested", "confidence", "error", "row_id"}
    shown = given("in.jsonl", "-o", "out.jsonl", "--below", "0.6", *flags).stdout
    assert "no confidence" in shown and "12 of 12 rows are in out.jsonl" in shown
    assert all(len(line) <= 80 for line in shown.splitlines()), shown


def test_csv_goes_through_csv_and_is_safe_in_a_spreadsheet(server: Server) -> None:
    _, flags = server()
    texts = ['a good\n"quoted" one', '=HYPERLINK("x")', "-5", "it's poor", "a\rb"]
    texts += ["don\x92t", "'- item", "'=1+1", "page\x0ctwo"]
    with open("in.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["text", "verdict", "error"], *([text, "mine", "e"] for text in texts)])
    given("in.csv", "-o", "out.csv", "--below", "0.5", *flags)
    with open("out.csv", newline="") as file:
        header, *found = list(csv.reader(file))
    ours = ["predicted_verdict", "confidence", "predicted_error", "row_id"]
    assert header == ["text", "verdict", "error", *ours]
    shown = [texts[0], f"'{texts[1]}", *texts[2:5], "don\ufffdt", *texts[6:8], "page␌two"]
    assert [row[0] for row in found] == shown
    assert [row[3] for row in found] == ["positive", *["negative"] * 8]
    whole = Path("out.csv").read_bytes()
    for cut in (len(whole) - 3, whole.index(b"one") + 1, 20):  # as kill -9 leaves it
        Path("out.csv").write_bytes(whole[:cut])
        given("in.csv", "-o", "out.csv", *flags)
        assert Path("out.csv").read_bytes() == whole
    assert given("in.csv", "-o", "out.csv", "--below", "0.9", *flags).exit_code == 0


def test_parquet_keeps_its_types_in_shards(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    app, flags = server()
    monkeypatch.setattr(shards, "SHARD", 10)
    table = pyarrow.table({"text": [review(n) for n in range(25)], "shop": list(range(25))})
    pyarrow.parquet.write_table(table, "in.parquet", row_group_size=7)
    given("in.parquet", "-o", "out", *flags)
    parts = sorted(path.name for path in Path("out").iterdir())
    assert parts == [f"part-0000{n}.parquet" for n in range(3)]
    whole = pyarrow.parquet.read_table("out")
    assert whole.column("shop").to_pylist() == list(range(25))
    assert whole.schema.field("shop").type == pyarrow.int64()
    assert whole.column("verdict").to_pylist() == ["negative", "positive"] * 12 + ["negative"]
    Path("out/part-00002.parquet").unlink()
    told = found("in.parquet", "-o", "out", *flags)
    assert (told["resumed"], told["calls"], len(app.state.log)) == (20, 0, 25)
    assert pyarrow.parquet.read_table("out") == whole
    given("out", "-o", "twice.jsonl", *flags)
    assert read("twice.jsonl")[3]["predicted_verdict"] == "positive"


def test_other_rows_another_lm_and_a_file_of_something_else_are_told(server: Server) -> None:
    _, flags = server()
    given(write("in.jsonl", rows(5)), "-o", "out.jsonl", *flags)
    other = write("other.jsonl", rows(5)[1:])
    assert "row 1 is not other.jsonl:1" in given(other, "-o", "out.jsonl", *flags, code=2).stderr
    fewer = write("other.jsonl", rows(4))
    assert "more than the 4" in given(fewer, "-o", "out.jsonl", *flags, code=2).stderr
    more = write("other.jsonl", rows(7))
    assert found(more, "-o", "out.jsonl", *flags)["resumed"] == 5
    another = given("in.jsonl", "-o", "out.jsonl", *flags, "--lm", "openai/another", code=2)
    assert "begun by another program or LM" in " ".join(another.stderr.split())
    assert found("in.jsonl", "-o", "out.jsonl", *flags, "--again")["resumed"] == 0
    Path("notes.jsonl").write_text('{"mine": 1}\n')
    for more in ((), ("--again",)):
        told = given("in.jsonl", "-o", "notes.jsonl", *flags, *more, code=2).stderr
        assert "has not written it" in " ".join(told.split())
    assert Path("notes.jsonl").read_text() == '{"mine": 1}\n'


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["in.jsonl", "-o", "in.jsonl"], "is the file of the rows"),
        (["in.jsonl", "-o", "out.xlsx"], "give .jsonl, .csv, .parquet"),
        (["none.jsonl", "-o", "out.jsonl"], "none.jsonl does not exist"),
        (["in.txt", "-o", "out.jsonl"], "rows are read from"),
        (["empty.jsonl", "-o", "out.jsonl"], "holds no rows"),
        (["bad.parquet", "-o", "out.jsonl"], "cannot be read as Parquet"),
        (["in.jsonl", "-o", "out.jsonl", "--budget-usd", "1"], "price of LM"),
        (["both.jsonl", "-o", "out.jsonl"], "'predicted_verdict' as a column, and so do"),
        (["in.jsonl", "-o", "out.jsonl", "--lm", "openai/x"], "Nothing listens at"),
    ],
)
def test_what_cannot_be_done_is_told_before_a_call(
    server: Server, arguments: list[str], says: str
) -> None:
    app, flags = server()
    write("in.jsonl", rows(3))
    write("both.jsonl", [{"text": "x", "verdict": 1, "predicted_verdict": 2}])
    for name in ("empty.jsonl", "bad.parquet", "in.txt"):
        Path(name).touch()
    if says.startswith("Nothing"):
        flags = ["--api-base", "http://127.0.0.1:9/v1"]
    done = given(*flags, *arguments, code=2)
    assert says in " ".join(done.stderr.split()) and not app.state.log


def test_the_pilot_forecasts_the_rest_and_can_be_all(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, flags = server()
    monkeypatch.setattr(applying, "PILOT", 10)
    write("in.jsonl", rows(40))
    told = found("in.jsonl", "-o", "out.jsonl", "--pilot", *flags)
    assert (told["answered"], len(app.state.log)) == (10, 10)
    forecast = told["forecast"]
    assert (forecast["asked"], forecast["rows"], forecast["calls"]["sum"]) == (10, 30, 30)
    assert forecast["tokens"]["sum"] == 30 * 9 and forecast["seconds"] > 0
    assert forecast["cost_usd"] is None, "the price of this LM is not known"
    done = given("in.jsonl", "-o", "out.jsonl", *flags)
    said = " ".join(done.stderr.split())
    assert "10 rows are in out.jsonl already" in said and "20 rows are left; forecast" in said
    assert [row["row_id"] for row in read("out.jsonl")] == [f"r{n}" for n in range(40)]


def test_a_pilot_that_mostly_fails_ends_it_and_nothing_is_lost(server: Server) -> None:
    broken = True
    _, flags = server(lambda asked: "500" * (broken and "good" not in asked.text))
    write("in.jsonl", [*rows(4), *({"text": f"poor {n}"} for n in range(3))])
    done = given("in.jsonl", "-o", "out.jsonl", *flags, code=2)
    assert "5 of the first 7 rows failed" in done.stderr and not read("out.jsonl")
    broken = False
    told = found("in.jsonl", "-o", "out.jsonl", *flags)
    assert (told["answered"], told["calls"], told["cached_calls"]) == (7, 5, 2)


def test_a_refused_key_ends_at_once(server: Server) -> None:
    app, flags = server(lambda asked: "401")
    write("in.jsonl", rows(100))
    assert "refuses the key" in given("in.jsonl", "-o", "o.jsonl", *flags, code=2).stderr
    assert len(app.state.log) <= 32


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_rows_less_sure_are_to_be_reviewed_also_those_written_before(
    tiny: Callable[..., Task], tmp_path: Path, form: str
) -> None:
    task, path = tiny(), tmp_path / f"out.{form}"
    columns = columns_of(["text"], ["mood"])
    sure = [None, 0.59, 0.6, 0.1]
    source = [Given(f"row {n}", {"text": f"=text {n}"}) for n in range(4)]
    for below, count in ((None, 0), (0.6, 2), (0.05, 0), (1.0, 3)):
        review = Review(tmp_path / "review.jsonl", below, ["text"])
        writer = Writer(path, shards.open_out(path, columns, {}), columns, task, review)
        left = iter(source)
        writer.skip_written(left)
        for row in left:
            writer.write(row, Answer({"mood": "good"}, sure[int(row.columns["text"][-1])]))
        writer.close()
        assert (review.count, writer.tally.rows, writer.tally.confident) == (count, 4, 3)
    assert read(tmp_path / "review.jsonl")[0] == {
        **{"text": "=text 1", "suggested": {"mood": "good"}, "confidence": 0.59, "error": None},
        "row_id": row_id(["text"], source[1]),
    }


def test_a_review_file_in_which_a_person_has_written_is_kept(tmp_path: Path) -> None:
    path, row = tmp_path / "review.jsonl", Given("row 1", {"text": "a", "error": "b"})
    for more in range(3):
        review = Review(path, 1.0, ["text", "error"])
        for _ in range(1 + more):
            review.add(row, "r1", Answer({"mood": "good"}, 0.5))
        review.close(caught_up=True)
    assert len(read(path)) == 3 and not list(tmp_path.glob("*.1"))
    assert read(path)[0]["error"] == "b" and read(path)[0]["predicted_error"] is None
    path.write_text('{"text": "a", "mood": "mine"}\n')
    for caught_up in (False, True):
        review = Review(path, 1.0, ["text", "error"])
        review.add(row, "r1", Answer({"mood": "good"}, 0.5))
        review.close(caught_up)
        kept = tmp_path / f"review.jsonl{'.1' if caught_up else ''}"
        assert read(kept) == [{"text": "a", "mood": "mine"}]
    assert len(read(path)) == 1


def test_outputs_and_columns_of_ours_that_have_one_name_are_both_written() -> None:
    columns = columns_of(["text", "error"], ["confidence"])
    assert columns.outputs == {"confidence": "confidence"}
    assert columns.ours == ("confidence", "apply_confidence", "predicted_error", "row_id")
    with pytest.raises(WorkbenchError, match="'apply_confidence' as a column"):
        columns_of(["apply_confidence"], ["confidence"])


def test_columns_whose_type_differs_from_file_to_file_are_text(tmp_path: Path) -> None:
    for n, (values, other) in enumerate((([1, 2], [None, None]), ([2.5, None], ["x", "y"]))):
        table = pyarrow.table({"n": values, "none": other, "text": ["a", "b"]})
        pyarrow.parquet.write_table(table, tmp_path / f"{n}.parquet")
    assert list(Rows(tmp_path).types()) == ["text"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_row_that_was_changed_under_its_id_is_told(server: Server, form: str) -> None:
    _, flags = server()
    there = [row | {"text": f"={row['text']}, 1+1 – “naïve”"} for row in rows(12)]
    write("in.jsonl", there)
    out = f"out.{form}"
    given("in.jsonl", "-o", out, *flags)
    assert found("in.jsonl", "-o", out, *flags)["resumed"] == 12
    there[3]["text"] += " Not any more."
    write("in.jsonl", there)
    said = " ".join(given("in.jsonl", "-o", out, *flags, code=2).stderr.split())
    assert "in.jsonl:4 has another 'text' than when it was answered" in said and "--again" in said
    assert found("in.jsonl", "-o", out, *flags, "--again")["rows"] == 12


def test_another_address_is_said_and_another_temperature_is_another_lm(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, flags = server()
    (_, others) = server()
    write("in.jsonl", rows(10))
    given("in.jsonl", "-o", "out.jsonl", *flags)
    write("in.jsonl", rows(14))
    said = given("in.jsonl", "-o", "out.jsonl", *others).stderr
    assert "was begun at" in said and len(read("out.jsonl")) == 14
    monkeypatch.setenv("OPTIMIZE_TEMPERATURE", "0.7")
    stopped = given("in.jsonl", "-o", "out.jsonl", *others, code=2)
    assert "temperature 0.7" in " ".join(stopped.stderr.split())


def test_a_cap_keeps_what_was_answered_and_the_command_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, flags = server()
    monkeypatch.setattr(applying, "PILOT", 10)
    write("in.jsonl", rows(60))
    stopped = given("in.jsonl", "-o", "out.jsonl", *flags, "--max-calls", "25", code=2)
    said = " ".join(stopped.stderr.split())
    assert "--max-calls" in said and "the same command goes on from there" in said
    kept = read("out.jsonl")
    assert 10 <= len(kept) <= 25 == len(app.state.log)
    given("in.jsonl", "-o", "out.jsonl", *flags)
    assert read("out.jsonl")[: len(kept)] == kept and len(read("out.jsonl")) == 60
    assert len(app.state.log) == 60, "nothing was asked twice"


def test_rows_from_stdin_and_columns_that_come_late(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, flags = server()
    monkeypatch.setattr(applying, "PILOT", 10)
    late = [*rows(12), {"text": "late", "verdict": "mine", "note": "n"}]
    text = "".join(json.dumps(row) + "\n" for row in late)
    for out in ("out.jsonl", "out.csv"):
        arguments = ["apply", "review", "-", "-o", out, *flags]
        done = CliRunner().invoke(command, arguments, input=text)
        assert done.exit_code == 0, done.stderr
    assert "left out (given_verdict, note)" in " ".join(done.stdout.split())
    last = read("out.jsonl")[-1]
    assert (last["verdict"], last["given_verdict"], last["note"]) == ("negative", "mine", "n")


def test_the_best_program_answers_and_tells_who_it_is(server: Server, home: Path) -> None:
    app, flags = server()
    write_task(home, "judged")
    run = stored_run(home, "judged", 9)
    write("in.jsonl", rows(4))
    for knobs in (flags, flags[2:]):  # without --lm: the one it was optimized on
        done = CliRunner().invoke(
            command, ["apply", "judged", "in.jsonl", "-o", "out.jsonl", *knobs, "--json"]
        )
        assert done.exit_code == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["run"], told["lm"], told["answered"]) == (run, "openai/any", 4)
    about = json.loads(Path("out.jsonl.about.json").read_text())
    assert about["run"] == run and len(app.state.log) == 4


def test_killed_with_9_it_goes_on_to_the_same_output(server: Server) -> None:
    app, flags = server(lambda asked: "500" * (asked.number % 40 == 0))
    write("in.jsonl", rows(320))
    words = [sys.executable, "-m", "optimize", "apply", "review", "in.jsonl", "-o", "out.jsonl"]
    root = str(Path(__file__).parents[1])
    running = subprocess.Popen(
        [*words, *flags], stderr=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": root}
    )
    while running.poll() is None and len(app.state.log) < 250:
        time.sleep(0.005)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    kept = Path("out.jsonl").read_bytes()
    assert kept.count(b"\n") < 320
    told = found("in.jsonl", "-o", "out.jsonl", *flags)
    assert told["answered"] == 320 and told["calls"] < 110
    assert [row["row_id"] for row in read("out.jsonl")] == [f"r{n}" for n in range(320)]
    whole = Path("out.jsonl").read_bytes()
    given("in.jsonl", "-o", "undisturbed.jsonl", *flags)
    assert Path("undisturbed.jsonl").read_bytes() == whole


def test_a_cap_of_the_projects_file_holds(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    app, flags = server()
    monkeypatch.setattr(applying, "PILOT", 10)
    write("in.jsonl", rows(60))
    (find_root() / "optimize.toml").write_text("max_calls = 25\n")
    stopped = given("in.jsonl", "-o", "out.jsonl", *flags, code=2)
    assert "--max-calls" in stopped.stderr and len(app.state.log) == 25
