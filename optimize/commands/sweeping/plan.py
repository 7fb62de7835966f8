"""The file of a sweep, checked, and the cells it stands for. Asks no LM."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from optimize.config import LIMITS, TASK_LM, RunConfig, load_config
from optimize.errors import UserCodeError, WorkbenchError, did_you_mean, shown
from optimize.files import read_text
from optimize.store.champion import champion
from optimize.task import load_task, task_names

FOLDER = "mlruns/sweeps"  # of all sweeps of a project
# what an entry of `lms` may set beside the LM's name
OF_LM = (*TASK_LM, "threads", "timeout")
# of a run's knobs those that a grid does not vary: they have a place of their own
ELSEWHERE = (*TASK_LM[:2], "seed", "api_key", *LIMITS)
NAMED = re.compile(r"[A-Za-z0-9_.-]+")
SPEED = ("threads", "timeout")  # knobs that change no answer


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Budget(_Table):
    """Of all cells together, whenever and wherever they run. None: no cap."""

    calls: int | None = Field(None, ge=1)
    usd: float | None = Field(None, gt=0)


class CellLimits(_Table):
    """Of each cell, by the names of a run's knobs."""

    max_calls: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    budget_usd: float | None = Field(None, gt=0)
    max_minutes: float | None = Field(None, gt=0)


class Share(_Table):
    """What a cell takes of a machine; so many of them run at once as there is room for. retries:
    of a cell whose worker or machine is lost.
    """

    cpus: float = Field(1, gt=0)
    gpus: float = Field(0, ge=0)
    memory_gb: float | None = Field(None, gt=0)
    retries: int = Field(3, ge=0)


class SweepFile(_Table):
    """SWEEP.toml. lms: a name, or a table with OF_LM; none: the project's own.

    grid: knobs of optimize.toml, each with a value or a list of them. cache: whose answers a cell
    finds, the project's or only its own.
    """

    tasks: tuple[str, ...] = Field(min_length=1)
    lms: tuple[str | dict[str, Any], ...] = ()
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    grid: dict[str, Any] = {}
    budget: Budget = Budget.model_validate({})
    limits: CellLimits = CellLimits.model_validate({})
    share: Share = Share.model_validate({})
    cache: Literal["project", "cell"] = "project"


@dataclass(frozen=True)
class Cell:
    """One run of a sweep. given: its knobs, beside LM and seed. setting: LM and those knobs in
    which it differs from other cells. inputs: a hash of all that its result depends on.
    """

    number: int
    task: str
    config: RunConfig
    given: Mapping[str, Any]
    inputs: str
    setting: str = ""

    @property
    def id(self) -> str:
        """The name of its folder, which stays the same when the sweep gets more cells."""
        config = self.config
        told = [self.task, config.lm, config.api_base, config.seed, dict(self.given)]
        text = json.dumps(told, sort_keys=True, default=str)
        return f"{self.task}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Sweep:
    """A file that holds. name: the file's."""

    root: Path
    path: Path
    file: SweepFile
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def folder(self) -> Path:
        return self.root / FOLDER / self.name

    def home(self, cell: Cell) -> Path:
        return self.folder / cell.id


def read_sweep(root: Path, path: Path) -> Sweep:
    """The file, with its cells: seeds outermost, so that cells at work side by side share no
    calls, then the grid, LMs, tasks. Raises WorkbenchError for what is wrong, with the nearest
    name.
    """
    path = path.resolve()
    if not NAMED.fullmatch(path.stem):
        raise WorkbenchError(
            f"{path}: the file's name is the sweep's; use letters, digits, '-', '_' and '.' alone."
        )
    try:
        file = SweepFile.model_validate(tomllib.loads(read_text(path)))
    except tomllib.TOMLDecodeError as error:
        raise WorkbenchError(f"{path} is not valid TOML: {error}.") from None
    except ValidationError as error:
        raise WorkbenchError(f"{path}: {_told(error)}") from None
    _check_names(root, path, file)
    grid = {knob: _values(knob, value) for knob, value in file.grid.items()}
    lms = [lm if isinstance(lm, dict) else {"lm": lm} for lm in file.lms] or [{}]
    limits = file.limits.model_dump(exclude_none=True)
    found: list[Cell] = []
    for seed, values, lm, task in itertools.product(
        file.seeds, itertools.product(*grid.values()), lms, file.tasks
    ):
        given = dict(zip(grid, values, strict=True))
        try:
            config = load_config(root, **limits | given | lm, seed=seed)
        except WorkbenchError as error:
            raise WorkbenchError(f"{path}: {error}") from None
        others = {k: v for k, v in lm.items() if k not in (*TASK_LM[:2], *SPEED)}
        inputs = _inputs(root, task, config)
        found.append(Cell(len(found), task, config, given | others, inputs))
    _check_different(path, found)
    return Sweep(root, path, file, tuple(_labelled(found)))


