"""A task: what goes in, what comes out, and how an answer is scored. Knows no rows, no LM, no
optimizer.
"""

from __future__ import annotations

import enum
import importlib.util
import math
import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args, get_origin

import dspy
from pydantic.fields import FieldInfo

from optimize.errors import WorkbenchError


@dataclass(frozen=True)
class Score:
    """How good one prediction is, from 0 to 1, and, for reflective optimizers, why."""

    value: float
    feedback: str = ""


Metric = Callable[[dspy.Example, dspy.Prediction], Score | float]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One file in `programs/` ends with `task = Task(...)`; its rows lie in `devsets/` under the
    same name.

    target: the score a team lead would ask for. max_tokens: room for the longest right answer in
    any format. data: a dataset on the Hugging Face hub instead of the folder. raters: the labels
    that several annotators gave a row, where its extra columns hold them. stability: whether what
    is asked will stay as it is. owner: who maintains the task and its rows; weights are only tuned
    for a stable task that somebody owns. least_gain: over the best prompt program, for which tuned
    weights are worth their upkeep. name and root are filled in by `load_task`.
    """

    signature: type[dspy.Signature]
    metric: Metric
    program: Callable[[type[dspy.Signature]], dspy.Module] = dspy.Predict
    target: float = 0.9
    max_tokens: int = 256
    data: str | None = None
    raters: Callable[[dspy.Example], Sequence[Hashable]] | None = None
    stability: Literal["stable", "changing"] | None = None
    owner: str = ""
    least_gain: float = 0.02
    name: str = ""
    root: Path = field(default_factory=Path)

    @property
    def folder(self) -> Path:
        return self.root / "devsets" / self.name

    @property
    def corpus(self) -> Path | None:
        """The task's passages, where it has any: JSONL rows of id, title, text."""
        path = self.folder / "corpus.jsonl"
        return path if path.is_file() else None

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """Input fields, then output fields."""
        return {**self.signature.input_fields, **self.signature.output_fields}

    @property
    def label(self) -> str | None:
        """The output field that holds a class label, if the task has exactly one output and it is a
        closed set.
        """
        outputs = list(self.signature.output_fields.items())
        return outputs[0][0] if len(outputs) == 1 and choices(outputs[0][1].annotation) else None

    def score(self, example: dspy.Example, prediction: dspy.Prediction) -> Score:
        """The metric's verdict, checked: a metric that answers outside 0…1 is a bug worth stopping
        for.
        """
        found = self.metric(example, prediction)
        if not isinstance(found, Score | float | int):
            raise WorkbenchError(
                f"The metric of task {self.name!r} returned {found!r}; return a Score or a number "
                "in 0…1."
            )
        score = found if isinstance(found, Score) else Score(float(found))
        if not (math.isfinite(score.value) and 0 <= score.value <= 1):
            raise WorkbenchError(
                f"The metric of task {self.name!r} returned {score.value}; a score lies in 0…1."
            )
        return score


def choices(annotation: object) -> tuple[str, ...]:
    """The values of a Literal or Enum annotation as text; empty for any other type."""
    if get_origin(annotation) is Literal:
        return tuple(str(value) for value in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return tuple(str(member.value) for member in annotation)
    return ()


def task_names(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "programs").glob("[!_]*.py"))


def load_task(name: str, root: Path) -> Task:
    """The task of `programs/NAME.py` below `root`.

    Raises WorkbenchError if there is none or it does not load.
    """
    path = root / "programs" / f"{name}.py"
    if not name.isidentifier() or not path.is_file():
        known = ", ".join(task_names(root)) or f"none below {root}"
        raise WorkbenchError(
            f"No task {name!r}: programs/{name}.py does not exist. Tasks: {known}."
        )
    spec = importlib.util.spec_from_file_location(f"programs.{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that pydantic and pickle find the classes the file defines
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise WorkbenchError(
            f"programs/{name}.py does not load: {type(error).__name__}: {error}"
        ) from error
    task = getattr(module, "task", None)
    if not isinstance(task, Task):
        raise WorkbenchError(
            f"programs/{name}.py must end with `task = Task(...)`; `task` is {task!r}."
        )
    for number in ("target", "least_gain"):
        if not (isinstance(value := getattr(task, number), int | float) and 0 <= value <= 1):
            raise WorkbenchError(
                f"programs/{name}.py: {number}={value!r} is no score; scores are numbers in 0…1."
            )
    if task.stability not in (None, "stable", "changing"):
        raise WorkbenchError(
            f"programs/{name}.py: stability={task.stability!r}; say 'stable' or 'changing'."
        )
    return replace(task, name=name, root=root)
