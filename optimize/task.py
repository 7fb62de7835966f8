"""A task: what goes in, what comes out, and how an answer is scored. Knows no rows, no LM, no
optimizer.
"""

from __future__ import annotations

import enum
import importlib.util
import math
import os
import re
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import dspy
from pydantic.fields import FieldInfo

from optimize import usercode
from optimize.errors import UserCodeError, WorkbenchError, did_you_mean, shown
from optimize.files import read_text

if TYPE_CHECKING:  # an exported program has no statistics with it
    from optimize.stats.judge import Confusion

GUIDE = "GUIDE.md"
DRAFTED = "> Drafted by"  # begins one that an LM wrote, until a person has checked it


@dataclass(frozen=True)
class Score:
    """How good one prediction is, from 0 to 1, and, for reflective optimizers, why."""

    value: float
    feedback: str = ""


LONGEST_NAME = 100  # letters: file systems take 255 with what is put around it
MOST_TOKENS = 1_000_000  # of an answer: no LM writes more
PLACE = "_place"  # the attribute of an Example that says which file and line it was read from
# Members of DSPy's examples, predictions and signatures, and arguments of its modules: a field of
# that name is lost or replaces them. An output is refused as well: it may be a next step's input.
TAKEN = {name for name in dir(dspy.Prediction()) if not name.startswith("_")} | {
    "base", "config", "demos", "fields", "instance", "instructions", "lm", "new_signature", "self",
    "signature",
}  # fmt: skip

Metric = Callable[[dspy.Example, dspy.Prediction], Score | float]


@dataclass(frozen=True, kw_only=True)
class Task:
    """One file in `programs/` ends with `task = Task(...)`; its rows lie in `devsets/` under the
    same name.

    Args:
        signature: what goes in and what comes out.
        metric: gives an answer a score in 0…1, and feedback on what is wrong with it.
        judge: in its place the name of another task, whose program passes an answer or does not;
            its rows are answers that people have judged. Scores are corrected for its errors.
        program: makes the DSPy module of the signature; default: `dspy.Predict`.
        target: the score a team lead would ask for.
        max_tokens: room for the longest right answer in any format.
        data: a dataset on the Hugging Face hub instead of the folder.
        raters: the labels that several annotators gave a row, where its extra columns hold them.
        stability: whether what is asked will stay as it is; weights are only tuned for a stable
            task that somebody owns.
        owner: who maintains the task and its rows.
        least_gain: over the best prompt program, for which tuned weights are worth their upkeep.
        name: filled in when the task is loaded.
        root: the project's folder, likewise.
        confusion: of its judge's verdicts with people's, once the judge was held against them.
    """

    signature: type[dspy.Signature]
    metric: Metric | None = None
    judge: str = ""
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
    confusion: Confusion | None = None

    @property
    def folder(self) -> Path:
        return self.root / "devsets" / self.name

    @property
    def declared(self) -> bool:
        """Whether somebody has said that weights tuned for it will be kept up."""
        return self.stability == "stable" and bool(self.owner)

    @property
    def corpus(self) -> Path | None:
        """The task's passages, where it has any: JSONL rows of id, title, text."""
        path = self.folder / "corpus.jsonl"
        return path if path.is_file() else None

    @property
    def guide(self) -> str:
        """What people who label rows go by, where that is written down; else empty."""
        path = self.folder / GUIDE
        return read_text(path).strip() if path.is_file() else ""

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
        """The metric's verdict, checked: a metric that fails, or answers outside 0…1, is a bug
        worth stopping for: UserCodeError.
        """
        if not (metric := self.metric):
            raise WorkbenchError(
                f"Task {self.name!r} is scored by {self.judge!r}, which is not here."
            )
        with usercode.on_row(lambda: self.row_name(example)):
            found = usercode.run(lambda: metric(example, prediction), metric, self.root)
            score = found if isinstance(found, Score) else Score(found)
            number = isinstance(score.value, float | int) and math.isfinite(score.value)
            if not (number and 0 <= score.value <= 1):
                raise UserCodeError(
                    usercode.defined(metric, self.root),
                    f"the metric of task {self.name!r} returned {found!r}; return a Score or a "
                    "number in 0…1",
                )
        return replace(score, value=float(score.value))

    def row_name(self, row: Mapping[str, Any]) -> str:
        """Where a row stands and how its inputs begin, for a message."""
        place = str(getattr(row, PLACE, "")).removeprefix(f"{self.root}{os.sep}")
        inputs = [name for name in self.signature.input_fields if name in row]
        begin = ", ".join(f"{name}={str(row[name])[:60]!r}" for name in inputs[:2])
        return f"{place} ({begin})" if place else begin


