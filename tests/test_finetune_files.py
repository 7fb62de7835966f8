"""The fallback's files: rows, hand-off bundle, and the questions a tuned LM must still answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
import pytest

from optimize.devset import Splits, load_splits
from optimize.errors import WorkbenchError
from optimize.finetune.aftercheck import ROWS, Question, questions
from optimize.finetune.bundle import write_bundle
from optimize.finetune.rows import FORMAT, chat_rows, tuned_student
from optimize.lm import FORMATS
from optimize.program import Program, load, render, student
from optimize.retrieval import Passages
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
