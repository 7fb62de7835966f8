"""Files of labelled rows → validated Examples, each with its place. Knows no LM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from optimize.data.fields import closed_set, field_type, is_optional
from optimize.data.stream import Rows
from optimize.errors import WorkbenchError, did_you_mean, shown
from optimize.files import read_jsonl
from optimize.task import PLACE, Task, choices

FORMATS = "jsonl", "csv", "parquet"
NAMES = {"train": ("train",), "val": ("val", "validation", "dev"), "test": ("test",)}
CHOICES = 15  # named in an error
ERRORS = 5  # rows that do not fit are named one by one up to so many
Placed = tuple[str, dspy.Example]  # file and line, row
BESIDE = ("ood", "unlabelled")  # files of rows that may lack their outputs
LABELLED = "labelled.jsonl"  # rows that were chosen to be labelled: for train alone
SYNTHETIC = "synthetic"  # the file of rows that an LM wrote


def read_folder(task: Task) -> tuple[dict[str, list[Placed]], tuple[str, ...]]:
    """The rows by side, or all as `rows`, and what was made of the files where it may surprise."""
    files: dict[str, Path] = {}
    for suffix in reversed(FORMATS):  # where two files share a name, JSONL is read
        files |= {path.stem: path for path in sorted(task.folder.glob(f"*.{suffix}"))}
    found = {name: [files[a] for a in alias if a in files][:1] for name, alias in NAMES.items()}
    if all(found.values()):
        used = {name: path for name, (path,) in found.items()}
    elif any(found.values()):
        missing = ", ".join(f"{name}.jsonl" for name, path in found.items() if not path)
        raise WorkbenchError(
            f"{task.folder} has a given split but lacks {missing}. Add it (some of the other "
            "rows: none may stand on two sides), or put all of them into one rows.jsonl."
            f"{_there(task.folder)}"
        )
    elif "rows" in files:
        used = {"rows": files["rows"]}
    else:
        raise WorkbenchError(
            f"{task.folder} holds no rows. Put rows.jsonl there (or .csv, .parquet; or train, val "
            f"and test files): one row with the fields {', '.join(task.fields)} a line."
            f"{_there(task.folder)}"
        )
    return {name: read_file(task, path) for name, path in used.items()}, _notes(task, used)


def _there(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))
    return f" It holds {', '.join(names)}." if names else ""


def _notes(task: Task, used: Mapping[str, Path]) -> tuple[str, ...]:
    """Files taken for a side whose name they do not bear, and files of rows that are not read."""
    beside = (*(f"{stem}.jsonl" for stem in (*BESIDE, SYNTHETIC, "corpus")), LABELLED)
    known = {*used.values(), *(task.folder / name for name in beside)}
    taken = [
        f"{path.name} is taken as the {name} rows."
        for name, path in used.items()
        if path.stem != name
    ]
    files = sorted(path for suffix in FORMATS for path in task.folder.glob(f"*.{suffix}"))
    return *taken, *(f"{path.name} is not read." for path in files if path not in known)


def read_file(task: Task, path: Path) -> list[Placed]:
    return _examples(task, _raw(task, path), unlabelled=path.stem in BESIDE)


def read_new(task: Task, path: Path) -> list[Placed]:
    """Rows collected in use, each labelled or not: outputs that are all missing or empty, as in a
    CSV, are no labels.
    """
    if path.suffix[1:] not in FORMATS:
        raise WorkbenchError(f"{path} is none of {', '.join(f'.{name}' for name in FORMATS)}.")
    outputs = task.signature.output_fields

    def bare(row: Any) -> Any:
        given = isinstance(row, dict) and any(row.get(n) not in (None, "") for n in outputs)
        unlabelled = isinstance(row, dict) and not given
        return {n: v for n, v in row.items() if n not in outputs} if unlabelled else row

    rows = [(place, bare(row)) for place, row in _raw(task, path)]
    return _examples(task, rows, unlabelled=True)


def is_labelled(task: Task, row: dspy.Example) -> bool:
    """Whether a row has its outputs."""
    return set(task.signature.output_fields) <= set(row.keys())


def _raw(task: Task, path: Path) -> list[tuple[str, Any]]:
    """Each row as it stands in the file, with its place."""
    if path.suffix == ".jsonl":
        rows = [(f"{path}:{number}", row) for number, row in read_jsonl(path)]
    else:
        rows = list(_read_table(path))
    if not rows:
        raise WorkbenchError(
            f"{path} is empty. Write one row with the fields {', '.join(task.fields)} a line."
        )
    return rows


def _read_table(path: Path) -> Iterator[tuple[str, Any]]:
    """CSV, every cell as text, or Parquet."""
    for number, row in enumerate(Rows(path), 1):
        if row.problem:
            raise WorkbenchError(f"{path.parent}/{row.problem}")
        yield f"{path} row {number}", row.columns


def read_hub(task: Task) -> tuple[dict[str, list[Placed]], tuple[str, ...]]:
    """The same of a dataset on the hub."""
    import datasets

    assert task.data
    try:
        found = datasets.load_dataset(task.data)
    except Exception as error:
        raise WorkbenchError(
            f"Dataset {task.data!r} cannot be loaded from the hub: {_first_line(error)}"
        ) from error
    sides = {
        name: next((found[a] for a in alias if a in found), None) for name, alias in NAMES.items()
    }
    notes: tuple[str, ...] = ()
    if not all(sides.values()):
        sides = {"rows": datasets.concatenate_datasets(list(found.values()))}
        anew = "has no train, validation and test splits: all its rows are divided anew."
        notes = (f"{task.data} {anew}",)
    placed = {
        name: _examples(
            task,
            (
                (f"{task.data}/{name} row {n}", row)
                for n, row in enumerate(_named_labels(task, rows), 1)
            ),
        )
        for name, rows in sides.items()
        if rows is not None
    }
    return placed, notes


def _named_labels(task: Task, rows: Any) -> Iterator[dict[str, Any]]:
    """The hub's rows; where it keeps labels as numbers with names, and the signature has these
    names, by name.
    """
    names = {
        name: kind.names
        for name, kind in rows.features.items()
        if type(kind).__name__ == "ClassLabel"
        and name in task.signature.output_fields
        and set(closed_set(task.signature.output_fields[name])) & set(kind.names)
    }
    for row in rows:
        told = {
            name: known[row[name]] if isinstance(row[name], int) and row[name] >= 0 else None
            for name, known in names.items()
        }
        yield {**row, **told}


def _examples(
    task: Task, rows: Iterable[tuple[str, Any]], unlabelled: bool = False
) -> list[Placed]:
    """Validated rows. Raises one WorkbenchError for all that do not fit, naming the first ones."""
    found, errors = [], []
    for place, row in rows:
        try:
            found.append((place, _example(task, row, place, unlabelled)))
        except WorkbenchError as error:
            errors.append(str(error))
    if len(errors) > 1:
        more = [f"… and {len(errors) - ERRORS} more"] if len(errors) > ERRORS else []
        raise WorkbenchError(
            "\n".join([f"{len(errors)} rows do not fit the signature:", *errors[:ERRORS], *more])
        )
    if errors:
        raise WorkbenchError(errors[0])
    return found


def _example(task: Task, row: Any, place: str, unlabelled: bool) -> dspy.Example:
    """A validated row; columns the signature does not name are kept as they are. unlabelled: it may
    lack all outputs.
    """
    if not isinstance(row, dict):
        raise WorkbenchError(f"{place}: a row is a JSON object, found {type(row).__name__}.")
    known = (
        task.fields
        if not unlabelled or task.signature.output_fields.keys() & row.keys()
        else task.signature.input_fields
    )
    values = {**row, **_values(known, row, place)}
    found = dspy.Example(**values).with_inputs(*task.signature.input_fields)
    setattr(found, PLACE, place)
    return found


def read_row(task: Task, row: Mapping[str, Any], place: str) -> dspy.Example:
    """A labelled row.

    Raises WorkbenchError, naming place and field, for one that does not fit the signature.
    """
    return _example(task, dict(row), place, unlabelled=False)


def row_inputs(task: Task, row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The inputs of a row, whatever else it holds.

    Raises WorkbenchError, naming place and field, for one that is missing or does not fit.
    """
    return _values(task.signature.input_fields, row, place)


