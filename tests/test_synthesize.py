"""`optimize synthesize`: an endpoint that writes good rows, copies, leaks, wrong labels and
rubbish, and what is kept of them; and what a climb, the checks and the gate make of the rows.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dspy
import pytest
from fastapi import FastAPI
from typer.testing import CliRunner

from optimize import lm as lms
from optimize.cli import app
from optimize.climb.climb import climb
from optimize.climb.observer import Observer
from optimize.climb.plan import planned
from optimize.climb.rungs import LADDER, SYNTHETIC, Context, ladder
from optimize.climb.rungs.demos import with_synthetic as with_synthetic_demos
from optimize.climb.setup import Setup
from optimize.commands.init import write_project
from optimize.commands.new import write_task
from optimize.commands.session import load_task_and_rows
from optimize.config import RunConfig, load_config
from optimize.data.judging_rows import lent
from optimize.data.rows import Splits
from optimize.data.synthetic import MARK, mark_of, seed_name
from optimize.lm.meter import Meter
from optimize.program.program import student
from optimize.program.writing import STYLES, drawn, label_of, wanted_labels
from optimize.report.record import AttemptRecord
from optimize.report.sentences import synthetic_sentences
from optimize.stats.records import GainRecord, ScoreRecord
from tests import judged
from tests.test_in_use import WORDS, judge, reviews
from tests.test_lm import chat_app, served

OURS = [f"{a}{b}{c}{b}{d}" for a in "pqstvwz" for b in "aeiou" for c in "lmnr" for d in "kx"]
Row = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_project(tmp_path, [])
    write_task(tmp_path, "review")
    put(tmp_path, "rows", reviews(random.Random(0), 120))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(dspy, "cache", dspy.cache)
    return tmp_path


def put(root: Path, name: str, rows: Sequence[Row]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "devsets" / "review" / f"{name}.jsonl").write_text(text)


def read(root: Path) -> list[Row]:
    path = root / "devsets" / "review" / "synthetic.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Scribe:
    """Writes what the brief asks for, but for one in ten each: nothing that can be read, a copy of
    a test row, of a train row, an empty text, a row of the other label. Labels as it should.
    """

    def __init__(self, splits: Splits, honest: bool = False) -> None:
        self.splits, self.honest = splits, honest
        self.faults: Counter[str] = Counter()

    def __call__(self, text: str) -> str:
        wanted = re.search(r"The right verdict for it is '(\w+)'", text)
        if not wanted:
            last = re.findall(r"\[\[ ## text ## \]\]\n(.*)", text)[-1]
            return json.dumps({"verdict": judge(last)})
        draw = zlib.crc32(text.encode())
        rng = random.Random(draw)
        fault = "" if self.honest else FAULTS.get(draw % 10, "")
        self.faults[fault] += 1
        other = {"positive": "negative", "negative": "positive"}[wanted[1]]
        label = other if fault == "other label" else wanted[1]
        words = [*rng.sample(OURS, 7), rng.choice(WORDS[label])]
        text = " ".join(words)
        if fault == "leak":
            text = rng.choice(self.splits.test).text.upper()
        if fault == "copy":
            text = rng.choice(self.splits.train).text + "!"
        if fault == "empty":
            text = ""
        return "Hm." if fault == "rubbish" else json.dumps({"text": text})


FAULTS = {0: "rubbish", 1: "leak", 2: "copy", 3: "empty", 4: "other label"}


@pytest.fixture
def splits(root: Path) -> Splits:
    return load_task_and_rows(root, "review", RunConfig())[1]


@pytest.fixture
def scribe(splits: Splits) -> Iterator[tuple[Scribe, str, FastAPI]]:
    found = Scribe(splits)
    server = chat_app(found)
    with served(server) as url:
        yield found, f"{url}/v1", server


def ran(url: str, rows: int, *more: str, code: int = 0) -> Any:
    flags = ["--lm", "openai/scribe", "--api-base", url, "--rows", str(rows), *more]
    done = CliRunner().invoke(app, ["synthesize", "review", *flags, "--json"])
    assert done.exit_code == code, (done.exit_code, done.stderr, done.exception)
    return json.loads(done.stdout) if code < 2 else " ".join(done.stderr.split())


def test_what_is_kept_is_new_sound_marked_and_balanced(
    root: Path, splits: Splits, scribe: tuple[Scribe, str, FastAPI]
) -> None:
    said, url, _ = scribe
    found = ran(url, 30)
    rows = read(root)
    assert len(rows) == found["kept"] == found["total"] == 30
    lost = ("failed", "invalid", "leak", "duplicate", "refused", "unconfirmed", "spare")
    assert found["written"] == found["kept"] + sum(found[name] for name in lost)
    assert found["failed"] == found["refused"] == 0
    assert found["leak"] == said.faults["leak"] > 0
    assert found["duplicate"] == said.faults["copy"] > 0
    assert found["unconfirmed"] == said.faults["other label"] > 0
    assert found["invalid"] > said.faults["empty"] > 0, "and what cannot be read at all"
    texts = {row["text"] for row in rows}
    assert len(texts) == 30 and not texts & {e.text for s in splits.sides().values() for e in s}
    assert all(judge(row["text"]) == row["verdict"] for row in rows)
    counts = Counter(row["verdict"] for row in rows)
    assert max(counts.values()) - min(counts.values()) <= 10
    task, _ = load_task_and_rows(root, "review", RunConfig())
    learn = {seed_name(task, e) for e in lent(task, splits)[0]}
    for row in rows:
        mark = row[MARK]
        assert mark["teacher"] == "openai/scribe" and mark["confirmed"] == 3
        assert len(mark["seeds"]) == 6 and set(mark["seeds"]) <= learn and mark["style"] in STYLES


def test_prompts_show_train_rows_that_do_not_judge_and_no_others(
    root: Path, splits: Splits, scribe: tuple[Scribe, str, FastAPI]
) -> None:
    _, url, server = scribe
    ran(url, 12)
    task, _ = load_task_and_rows(root, "review", RunConfig())
    learn, judges = lent(task, splits)
    prompts = ["\n".join(m["content"] for m in b["messages"]) for b in server.state.bodies]
    written = [p for p in prompts if "The right verdict" in p]
    assert judges and 0 < len(written) < len(prompts), "the others label"
    shown = "\n".join(prompts)
    assert any(e.text in shown for e in learn)
    assert not [e for e in (*splits.val, *splits.test, *judges) if e.text in shown]
    assert len({b["temperature"] for b in server.state.bodies}) > 1


def test_what_is_written_under_a_cut_split_is_of_use_to_every_run(
    root: Path, splits: Splits, scribe: tuple[Scribe, str, FastAPI]
) -> None:
    """A run with fewer val rows has no train row that judges; one with all of them has."""
    with (root / "optimize.toml").open("a") as file:
        file.write("\nval_rows = 8\n")
    found = ran(scribe[1], 8)
    assert found["kept"] == found["total"] == 8
    for config in (RunConfig(), RunConfig(val_rows=8)):
        assert len(load_task_and_rows(root, "review", config)[1].synthetic) == 8


def test_a_command_that_was_stopped_goes_on_and_asks_nothing_twice(
    root: Path, scribe: tuple[Scribe, str, FastAPI]
) -> None:
    _, url, server = scribe
    whole = ran(url, 24)
    straight, bodies = [row["text"] for row in read(root)], len(server.state.bodies)
    (root / "devsets" / "review" / "synthetic.jsonl").unlink()
    (root / ".optimize" / "answers.db").unlink()
    for path in (root / ".optimize").glob("answers.db-*"):
        path.unlink()
    server.state.bodies.clear()
    first = ran(url, 24, "--max-calls", "60", code=1)
    assert 0 < first["kept"] < 24 and first["calls"] <= 60 and "--max-calls 60" in first["ended"]
    assert [row["text"] for row in read(root)] == straight[: first["kept"]]
    second = ran(url, 24)
    assert [row["text"] for row in read(root)] == straight
    assert second["kept"] == 24 - first["kept"] and second["total"] == whole["total"]
    assert len(server.state.bodies) <= bodies + 8, "the rest came from the cache"
    server.state.bodies.clear()
    again = ran(url, 24)
    assert again["written"] == again["calls"] == 0 and not server.state.bodies


def test_a_row_that_was_taken_out_does_not_come_back(
    root: Path, scribe: tuple[Scribe, str, FastAPI]
) -> None:
    _, url, _ = scribe
    ran(url, 6)
    *kept, bad = read(root)
    put(root, "synthetic", kept)
    ran(url, 6)
    assert read(root)[:5] == kept and read(root)[5]["text"] != bad["text"]
    assert read(root)[5][MARK]["number"] > bad[MARK]["number"]


def test_another_teacher_adds_to_what_there_is_and_repeats_nothing(
    root: Path, splits: Splits, scribe: tuple[Scribe, str, FastAPI]
) -> None:
    _, url, _ = scribe
    ran(url, 10)
    before = read(root)
    more = ["--teacher", "openai/other", "--teacher-api-base", url]
    ran(url, 20, *more)
    after = read(root)
    assert after[:10] == before and after[10][MARK]["teacher"] == "openai/other"
    numbers = [row[MARK]["number"] for row in after]
    assert numbers == sorted(set(numbers))


def test_a_dry_run_shows_plan_and_prompt_and_asks_nothing(root: Path) -> None:
    done = CliRunner().invoke(app, ["synthesize", "review", "--rows", "10", "--dry-run"])
    assert done.exit_code == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "Plan: 10 rows beside the 0" in told and "At most 50 are written" in told
    assert "At most 200 calls" in told and "Write one new row" in told
    assert not (root / "devsets" / "review" / "synthetic.jsonl").exists()


def test_a_judges_calls_are_in_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate is written, answered three times, and each answer is judged."""
    judged.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["synthesize", "reply", "--rows", "10", "--dry-run"])
    assert "At most 350 calls" in " ".join(done.stdout.split()), done.output


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"text": "fine", "verdict": "so so"}', "synthetic.jsonl:1: field 'verdict'"),
        ("{", "synthetic.jsonl:1: not JSON"),
        ('{"text": "fine"}', "field 'verdict' is missing"),
    ],
)
def test_a_damaged_file_is_told_and_left_as_it_is(root: Path, line: str, told: str) -> None:
    path = root / "devsets" / "review" / "synthetic.jsonl"
    path.write_text(line + "\n")
    for command in (["synthesize", "review", "--rows", "5", "--dry-run"], ["check", "review"]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2 and told in " ".join(done.stderr.split()), done.stderr
    assert path.read_text() == line + "\n"


def test_other_bad_input_is_told_in_a_sentence(root: Path) -> None:
    assert CliRunner().invoke(app, ["synthesize", "review", "--rows", "0"]).exit_code == 2
    done = CliRunner().invoke(
        app, ["synthesize", "review", "--rows", "5", "--lm", "openai/gpt-4.1"]
    )
    assert done.exit_code == 2 and "OPENAI_API_KEY" in done.stderr
    (root / "devsets" / "review" / "GUIDE.md").write_text("a rule of many words. " * 5000)
    done = CliRunner().invoke(app, ["synthesize", "review", "--rows", "5", "--dry-run"])
    assert done.exit_code == 2 and "The guide of task 'review' alone" in done.stderr


def test_a_teacher_that_never_answers_leaves_no_file(root: Path) -> None:
    with served(chat_app(lambda text: 400)) as url:
        told = ran(f"{url}/v1", 5, "--threads", "2", code=2)
    assert "calls failed" in told and not read(root)


def sound_rows(root: Path, splits: Splits, n: int = 20) -> list[Row]:
    """Rows as the command writes them."""
    task, _ = load_task_and_rows(root, "review", RunConfig())
    learn, rng = lent(task, splits)[0], random.Random(1)
    return [
        {
            "text": " ".join([*rng.sample(OURS, 7), WORDS[label][0]]),
            "verdict": label,
            MARK: {"number": n, "teacher": "x", "seeds": [seed_name(task, learn[n % len(learn)])]},
        }
        for n, label in enumerate(["positive", "negative"] * (n // 2))
    ]


def test_rows_are_train_only_told_by_check_and_left_out_where_they_would_leak(
    root: Path, splits: Splits
) -> None:
    rows = sound_rows(root, splits)
    task, _ = load_task_and_rows(root, "review", RunConfig())
    copied = {**rows[0], "text": splits.val[0].text}
    moved = {**rows[1], "text": "entirely other words", MARK: {
        "seeds": [seed_name(task, splits.test[0])]}}  # fmt: skip
    by_hand = {"text": "nobody marked this row good", "verdict": "positive", MARK: "by hand"}
    put(root, "synthetic", [*rows, copied, moved, by_hand])
    _, found = load_task_and_rows(root, "review", RunConfig())
    assert found.sides() == splits.sides() and found.digest == splits.digest
    assert len(found.synthetic) == 21 and mark_of(found.synthetic[-1]).number == -1
    done = CliRunner().invoke(app, ["check", "review"])
    told = " ".join(done.stdout.split())
    assert "21 synthetic rows" in told and "2 more are left out" in told
    assert "is not read" not in told and f"{len(splits.train)} train" in told
    cut = load_task_and_rows(root, "review", RunConfig(val_rows=8))[1]
    assert len(cut.synthetic) == 21


def test_without_synthetic_rows_the_ladder_and_its_plan_are_what_they_were(
    root: Path, splits: Splits
) -> None:
    task, _ = load_task_and_rows(root, "review", RunConfig())
    assert ladder(splits) == LADDER and not splits.synthetic
    before = planned(task, splits, RunConfig(), 0)
    put(root, "synthetic", sound_rows(root, splits))
    _, found = load_task_and_rows(root, "review", RunConfig())
    names = [rung.rung for rung in planned(task, found, RunConfig(), 0).rungs]
    assert [n for n in names if n != SYNTHETIC.name] == [rung.rung for rung in before.rungs]
    assert names[names.index("bootstrapped_demos") + 1] == SYNTHETIC.name


def test_the_rung_shows_both_kinds_and_compares_on_rows_of_people_alone(
    root: Path, splits: Splits, scribe: tuple[Scribe, str, FastAPI]
) -> None:
    put(root, "synthetic", sound_rows(root, splits))
    task, found = load_task_and_rows(root, "review", RunConfig())
    config = load_config(root, lm="openai/scribe", api_base=scribe[1])
    lms.configure(root)
    lm = lms.resolve(config.lm, config.api_base, config, Meter(2000), 40)
    learn = lent(task, found)[0]
    context = Context(task, learn, lm, 1000, 1.0, 4, 0, synthetic=found.synthetic)
    with dspy.context(lm=lm):
        program = with_synthetic_demos(student(task), context)
    asked = "\n".join(b["messages"][-1]["content"] for b in scribe[2].state.bodies)
    synthetic = {e.text for e in found.synthetic}
    assert not [t for t in synthetic if f"[[ ## text ## ]]\n{t}" in asked]
    shown = [r["text"] for r in program.neighbours.rows] if program.neighbours else []
    shown += [d.text for p in program.predictors() for d in p.demos]
    assert set(shown) & synthetic and set(shown) & {e.text for e in learn}


def test_a_climb_tries_them_beside_the_best_program_without_them(
    root: Path, splits: Splits
) -> None:
    put(root, "synthetic", sound_rows(root, splits))
    task, found = load_task_and_rows(root, "review", RunConfig())

    def half(text: str) -> str:
        return json.dumps({"verdict": "positive"})

    with served(chat_app(half)) as url:
        config = load_config(root, lm="openai/half", api_base=f"{url}/v1")
        lms.configure(root)
        meter = Meter(2000)
        lm = lms.resolve(config.lm, config.api_base, config, meter, 40)
        with dspy.context(lm=lm):
            given = Setup(task, found, lm, meter, target=0.95, threads=4, seed=0)
            climbed = climb(given, [SYNTHETIC], Observer())
    _, tried = climbed.attempts
    assert tried.gain and not tried.error and not tried.skipped
    (told,) = synthetic_sentences([AttemptRecord.of(a) for a in climbed.attempts])
    assert "+0.00" in told and "not shown to help" in told


def attempt(mean: float, low: float, high: float, promoted: bool) -> AttemptRecord:
    gain = GainRecord(mean=mean, low=low, high=high, n=40, better=5, worse=3)
    val = ScoreRecord(score=0.5, low=0.4, high=0.6, n=40)
    return AttemptRecord(
        rung="synthetic_rows", family="demos", val=val, gain=gain, promoted=promoted
    )


def test_the_sentence_on_what_they_were_worth() -> None:
    assert synthetic_sentences([]) == []
    (helped,) = synthetic_sentences([attempt(0.1, 0.02, 0.2, True)])
    assert "+0.10 [+0.02, +0.20] on 40 val rows" in helped and ": helped; later" in helped
    (open_,) = synthetic_sentences([attempt(0.02, -0.03, 0.07, False)])
    assert "not shown to help; its program was not built on" in open_
    (harm,) = synthetic_sentences([attempt(-0.1, -0.2, -0.02, False)])
    assert "surely did not help" in harm
    skipped = AttemptRecord(rung="synthetic_rows", family="demos", skipped="too few calls")
    assert synthetic_sentences([skipped]) == ["Synthetic rows: nothing is known, too few calls."]


def test_the_rarest_labels_are_asked_for_first_and_a_draw_hangs_on_its_number(
    root: Path, splits: Splits
) -> None:
    task, _ = load_task_and_rows(root, "review", RunConfig())
    order = wanted_labels(task, {"positive": 5, "negative": 2})
    assert [next(order) for _ in range(5)] == ["negative"] * 3 + ["positive", "negative"]
    first = drawn(task, splits.train, 7, "positive", 0)
    assert first == drawn(task, splits.train, 7, "positive", 0)
    assert first != drawn(task, splits.train, 8, "positive", 0)
    assert {label_of(task, e) for e in first.alike} == {"positive"}
    assert {label_of(task, e) for e in first.other} == {"negative"}
    none = [e for e in splits.train if e.verdict == "negative"]
    assert drawn(task, none, 0, "positive", 0).alike == (), "a label without rows is asked for too"
