"""`optimize label`: which rows are chosen, and what becomes of what a person says of them."""

from __future__ import annotations

import csv
import datetime
import enum
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import dspy
import numpy as np
import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from optimize.cli import app
from optimize.commands.init import write_project
from optimize.commands.label import picked
from optimize.commands.labelling import Sitting
from optimize.commands.new import write_task
from optimize.data.judging_rows import lent
from optimize.data.labelled import count, put
from optimize.data.pool import MOST, read_pool
from optimize.data.read import read_output
from optimize.data.rows import load_splits, row_hash
from optimize.data.spread import spread
from optimize.errors import WorkbenchError
from optimize.scoring.disagreement import disagreement
from optimize.store.champion import champion
from optimize.store.rungs import rungs
from optimize.task import Score, Task, load_task
from tests.stored import stored_run
from tests.test_in_use import judge, reviews
from tests.test_lm import chat_app, served

ODD = ["odd", "strange"]  # words on which the program that asks in DSPy's own format is wrong


def answers(text: str) -> str:
    """Right in the compact format; in the other one wrong on odd reviews."""
    right = judge(text)
    if "[[ ##" not in text:
        return right
    said = {"positive": "negative", "negative": "positive"}[right] if "odd" in text else right
    return f"[[ ## verdict ## ]]\n{said}\n\n[[ ## completed ## ]]"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of its tasks `review` has a run with three programs, `single` one with one, `unrun` none."""
    root = tmp_path_factory.mktemp("label")
    write_project(root, [])
    rows = reviews(random.Random(0), 120)
    for name in ("review", "single", "unrun"):
        write_task(root, name)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (root / "devsets" / name / "rows.jsonl").write_text(text)
    stored_run(root, "review", 8, lm="openai/judge")
    stored_run(root, "single", 8, lm="openai/judge")
    run = champion(root, "single")
    for rung in rungs(run):
        run.store.delete_run(rung.found.id)
    return root


@pytest.fixture
def here(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The project, without what an earlier test has labelled; rows to label are in new.jsonl."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(dspy, "cache", dspy.cache)
    rows = [{"text": row["text"], "id": n} for n, row in enumerate(reviews(random.Random(9), 40))]
    for n, row in enumerate(rows[::5]):
        row["text"] = f"{ODD[n % 2]} odd {row['text']}"
    (project / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    yield project
    for path in (*project.glob("devsets/*/labelled.jsonl"), *project.glob("mlruns/label/*")):
        path.unlink()


@pytest.fixture
def lm() -> Iterator[tuple[str, list[Any]]]:
    server = chat_app(answers)
    with served(server) as url:
        yield f"{url}/v1", server.state.bodies


def label(*arguments: str, typed: str = "", code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["label", *arguments], input=typed)
    assert done.exit_code == code, (done.output, done.exception)
    return done


def labelled(root: Path, task: str = "unrun") -> list[dict[str, Any]]:
    path = root / "devsets" / task / "labelled.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_rows_that_the_programs_answer_differently_are_chosen(here: Path, lm: Any) -> None:
    url, bodies = lm
    flags = ["review", "new.jsonl", "--next", "6", "--ask", "30", "--api-base", url]
    done = label(*flags, "--json")
    found = json.loads(done.stdout)
    assert found["programs"] == ["champion", "nearest_demos", "zero_shot"]
    assert found["asked"] == 30 and len(bodies) == 90 == found["lm_calls"]
    assert "Asks 30 rows" in done.stderr and "at least 90 calls" in done.stderr
    assert 3 <= found["disagreed"] <= 8
    many = min(6, found["disagreed"])
    odd = [row for row in found["chosen"] if "odd" in row["columns"]["text"]]
    assert len(found["chosen"]) == 6 and len(odd) >= many
    assert [row["why"] for row in odd[:many]] == ["disagree"] * many
    assert "verdict" not in json.dumps(found["chosen"]), "no answer is shown"
    again = json.loads(label(*flags, "--json").stdout)
    assert len(bodies) == 90 and again["chosen"] == found["chosen"], "from the cache"
    assert not labelled(here, "review")
    fewer = label(*flags[:2], "--next", "12", "--ask", "8", "--api-base", url, "--json")
    assert len(json.loads(fewer.stdout)["chosen"]) == 8 and "--ask 12 asks more" in fewer.stderr
    assert "asks more" not in done.stderr


def test_a_program_alone_is_asked_three_times_where_the_lm_does_not_tell(
    here: Path, lm: Any
) -> None:
    url, bodies = lm
    found = json.loads(
        label("single", "new.jsonl", "--ask", "10", "--api-base", url, "--json").stdout
    )
    assert found["programs"] == ["champion"] and len(bodies) == 30
    assert found["disagreed"] == 0 and {row["why"] for row in found["chosen"]} == {"spread"}


def test_what_the_champion_is_unsure_of_fills_up_what_programs_agree_on() -> None:
    vectors = np.eye(6)
    assert picked(vectors, [0, 1, None, 0, 0, 0], [0.9, 0.1, 0.9, 0.2, 0.8, 1.0], 2, 0) == [
        (1, "disagree"), (3, "unsure"),
    ]  # fmt: skip
    assert len(picked(vectors, [None] * 6, [1.0] * 6, 4, 0)) == 4
    assert {why for _, why in picked(vectors, [None] * 6, [None] * 6, 4, 0)} == {"spread"}


def test_a_person_labels_goes_back_stops_and_goes_on(here: Path) -> None:
    flags = ["unrun", "new.jsonl", "--next", "5"]
    done = label(*flags, typed="1\nwonderful\nback\nnegative\nskip\nquit\n")
    assert "No run of unrun yet" in done.stderr and "1 row labelled, 1 skipped, 3 left" in (
        " ".join(done.stdout.split())
    )
    assert "'wonderful' is not one of" in done.stdout and "It is labelled" in done.stdout
    (first,) = labelled(here)
    assert first["verdict"] == "negative" and {"text", "id"} < first.keys()
    shown = label(*flags, typed="2\n").stdout  # and the end of the input
    assert "Chosen before: 3 rows left" in shown and "Row 3 of 5" in shown
    assert [row["verdict"] for row in labelled(here)] == ["negative", "negative"]
    done = label(*flags, typed="1\n/skip\nback\n2\nback\nskip\n\n")
    assert done.stdout.count("Row 5 of 5") == 3 and labelled(here)[-1]["verdict"] == "negative"
    assert (
        "4 rows labelled, 1 skipped." in done.stdout and "Next: optimize run unrun" in done.stdout
    )
    assert "agrees" not in done.stdout, "no program was asked"
    known = {row["text"] for row in labelled(here)}
    shown = label(*flags, "--json")
    found = json.loads(shown.stdout)
    assert found["left_out"] == {"known": 4, "skipped": 1} and found["fit"] == 35
    assert not known & {row["columns"]["text"] for row in found["chosen"]}
    splits = load_splits(load_task("unrun", here))
    assert known <= {row.text for row in splits.train}


def test_agreement_of_the_champion_is_told_afterwards_and_is_no_score(here: Path, lm: Any) -> None:
    url, bodies = lm
    flags = ["review", "new.jsonl", "--next", "4", "--api-base", url]
    done = label(*flags, typed="1\n1\nquit\n")
    before, _, _ = done.stdout.partition("The best program agrees")
    assert "guess" not in before and "answered differently" in done.stderr
    work = Sitting(load_task("review", here)).work
    guesses = [row.guess["verdict"] for row in work[:2] if row.guess]
    share = guesses.count("positive") / 2
    told = " ".join(done.stdout.split())
    assert f"agrees with {share:.2f} [" in told and "not its score" in told
    calls = len(bodies)
    label(*flags, typed="2\n2\n")
    assert len(bodies) == calls, "going on asks nothing"
    assert len(labelled(here, "review")) == 4
    with Sitting(load_task("review", here)).alone():
        assert "by another command" in label(*flags, code=2).stderr


def test_rows_go_to_a_file_for_those_who_label_elsewhere(here: Path) -> None:
    done = label("unrun", "new.jsonl", "--no-lm", "--next", "3", "--out", "blank.jsonl")
    rows = [json.loads(line) for line in (here / "blank.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["verdict"] == "" for row in rows)
    assert "append its lines to devsets/unrun/labelled.jsonl" in done.stderr
    assert "blank.jsonl is there already" in label(
        "unrun", "new.jsonl", "--out", "blank.jsonl", code=2
    ).stderr  # fmt: skip
    (here / "blank.jsonl").unlink()
    assert not labelled(here) and not Sitting(load_task("unrun", here)).work


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["unrun", "none.jsonl"], "none.jsonl does not exist"),
        (["unrun", "new.txt"], "rows are read from"),
        (["unrun", "new.jsonl", "-o", "x.csv"], "to a .jsonl file"),
        (["unrun", "devsets/unrun/rows.jsonl"], "no row to label: 120 with outputs already"),
        (
            ["review", "new.jsonl", "--max-calls", "20", "--api-base", "URL"],
            "fewer rows with --ask",
        ),
        (["review", "new.jsonl", "--api-base", "http://127.0.0.1:9/v1"], "Nothing listens"),
    ],
)
def test_what_cannot_be_done_is_told_before_a_call(
    here: Path, lm: Any, arguments: list[str], says: str
) -> None:
    url, bodies = lm
    done = label(*(url if word == "URL" else word for word in arguments), code=2)
    assert says in " ".join(done.stderr.split()) and not bodies
    assert not Sitting(load_task(arguments[0], here)).work


def test_labelled_rows_are_for_train_alone_move_no_other_row_and_judge_nothing(
    tiny: Callable[..., Task], mood_rows: list[dict[str, Any]]
) -> None:
    task = tiny(rows=mood_rows)
    before = load_splits(task)
    copy = {"text": before.val[0].text + "!", "mood": "good"}
    for n in range(12):
        row = {"text": f"wholly new {n} row {n * 7919}", "mood": "good", "id": n}
        assert put(task, row) == n + 1
    assert put(task, {"text": f"wholly new 3 row {3 * 7919}", "mood": "bad"}) == 12 == count(task)
    assert put(task, copy) == 13
    after = load_splits(task)
    assert (after.val, after.test) == (before.val, before.test)
    assert len(after.train) == len(before.train) + 12 == len(before.train) + len(after.chosen)
    assert any("Left out of labelled.jsonl: 1," in note for note in after.notes)
    judges = lent(task, after)[1]
    assert judges and judges == lent(task, before)[1]
    assert not {row_hash(task, row) for row in judges} & after.chosen
    assert after.digest != before.digest and after.at_most(8, 8).chosen == after.chosen
    given = tiny(train=mood_rows[:40], val=mood_rows[40:60], test=mood_rows[60:])
    (task.folder / "rows.jsonl").unlink()
    own = load_splits(given)
    assert len(own.train) == 40 + len(own.chosen) and len(own.chosen) in (12, 13)
    assert (len(own.val), len(own.test)) == (20, 20) and own.given
    (task.folder / "labelled.jsonl").write_text("\n")
    assert not load_splits(given).chosen, "all lines were deleted"
    (task.folder / "labelled.jsonl").write_text('{"text": "x", "mood": "odd"}\n')
    with pytest.raises(WorkbenchError, match=r"labelled.jsonl:1: field 'mood'"):
        load_splits(task)


def test_a_row_that_was_left_open_is_no_label(
    tiny: Callable[..., Task], mood_rows: list[dict[str, Any]]
) -> None:
    """As `label --out` writes it; a null is one."""
    task = tiny(Maybe, rows=mood_rows)
    path = task.folder / "labelled.jsonl"
    path.write_text('{"text": "not told", "mood": null}\n{"text": "left open", "mood": ""}\n')
    with pytest.raises(WorkbenchError, match=r"labelled.jsonl:2: field 'mood' is empty"):
        load_splits(task)
    path.write_text(path.read_text().splitlines()[0])
    assert len(load_splits(task).chosen) == 1


def test_near_copies_are_not_chosen_and_every_form_is_read(
    tiny: Callable[..., Task], mood_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    task = tiny(rows=mood_rows)
    splits = load_splits(task)
    kinds = ["the kettle leaks from its lid", "no letter came this week", "paid twice for one oven"]
    rows = [{"text": f"{kind}{'!' * n}"} for n in range(20) for kind in kinds]
    rows += [{"text": splits.test[0].text.upper()}, {"text": f"{splits.val[0].text} ."}]
    rows += [{"text": "with a label", "mood": "good"}, {"other": "no text"}]
    paths = [tmp_path / f"new.{suffix}" for suffix in ("jsonl", "csv", "parquet")]
    paths[0].write_text("".join(json.dumps(row) + "\n" for row in rows))
    with paths[1].open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "mood"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    import pyarrow
    import pyarrow.parquet

    table = [{"text": row.get("text"), "mood": row.get("mood")} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), paths[2])
    for path in paths:
        pool = read_pool(task, path, splits)
        assert sorted(row.text.rstrip("!") for row in pool.rows) == sorted(kinds)
        assert pool.left_out == {"copies": 57, "known": 1, "near": 1, "labelled": 1, "unread": 1}
        assert pool.total == 64 and "text" in pool.problem
    many = tmp_path / "many.jsonl"
    many.write_text("".join(json.dumps({"text": f"{n:b}"}) + "\n" for n in range(3 * MOST)))
    pool = read_pool(task, many, splits)
    assert pool.sampled == MOST and pool.total == 3 * MOST


def test_empty_outputs_and_bytes_are_left_behind(
    tiny: Callable[..., Task], mood_rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    import pyarrow
    import pyarrow.parquet

    task = tiny(rows=mood_rows)
    beside = {"id": 3, "on": datetime.date(2026, 5, 1)}
    row = {"text": "the kettle leaks", "mood": None, "picture": {"bytes": b"\xff\xd8"}, **beside}
    path = tmp_path / "new.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    (found,) = read_pool(task, path, load_splits(task)).rows
    assert dict(found) == {"text": "the kettle leaks", **beside}
    put(task, {**found, "mood": "bad"})


def test_chosen_rows_are_spread_over_kinds_and_weights_count() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(8)
    points = np.repeat(centres, 25, axis=0) + rng.normal(0, 0.02, (200, 8))
    found = spread(points, [1.0] * 200, 8)
    assert sorted(n // 25 for n in found) == list(range(8))
    weights = [float(n < 75) for n in range(200)]
    assert max(spread(points, weights, 20)) < 75, "rows of no weight are not taken"
    assert spread(points, [0.0] * 199 + [1.0], 5) == [199]
    assert len(spread(np.ones((30, 2)), [1.0] * 30, 5)) == 5, "all of one kind"
    assert found == spread(points, [1.0] * 200, 8)
    noisy = np.repeat(centres[:5], 12, axis=0) + rng.normal(0, 1e-7, (60, 8))
    assert len(spread(noisy.astype(np.float32), [1.0] * 60, 20)) == 20, "five kinds but for noise"


class Maybe(dspy.Signature):
    """Which mood, if any?"""

    text: str = dspy.InputField()
    mood: Literal["good", "bad"] | None = dspy.OutputField()


class Slip(BaseModel):
    size: int


class Colour(enum.Enum):
    RED = "red"


class Many(dspy.Signature):
    """Of every type."""

    text: str = dspy.InputField()
    label: Literal["a", "b"] = dspy.OutputField()
    maybe: Literal["a", "none"] | None = dspy.OutputField()
    stars: Literal[1, 2] = dspy.OutputField()
    colour: Colour = dspy.OutputField()
    number: int = dspy.OutputField(ge=3)
    yes: bool = dspy.OutputField()
    tags: list[str] = dspy.OutputField()
    slip: Slip = dspy.OutputField()
    note: str | None = dspy.OutputField()


def test_what_is_typed_is_read_as_the_type_and_refused_where_it_does_not_fit(
    tiny: Callable[..., Task], mood_rows: list[dict[str, Any]]
) -> None:
    task = tiny(Many)
    typed = {
        "label": ("a", "a", "c"),
        "maybe": ("", None, "c"),
        "stars": ("2", 2, "3"),
        "colour": ("red", Colour.RED, "blue"),
        "number": ("4", 4, "2"),
        "yes": ("yes", True, "perhaps"),
        "tags": ('["x"]', ["x"], "x"),
        "slip": ('{"size": 3}', Slip(size=3), "{}"),
    }
    for name, (text, value, wrong) in typed.items():
        assert read_output(task, name, text) == value
        with pytest.raises(WorkbenchError, match=f"field '{name}'"):
            read_output(task, name, wrong)
    assert read_output(task, "maybe", "none") == "none" and read_output(task, "note", "") is None


def test_how_far_answers_are_apart(tiny: Callable[..., Task]) -> None:
    task, row = tiny(), {"text": "x"}
    good, bad = {"mood": "good"}, {"mood": "bad"}
    assert disagreement(task, row, [good, good, good]) == 0
    assert disagreement(task, row, [good, bad, good]) == pytest.approx(2 / 3)
    assert disagreement(task, row, [good, None, None]) is None

    class Free(dspy.Signature):
        """Say it."""

        text: str = dspy.InputField()
        said: str = dspy.OutputField()

    def overlap(example: dspy.Example, prediction: dspy.Prediction) -> float:
        one, other = set(example.said.split()), set(prediction.said.split())
        return len(one & other) / len(one | other)

    def asking(example: dspy.Example, prediction: dspy.Prediction) -> float:
        return float(dspy.Predict(Free)(text="which is better?").said == "x")

    def columns(example: dspy.Example, prediction: dspy.Prediction) -> Score:
        return Score(float(example.votes > 1))

    free = replace(task, signature=Free, metric=overlap)
    pair = [{"said": "a b c"}, {"said": "a b d"}]
    assert disagreement(free, row, pair) == pytest.approx(0.5)
    assert disagreement(free, row, [{"said": "A  b"}, {"said": "a b"}]) == 0
    for metric in (asking, columns):
        assert disagreement(replace(free, metric=metric), row, pair) == 1
    assert disagreement(replace(free, metric=None, judge="fair"), row, pair) == 1
