"""Tasks: how one is loaded by name, what its metric may answer, which outputs are labels."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any, Literal

import dspy
import pytest

from optimize.commands.new import PROGRAM
from optimize.errors import UserCodeError, WorkbenchError
from optimize.task import Score, Task, choices, load_task, task_names


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Number(enum.IntEnum):
    ONE = 1


def write(root: Path, name: str, text: str) -> Path:
    (root / "programs").mkdir(exist_ok=True)
    (root / "programs" / f"{name}.py").write_text(text, encoding="utf-8")
    return root


def test_a_task_knows_its_name_and_folder(tmp_path: Path) -> None:
    task = load_task("review_loaded", write(tmp_path, "review_loaded", PROGRAM))
    assert (task.name, task.root, task.folder) == (
        "review_loaded",
        tmp_path,
        tmp_path / "devsets" / "review_loaded",
    )
    assert task.corpus is None
    task.folder.mkdir(parents=True)
    (task.folder / "corpus.jsonl").write_text("{}\n")
    assert task.corpus == task.folder / "corpus.jsonl"


def test_names_leave_out_private_files(tmp_path: Path) -> None:
    for name in ("zebra", "apple", "__init__", "_draft"):
        write(tmp_path, name, "")
    assert task_names(tmp_path) == ["apple", "zebra"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1", r"programs/broken\.py must end with `task = Task\(\.\.\.\)`; `task` is None"),
        ("task = 'mine'", r"programs/broken\.py must end with .*`task` is 'mine'"),
        ("def (:", r"programs/broken\.py does not load: SyntaxError: .*line 1"),
        (
            "import no_such_package_here",
            r"programs/broken\.py does not load: ModuleNotFoundError: No module named",
        ),
        ("1 / 0", r"programs/broken\.py does not load: ZeroDivisionError"),
        (PROGRAM.replace("target=0.9", "target=90"), r"programs/broken\.py: target=90 is no score"),
        (
            PROGRAM.replace("target=0.9", "target='0.9'"),
            r"target='0\.9' is no score; scores are numbers in 0…1",
        ),
        (
            PROGRAM.replace("task = Task(", "task = Task(least_gain=-1, "),
            r"least_gain=-1 is no score",
        ),
        (
            PROGRAM.replace("task = Task(", "task = Task(stability='Stable', "),
            r"stability='Stable'; say 'stable' or 'changing'",
        ),
    ],
)
def test_a_file_that_is_no_task(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(WorkbenchError, match=told):
        load_task("broken", write(tmp_path, "broken", text))


@pytest.mark.parametrize("name", ["nothing", "../apple", "apple.py", ""])
def test_an_unknown_name_is_told_the_known_ones(tmp_path: Path, name: str) -> None:
    write(tmp_path, "apple", PROGRAM)
    with pytest.raises(WorkbenchError, match=r"does not exist\..* Tasks: apple\."):
        load_task(name, tmp_path)


def test_no_task_at_all(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="Tasks: none below"):
        load_task("nothing", tmp_path)


def task_with(answer: Any, output: Any = str) -> Task:
    signature = dspy.Signature(
        {"text": (str, dspy.InputField()), "answer": (output, dspy.OutputField())}
    )
    return Task(signature=signature, metric=lambda example, prediction: answer, name="tiny")


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        (0, Score(0.0)),
        (0.25, Score(0.25)),
        (True, Score(1.0)),
        (Score(0.5, "half"), Score(0.5, "half")),
    ],
)
def test_a_metric_may_answer_a_number_or_a_score(answer: Any, score: Score) -> None:
    assert task_with(answer).score(dspy.Example(), dspy.Prediction()) == score


@pytest.mark.parametrize(
    "answer",
    [-0.1, 1.01, float("nan"), float("inf"), Score(2.0), Score(float("nan")), None, "good"],
)
def test_a_metric_that_answers_no_score_is_told(answer: Any) -> None:
    with pytest.raises(UserCodeError, match=r"test_task\.py:\d+: the metric of task 'tiny' .*0…1"):
        task_with(answer).score(dspy.Example(), dspy.Prediction())


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Literal["a", "b"], ("a", "b")),
        (Literal[1, 2], ("1", "2")),
        (Level, ("low", "high")),
        (Number, ("1",)),
        (str, ()),
        (bool, ()),
        (list[Level], ()),
        (None, ()),
    ],
)
def test_choices(annotation: Any, expected: tuple[str, ...]) -> None:
    assert choices(annotation) == expected


@pytest.mark.parametrize(
    ("output", "label"),
    [(Literal["a", "b"], "answer"), (Level, "answer"), (str, None), (list[str], None)],
)
def test_the_label_is_a_single_closed_output(output: Any, label: str | None) -> None:
    assert task_with(1, output).label == label


def test_two_outputs_have_no_label() -> None:
    fields = {
        "text": (str, dspy.InputField()),
        "one": (Level, dspy.OutputField()),
        "two": (Level, dspy.OutputField()),
    }
    assert Task(signature=dspy.Signature(fields), metric=lambda e, p: 1.0).label is None


@pytest.mark.parametrize("side", ["text", "verdict"])
@pytest.mark.parametrize(
    "name",
    [
        "lm",
        "config",
        "demos",
        "self",
        "signature",
        "items",
        "keys",
        "values",
        "get",
        "copy",
        "inputs",
        "labels",
        "base",
        "instance",
        "new_signature",
        "completions",
        "toDict",
        "fields",
        "instructions",
        "without",
        "with_inputs",
    ],
)
def test_a_field_that_collides_with_dspy_is_named(tmp_path: Path, side: str, name: str) -> None:
    text = PROGRAM.replace(f"    {side}: ", f"    {name}: ")
    assert text != PROGRAM
    with pytest.raises(WorkbenchError, match=rf"programs/odd\.py: the field '{name}' has a name"):
        load_task("odd", write(tmp_path, "odd", text))


def test_a_file_that_does_not_load_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match=r"ZeroDivisionError.*\(programs/broken\.py:2, in"):
        load_task("broken", write(tmp_path, "broken", "x = 0\n1 / x"))
    with pytest.raises(WorkbenchError, match=r"does not load: SystemExit: 1"):
        load_task("broken", write(tmp_path, "broken", "raise SystemExit(1)"))