def choices(annotation: object) -> tuple[str, ...]:
    """The values of a Literal or Enum annotation as text; empty for any other type."""
    if get_origin(annotation) is Literal:
        return tuple(str(value) for value in get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return tuple(str(member.value) for member in annotation)
    return ()


def named_well(name: str) -> bool:
    """Whether a task may be called so: its name is a module's, a folder's and an experiment's."""
    return name.isidentifier() and len(name) <= LONGEST_NAME


def task_names(root: Path) -> list[str]:
    return sorted(path.stem for path in (root / "programs").glob("[!_]*.py"))


def load_task(name: str, root: Path) -> Task:
    """The task of `programs/NAME.py` below `root`.

    Raises WorkbenchError if there is none or it does not load.
    """
    path = root / "programs" / f"{name}.py"
    if not named_well(name) or not path.is_file():
        known = task_names(root)
        raise WorkbenchError(
            f"No task {name!r}: programs/{name}.py does not exist.{did_you_mean(name, known)} "
            f"Tasks: {', '.join(known) or f'none below {root}'}."
        )
    task = getattr(_module(name, path, root), "task", None)
    if not isinstance(task, Task):
        raise WorkbenchError(
            f"programs/{name}.py must end with `task = Task(...)`; `task` is {task!r}."
        )
    _check(name, task)
    return replace(task, name=name, root=root)


def _module(name: str, path: Path, root: Path) -> ModuleType:
    """The file, run. Raises WorkbenchError with the place in it where it fails."""
    spec = importlib.util.spec_from_file_location(f"programs.{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # so that pydantic and pickle find the classes the file defines
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        # some of the names that DSPy uses fail as soon as the signature is defined
        named = re.search(r"^Field [`'](\w+)[`']", str(error))
        if named and (named[1] in TAKEN or named[1].startswith("model_")):
            raise WorkbenchError(_taken(name, named[1])) from error
        where = usercode.users(error, root)
        at = f" ({where.place})" if where else ""
        raise WorkbenchError(
            f"programs/{name}.py does not load: {usercode.told(error)}{at}"
        ) from error
    return module


def _check(name: str, task: Task) -> None:
    if bool(task.metric) == bool(task.judge):
        raise WorkbenchError(
            f"programs/{name}.py: Task(…) takes a metric, or the name of a task that is its judge: "
            f"one of the two, and here are {'both' if task.judge else 'none'}."
        )
    _check_signature(name, task.signature)
    tokens = task.max_tokens
    if not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 < tokens <= MOST_TOKENS:
        raise WorkbenchError(
            f"programs/{name}.py: max_tokens={shown(tokens)}; give the number of tokens that "
            f"the longest answer takes, at most {MOST_TOKENS:,}."
        )
    if taken := sorted(TAKEN & task.fields.keys()):
        raise WorkbenchError(_taken(name, taken[0]))
    for number in ("target", "least_gain"):
        if not (isinstance(value := getattr(task, number), int | float) and 0 <= value <= 1):
            raise WorkbenchError(
                f"programs/{name}.py: {number}={value!r} is no score; scores are numbers in 0…1."
            )
    if task.stability not in (None, "stable", "changing"):
        raise WorkbenchError(
            f"programs/{name}.py: stability={task.stability!r}; say 'stable' or 'changing'."
        )


def _check_signature(name: str, signature: Any) -> None:
    known: bool = isinstance(signature, type) and issubclass(signature, dspy.Signature)
    if not known:
        raise WorkbenchError(
            f"programs/{name}.py: signature={signature!r} is no class; write it as a subclass of "
            "dspy.Signature, so that its fields have types."
        )
    for kind, fields in (("Input", signature.input_fields), ("Output", signature.output_fields)):
        if not fields:
            raise WorkbenchError(
                f"programs/{name}.py: the signature {signature.__name__} has no dspy.{kind}Field."
            )


def _taken(name: str, field: str) -> str:
    return (
        f"programs/{name}.py: the field {field!r} has a name that DSPy uses itself; call it "
        f"something else, such as {field}_text, in the signature, the metric and the rows."
    )
