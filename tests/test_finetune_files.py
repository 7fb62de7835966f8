"""The fallback's files and decisions: rows, hand-off bundle, gate, and the questions a tuned LM must still answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.devset import Splits, load_splits
from optimize.errors import WorkbenchError
from optimize.evaluate import Evaluation, Outcome
from optimize.finetune.aftercheck import ROWS, Question, questions
from optimize.finetune.bundle import write_bundle
from optimize.finetune.gate import LEAST_ROWS, gate, winning_levers
from optimize.finetune.rows import FORMAT, chat_rows, tuned_student
from optimize.ladder import Attempt, Climb
from optimize.lm import FORMATS
from optimize.plateau import Decision, History, Verdict
from optimize.program import Program, load, render, student
from optimize.retrieval import Passages
from optimize.selection import Corrected
from optimize.stats import Interval, wilson
from optimize.task import Task, choices

Shipped = Callable[[str], tuple[Task, Splits]]
Tiny = Callable[..., Task]
TASKS = ("tickets", "kb_answer", "extract")


def best_of(task: Task) -> Program:
    """A prompt program with an instruction of its own, demos, and passages where there is a corpus."""
    program = student(task)
    if task.corpus:
        program.use_passages(Passages(1, task.corpus))
    for predictor in program.predictors():
        predictor.signature = predictor.signature.with_instructions("The best instruction found.")
        predictor.demos = [dspy.Example(**program.with_passages({name: "demo" for name in task.signature.fields}))]
    return program


# --- rows and bundle ---


@pytest.mark.parametrize("name", TASKS)
def test_a_row_is_one_chat_with_the_gold_answer(shipped: Shipped, name: str) -> None:
    task, splits = shipped(name)
    program = tuned_student(best_of(task))
    rows = chat_rows(program, splits.train)
    assert len(rows) == len(splits.train)
    signature = program.predictors()[0].signature
    for example, row in zip(splits.train, rows, strict=True):
        assert list(row) == ["messages"]
        assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
        assert row["messages"][0]["content"] == "The best instruction found."
        assert FORMATS[FORMAT].parse(signature, row["messages"][2]["content"]) == dict(example.labels())


@pytest.mark.parametrize("name", TASKS)
def test_a_row_asks_what_the_tuned_program_will_ask(shipped: Shipped, name: str) -> None:
    task, splits = shipped(name)
    program = tuned_student(best_of(task))
    for example, row in zip(splits.train[:5], chat_rows(program, splits.train[:5]), strict=True):
        asked = "\n".join(f"--- {m['role']} ---\n{m['content']}" for m in row["messages"][:2]) + "\n"
        assert asked == render(program, example)


@pytest.mark.parametrize("name", TASKS)
def test_a_bundle_holds_rows_program_and_manifest(shipped: Shipped, tmp_path: Path, name: str) -> None:
    task, splits = shipped(name)
    folder = write_bundle(tmp_path / "deep" / "bundle", best_of(task), splits, {"task": name, "target": 0.9})
    assert {path.name for path in folder.iterdir()} == {"train.jsonl", "val.jsonl", "program.json", "manifest.json"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["task"], manifest["target"], manifest["data_hash"]) == (name, 0.9, splits.digest)
    assert set(manifest["files"]) == {"train.jsonl", "val.jsonl", "program.json"}
    for file, facts in manifest["files"].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == facts["sha256"]
    for side in ("train", "val"):
        lines = (folder / f"{side}.jsonl").read_text(encoding="utf-8").split("\n")
        assert lines.pop() == ""
        assert manifest["files"][f"{side}.jsonl"]["rows"] == len(lines) == len(splits.sides()[side])
        assert [json.loads(line) for line in lines] == chat_rows(tuned_student(best_of(task)), splits.sides()[side])
    again = load(task, folder / "program.json", lambda adapter: dspy.utils.DummyLM([]))
    assert render(again, splits.val[0]) == render(tuned_student(best_of(task)), splits.val[0])


@pytest.mark.parametrize("name", TASKS)
def test_test_rows_stay_behind(shipped: Shipped, tmp_path: Path, name: str) -> None:
    task, splits = shipped(name)
    folder = write_bundle(tmp_path / "bundle", best_of(task), splits, {})
    text = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
    field = next(iter(task.signature.input_fields))
    written = [side for side in ("train", "test") for e in splits.sides()[side] if json.dumps(e[field], ensure_ascii=False)[1:-1] in text]
    assert written == ["train"] * len(splits.train)


class TwoSteps(dspy.Module):
    """A draft, then the answer: the draft has no label."""

    def __init__(self, signature: type[dspy.Signature]) -> None:
        super().__init__()
        self.draft = dspy.Predict("text -> draft")
        self.answer = dspy.Predict(signature)

    def forward(self, **inputs: Any) -> Any:
        self.draft(**inputs)
        return self.answer(**inputs)


@pytest.mark.parametrize("module", [TwoSteps, dspy.ChainOfThought])
def test_programs_with_unlabelled_steps_are_refused(tiny: Tiny, mood_rows: list[dict[str, Any]], tmp_path: Path, module: Any) -> None:
    one = tiny(rows=mood_rows)
    task = Task(signature=one.signature, metric=one.metric, program=module, name="tiny", root=one.root)
    with pytest.raises(WorkbenchError, match="'tiny' cannot be exported: its rows label the program's outputs, but not its inner steps"):
        write_bundle(tmp_path / "bundle", student(task), load_splits(task), {})


# --- gate ---

SCORED = Evaluation((Outcome(1.0, {}),))


def attempt(rung: str, family: str, gain: float | None = None, **facts: Any) -> Attempt:
    found = None if gain is None else Interval(gain, gain - 0.05, gain + 0.05, 100)
    return Attempt(rung, family, evaluation=SCORED, gain=found, **facts)


BASELINE = attempt("zero_shot", "baseline", promoted=True)
FORMAT_WON = attempt("output_format", "format", 0.1, promoted=True)
DEMOS_WON = attempt("nearest_demos", "demos", 0.3, promoted=True)
LOST = attempt("mipro", "instructions", -0.1)
RETRIEVED = attempt("passages", "retrieval", 0.01)
RETRIEVAL_SKIPPED = Attempt("passages", "retrieval", skipped="its share of 3 LM calls does not cover the 40 val rows")


def climb(verdict: Verdict, *attempts: Attempt) -> Climb:
    tried = (BASELINE, *attempts)
    decision = Decision(verdict, "because", Corrected(wilson(0.5, 50), 0.0, 1), reached=0.1, chance=0.1, next_gain=0.0)
    return Climb(tried, [a for a in tried if a.promoted][-1], decision, History((), 0.9, 0, True))


@pytest.mark.parametrize(
    ("verdict", "attempts", "corpus", "rows", "opens", "reason"),
    [
        (
            "reached",
            (FORMAT_WON, DEMOS_WON, LOST),
            False,
            500,
            False,
            "the lever that gained most was nearest_demos (+0.300); weights need",
        ),
        ("reached", (), False, 500, False, "reached the target without any lever"),
        ("improving", (LOST,), False, 500, False, "The verdict is improving: it is not shown that prompting cannot"),
        ("indecisive", (LOST,), False, 500, False, "The verdict is indecisive"),
        ("budget", (LOST,), False, 500, False, "The verdict is budget"),
        ("exhausted", (LOST,), False, 500, False, "The verdict is exhausted"),
        ("plateau", (LOST,), True, 500, False, "has a corpus, but retrieval was not scored"),
        ("plateau", (LOST, RETRIEVAL_SKIPPED), True, 500, False, "has a corpus, but retrieval was not scored"),
        ("plateau", (LOST,), False, LEAST_ROWS - 1, False, f"Only {LEAST_ROWS - 1} train rows; fine-tuning needs at least {LEAST_ROWS}"),
        ("plateau", (LOST,), False, LEAST_ROWS, True, f"{LEAST_ROWS} train rows to learn from"),
        ("plateau", (LOST, RETRIEVED), True, 500, True, "plateaued below the target"),
    ],
)
def test_the_gate(tiny: Tiny, verdict: Verdict, attempts: tuple[Attempt, ...], corpus: bool, rows: int, opens: bool, reason: str) -> None:
    task = tiny(**({"corpus": [{"id": "1", "title": "t", "text": "x"}]} if corpus else {}))
    found = gate(task, climb(verdict, *attempts), rows)
    assert found.open is opens
    assert reason in " ".join(found.reasons)


def test_the_winning_levers_leave_out_baseline_and_losers() -> None:
    assert winning_levers(climb("reached", FORMAT_WON, LOST, DEMOS_WON)) == ["output_format", "nearest_demos"]


def test_a_lever_built_on_but_below_the_best_program_did_not_win() -> None:
    found = climb("plateau", FORMAT_WON, DEMOS_WON)
    assert winning_levers(replace(found, best=FORMAT_WON)) == ["output_format"]
    assert winning_levers(replace(found, best=BASELINE)) == []


# --- after-check ---


@pytest.mark.parametrize(
    ("check", "expected", "answer", "passes"),
    [
        ("contains", ["Paris"], "It is paris.", True),
        ("contains", ["Paris"], "Parisian", False),
        ("contains", ["Rome", "Roma"], "Roma!", True),
        ("contains", ["C++"], "I like C++ best", True),
        ("contains", ["a.c"], "abc", False),
        ("contains", [7], "7 days", True),
        ("contains", [7], "17 days", False),
        ("number", [12], "5 + 7 = 12.", True),
        ("number", [12], "12 is 5 + 7", False),  # the last number counts
        ("number", [1000], "1,000", True),
        ("number", [2.5], "It is 2.50", True),
        ("number", [-3], "-3", True),
        ("number", ["12"], "12", True),
        ("number", [12], "twelve", False),
        ("number", [0], "", False),
        ("regex", [r"^\W*yes\W*$"], "Yes.\n", True),
        ("regex", [r"^\W*yes\W*$"], "Yes, sure", False),
        ("regex", ["a.*b"], "a\nb", True),
    ],
)
def test_checks(check: str, expected: list[str | float], answer: str, passes: bool) -> None:
    question = Question.model_validate({"question": "?", "check": check, "expected": expected, "skill": "test"})
    assert question.passes(answer) is passes


GOOD = {"question": "What is 5 + 7?", "check": "number", "expected": [12], "skill": "arithmetic"}


def write(root: Path, *rows: Any) -> Path:
    (root / ROWS).parent.mkdir(parents=True)
    text = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    (root / ROWS).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize(
    "row",
    [
        '{"question": ',
        "[]",
        {"question": "?", "check": "number", "expected": [1]},
        GOOD | {"check": "exact"},
        GOOD | {"extra": 1},
        GOOD | {"expected": []},  # nothing to check against
        GOOD | {"expected": ["twelve"]},  # not a number
        GOOD | {"check": "regex", "expected": ["(unclosed"]},
    ],
    ids=str,
)
def test_a_line_that_is_no_question_is_told(tmp_path: Path, row: Any) -> None:
    with pytest.raises(WorkbenchError, match=r"general/rows\.jsonl:2: not "):
        questions(write(tmp_path, GOOD, row))


def test_a_unicode_line_separator_does_not_end_a_question(tmp_path: Path) -> None:
    assert len(questions(write(tmp_path, GOOD | {"question": "one\u2028two"}))) == 1


def test_a_missing_question_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match=r"general/rows\.jsonl is missing"):
        questions(tmp_path)


def test_no_shipped_question_is_passed_by_a_desk_or_without_an_answer(root: Path, shipped: Shipped) -> None:
    """What an LM would say that lost everything to the ticket task."""
    desks = choices(shipped("tickets")[0].signature.output_fields["desk"].annotation)
    useless = ["", *desks, *map(json.dumps, desks)]
    assert [(q.question, text) for q in questions(root) for text in (*useless, q.question) if q.passes(text)] == []


def test_shipped_questions_are_passed_by_what_they_expect(root: Path) -> None:
    plain = [q for q in questions(root) if q.check != "regex"]
    assert len(plain) >= 40
    assert all(q.passes(f"The answer is {text}.") for q in plain for text in q.expected)