def row_outputs(task: Task, row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The same for its outputs."""
    return _values(task.signature.output_fields, row, place)


def _values(known: Mapping[str, FieldInfo], row: Mapping[str, Any], place: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, info in known.items():
        if name not in row and is_optional(info):
            values[name] = None
            continue
        if name not in row:
            has = ", ".join(map(str, row))[:200] or "none"
            near = did_you_mean(name, map(str, row))
            raise WorkbenchError(f"{place}: field {name!r} is missing; the row has {has}.{near}")
        values[name] = _value(row[name], info, f"{place}: field {name!r}")
    return values


def read_inputs(task: Task, given: Mapping[str, str]) -> dspy.Example:
    """One input from the texts of its fields; what is not text is read as JSON.

    Raises WorkbenchError, naming the field, for one that is missing, not known or does not fit.
    """
    for name in given:
        if name not in (known := task.signature.input_fields):
            near = did_you_mean(name, known) or f" Its inputs: {', '.join(known)}."
            raise WorkbenchError(f"Task {task.name!r} has no input {name!r}.{near}")
    return _example(task, dict(given), "the input", unlabelled=True)


def read_output(task: Task, name: str, text: str) -> Any:
    """The value of an output that a person has typed.

    Raises WorkbenchError, naming the field, for one that does not fit its type.
    """
    field = task.signature.output_fields[name]
    return _value(closed_set(field).get(text, text), field, f"field {name!r}")


def _value(value: Any, field: FieldInfo, place: str) -> Any:
    if field.annotation is str and isinstance(value, str) and not value.strip():
        raise WorkbenchError(f"{place} is empty; write its text or remove the row.")
    adapter = TypeAdapter(field_type(field))
    try:
        try:
            return adapter.validate_python(value)
        except ValidationError:
            if not isinstance(value, str) or field.annotation is str:
                raise
            if value in (options := closed_set(field)):  # a number of a Literal, in a CSV cell
                return options[value]
            if choices(field.annotation):
                raise
            return adapter.validate_json(value or "null")  # a nested value in a CSV cell
    except ValidationError as error:
        first = error.errors()[0]
        inside = ".".join(str(part) for part in first["loc"])
        known = choices(field.annotation)
        problem = (
            f"{shown(value)} is not one of {_some(known)}"
            if known
            else f"{first['msg']}, got {shown(first['input'])}"
        )
        near = did_you_mean(value, known) if isinstance(value, str) else ""
        raise WorkbenchError(
            f"{place}{f' ({inside})' if inside else ''}: {problem}.{near}"
        ) from None


def _some(known: Sequence[str]) -> str:
    more = f", … ({len(known)} in all)" if len(known) > CHOICES else ""
    return ", ".join(map(repr, known[:CHOICES])) + more


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