def _labelled(cells: Sequence[Cell]) -> Iterator[Cell]:
    """The cells, each with what it differs in from others of its LM."""
    for cell in cells:
        rivals = [other for other in cells if other.config.lm == cell.config.lm]
        knobs = {"api_base": cell.config.api_base, **cell.given}
        differ = {
            knob: value
            for knob, value in knobs.items()
            if any(getattr(other.config, knob) != getattr(cell.config, knob) for other in rivals)
        }
        words = [cell.config.lm, *(f"{knob}={value}" for knob, value in differ.items())]
        yield replace(cell, setting=", ".join(words))


def _told(error: ValidationError) -> str:
    """The first thing that is wrong, with the nearest name."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] != "extra_forbidden":
        return f"{place}: {first['msg']} (got {shown(first['input'])})."
    *above, name = first["loc"]
    kind: Any = SweepFile
    for part in above:
        kind = kind.model_fields[part].annotation
    known = kind.model_fields
    near = did_you_mean(str(name), known) or f" Known are {', '.join(known)}."
    return f"{place!r} is no key of a sweep.{near}"


def _check_names(root: Path, path: Path, file: SweepFile) -> None:
    known = task_names(root)
    for task in file.tasks:
        if task not in known:
            near = did_you_mean(task, known)
            raise WorkbenchError(f"{path}: no task {task!r} in {root / 'programs'}.{near}")
    knobs = [name for name in RunConfig.model_fields if name not in ELSEWHERE]
    for knob, value in file.grid.items():
        if knob in ELSEWHERE:
            raise WorkbenchError(
                f"{path}: grid.{knob} has a place of its own: lms, seeds, [limits] or, for a key, "
                "the environment."
            )
        _check_knob(path, f"grid.{knob}", knob, knobs)
        if value == []:
            raise WorkbenchError(f"{path}: grid.{knob} is empty; give at least one value.")
    for number, lm in enumerate(file.lms):
        for knob in lm if isinstance(lm, dict) else ():
            _check_knob(path, f"lms.{number}.{knob}", knob, OF_LM)
        if isinstance(lm, dict) and "lm" not in lm:
            raise WorkbenchError(f"{path}: lms.{number} has no lm; write lm = NAME.")


def _values(knob: str, given: Any) -> list[Any]:
    """What a knob is to be. Of one that is a list itself, a plain list is one value."""
    of_lists = isinstance(RunConfig.model_fields[knob].default, tuple)
    if not isinstance(given, list) or (of_lists and not any(isinstance(v, list) for v in given)):
        return [given]
    return given


def _check_knob(path: Path, place: str, knob: str, known: Iterable[str]) -> None:
    known = list(known)
    if knob not in known:
        near = did_you_mean(knob, known) or f" Known are {', '.join(known)}."
        raise WorkbenchError(f"{path}: {place!r} is no knob that can be set here.{near}")


def _check_different(path: Path, cells: list[Cell]) -> None:
    (most, count), *_ = Counter(cell.id for cell in cells).most_common(1)
    if count > 1:
        twice = [str(cell.number) for cell in cells if cell.id == most]
        raise WorkbenchError(
            f"{path}: cells {' and '.join(twice)} are the same. Name each task, LM, seed and value "
            "once."
        )


def _inputs(root: Path, task: str, config: RunConfig) -> str:
    knobs = config.model_dump(mode="json", exclude={"api_key", *SPEED})
    text = json.dumps([knobs, _files(root, task)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@cache  # of a sweep every cell asks for them
def _files(root: Path, task: str) -> str:
    """A hash of the task's file and rows, and of its judge's and the prompt that judges."""
    found, judge = hashlib.sha256(), None
    with suppress(WorkbenchError, UserCodeError):  # what its cells fail with is told by them
        judge = load_task(task, root).judge
    for name in filter(None, (task, judge)):
        folder = root / "devsets" / name
        for path in (root / "programs" / f"{name}.py", *sorted(folder.rglob("*"))):
            if path.is_file():
                found.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    if judge:
        with suppress(WorkbenchError):  # not optimized yet
            found.update(champion(root, judge).text("program.json").encode())
    return found.hexdigest()
