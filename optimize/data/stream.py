"""Rows of any number from JSONL, CSV or Parquet, one after the other. Never holds a file whole."""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError
from optimize.files import LONGEST, json_value, to_json

LOT = 1000  # rows of a Parquet file held at once


@dataclass(frozen=True)
class Given:
    """A row as it was given. problem: why it cannot be read; it has no columns then."""

    place: str
    columns: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


class Rows:
    """The rows of a file, or of a folder of Parquet files.

    Raises WorkbenchError where there are none or they are in no known form.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        forms = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
        self.form = ".parquet" if path.is_dir() else path.suffix
        if self.form not in forms:
            raise WorkbenchError(f"{path}: rows are read from .jsonl, .csv or .parquet files.")
        if not path.exists():
            raise WorkbenchError(f"{path} does not exist.")
        self.files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        self._read = forms[self.form]

    def __iter__(self) -> Iterator[Given]:
        for file in self.files:
            yield from self._read(file)

    def between(self, start: int, stop: int) -> Iterator[Given]:
        """The rows of these numbers, counted from 0 over all files, `stop` not among them; what
        lies before them is not read. Of Parquet rows alone.
        """
        first = 0
        for file, count in zip(self.files, self._counts, strict=True):
            if first < stop and start < first + count:
                yield from _parquet(file, max(0, start - first), stop - first)
            first += count

    @cached_property
    def _counts(self) -> list[int]:
        return [_parquet_file(file).metadata.num_rows for file in self.files]

    def count(self) -> int:
        """How many there are; a Parquet file says so itself, others are read through."""
        if self.form == ".parquet":
            return sum(self._counts)
        if self.form == ".jsonl":
            with self.path.open("rb") as lines:
                return sum(1 for line in lines if line.strip())
        return sum(1 for _ in self)

    def types(self) -> dict[str, Any]:
        """{column: Arrow type} of Parquet rows, of columns that have one in all files alike."""
        import pyarrow

        found: dict[str, set[Any]] = {}
        for file in self.files if self.form == ".parquet" else ():
            for column in _parquet_file(file).schema_arrow:
                found.setdefault(column.name, set()).add(column.type)
        alike = {name: kinds.pop() for name, kinds in found.items() if len(kinds) == 1}
        return {name: kind for name, kind in alike.items() if not pyarrow.types.is_null(kind)}


def row_id(inputs: Iterable[str], row: Given) -> str:
    """The row's own `id`, else a hash of its inputs; equal rows without an id share one."""
    own = row.columns.get("id")
    if own is not None and own != "":
        return str(own)
    told = row.problem or to_json({name: row.columns.get(name) for name in inputs})
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _jsonl(path: Path) -> Iterator[Given]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            place = f"{path.name}:{number}"
            if not line.strip():
                continue
            try:
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                value = json_value(text.decode(), place)
            except UnicodeDecodeError as error:
                yield Given(place, problem=f"{place}: not UTF-8: {error.reason}.")
            except WorkbenchError as error:
                yield Given(place, problem=str(error))
            else:
                known = isinstance(value, dict)
                told = f"{place}: a row is a JSON object, found {type(value).__name__}."
                yield Given(place, value) if known else Given(place, problem=told)


def _csv(path: Path) -> Iterator[Given]:
    csv.field_size_limit(LONGEST)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        number = 0
        try:
            header = next(rows, [])
            if len(set(header)) < len(header):
                raise WorkbenchError(f"{path}: two columns of its header have the same name.")
            for number, cells in enumerate(filter(_filled, rows), 1):
                place = f"{path.name} row {number}"
                if len(cells) == len(header):
                    yield Given(place, dict(zip(header, cells, strict=True)))
                    continue
                told = f"{place}: it has {len(cells)} cells, and the header {len(header)}: {cells}"
                yield Given(place, problem=told[:300])
        except UnicodeDecodeError as error:
            raise WorkbenchError(
                f"{path} is not UTF-8 text after row {number}: {error.reason}. Save it as UTF-8."
            ) from None
        except csv.Error as error:
            raise WorkbenchError(f"{path} is no CSV after row {number}: {error}.") from None


def _filled(row: list[str]) -> bool:
    """No blank line."""
    return bool(row) and (len(row) > 1 or not row[0].isspace())


def _parquet(path: Path, start: int = 0, stop: int = sys.maxsize) -> Iterator[Given]:
    file = _parquet_file(path)
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    begins = list(accumulate(sizes, initial=0))
    groups = [n for n, size in enumerate(sizes) if begins[n] < stop and start < begins[n] + size]
    number = begins[groups[0]] if groups else 0
    for lot in _lots(path, file, groups):
        inside = lot.slice(max(0, start - number), max(0, stop - max(start, number)))
        for place, row in enumerate(inside.to_pylist(), max(start, number) + 1):
            yield Given(f"{path.name} row {place}", row)
        number += lot.num_rows


def _lots(path: Path, file: Any, groups: list[int]) -> Iterator[Any]:
    import pyarrow

    try:
        yield from file.iter_batches(batch_size=LOT, row_groups=groups)
    except (pyarrow.ArrowException, OSError) as error:
        raise WorkbenchError(f"{path} cannot be read as Parquet: {error}.") from error


def _parquet_file(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise WorkbenchError(f"{path} cannot be read as Parquet: {error}.") from error
