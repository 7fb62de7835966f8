"""Rows with their answers as JSON lines or CSV, gone on with where a file ends. Knows no LM."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from optimize.errors import WorkbenchError
from optimize.files import plain, to_text
from optimize.report.untrusted import cell

FLUSH = 1.0  # seconds, of an output
OURS = ("confidence", "error", "row_id")


@dataclass(frozen=True)
class Columns:
    """given: those of the rows. outputs: the column of each output field; confidence, error,
    row_id: likewise. A name that the rows have already gives way to `predicted_NAME`, and one of
    ours that an output has to `apply_NAME`.
    """

    given: tuple[str, ...]
    outputs: dict[str, str]
    confidence: str
    error: str
    row_id: str

    @property
    def ours(self) -> tuple[str, ...]:
        return *self.outputs.values(), self.confidence, self.error, self.row_id

    @property
    def all(self) -> tuple[str, ...]:
        return *self.given, *self.ours


def columns_of(given: Sequence[str], outputs: Sequence[str]) -> Columns:
    """Raises WorkbenchError where the rows have both a name and what it would give way to."""
    fields = {name: f"predicted_{name}" if name in given else name for name in outputs}
    ours = [
        f"apply_{name}" if name in outputs else f"predicted_{name}" if name in given else name
        for name in OURS
    ]
    taken = Counter([*given, *fields.values(), *ours]).most_common(1)[0]
    if taken[1] > 1:
        raise WorkbenchError(
            f"The rows have {taken[0]!r} as a column, and so do the answers; rename it, so that "
            "each answer has a column of its own."
        )
    return Columns(tuple(given), fields, *ours)


@dataclass(frozen=True)
class Written:
    """What a file holds of one row already. given: the row's own columns."""

    row_id: str
    answer: dict[str, Any]
    confidence: float | None
    error: str | None
    given: dict[str, Any]


class Out(Protocol):
    """Where rows with their answers go, by their columns' names."""

    def written(self) -> Iterator[Written]:
        """The whole rows it holds, in order. Must be read to its end before `write`; what a killed
        command left of a row is cut off then. Raises WorkbenchError for what is no such row.
        """

    def write(self, row: Mapping[str, Any]) -> None: ...

    def as_kept(self, text: str) -> str:
        """A text as `written` gives it once it was written."""

    def close(self) -> None:
        """All that was written is on disk after it."""


class _Lines:
    """A file of whole records, each ended by a line end. flush: seconds after which what was
    written is given to the system.
    """

    def __init__(self, path: Path, columns: Columns, flush: float = FLUSH) -> None:
        self.path, self.columns, self.flush = path, columns, flush
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self._file = path.open("ab")
        self._flushed = time.monotonic()

    def written(self) -> Iterator[Written]:
        raise NotImplementedError

    def _records(self) -> Iterator[str]:
        """Each whole record; the file ends after the last of them then."""
        whole = 0
        with self.path.open("rb") as lines:
            record = b""
            for line in lines:
                record += line
                if not self._is_whole(record):
                    continue
                whole += len(record)
                yield record.decode()
                record = b""
        os.truncate(self.path, whole)

    def as_kept(self, text: str) -> str:
        return replaced(text)

    def _is_whole(self, record: bytes) -> bool:
        return record.endswith(b"\n")

    def _put(self, text: str) -> None:
        self._file.write(text.encode(errors="replace"))
        if time.monotonic() - self._flushed >= self.flush:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        self._file.close()

    def _foreign(self, number: int) -> WorkbenchError:
        return foreign(self.path, f"its record {number} is none that this command writes")


def replaced(text: str) -> str:
    """Without halves of characters, which no file can hold."""
    return text.encode(errors="replace").decode()


def foreign(path: Path, why: str) -> WorkbenchError:
    return WorkbenchError(
        f"{path} belongs to other rows: {why}. Give another --out, or --again to start it anew; "
        "what was answered is cached."
    )


class JsonLines(_Lines):
    def written(self) -> Iterator[Written]:
        for number, line in enumerate(self._records(), 1):
            try:
                row = json.loads(line)
                yield written_row(row, self.columns)
            except (ValueError, KeyError, TypeError):
                raise self._foreign(number) from None

    def write(self, row: Mapping[str, Any]) -> None:
        self._put(json.dumps(row, ensure_ascii=False, default=_as_json) + "\n")


def _as_json(value: Any) -> Any:
    """A date, a decimal or bytes of a Parquet row."""
    try:
        return plain(value)
    except ValueError:
        return str(value)


class Csv(_Lines):
    """Cells are safe to open in a spreadsheet: one that begins like a formula gets a `'` before
    it.
    """

    def written(self) -> Iterator[Written]:
        csv.field_size_limit(2**31 - 1)  # whatever was written is read
        records = (next(csv.reader(io.StringIO(text, newline=""))) for text in self._records())
        header = list(self.columns.all)
        for number, cells in enumerate(records):
            if number == 0 and cells != header:
                raise foreign(self.path, "it has other columns")
            if number and len(cells) != len(header):
                raise self._foreign(number)
            if number:
                row = dict(zip(header, map(_uncelled, cells), strict=True))
                yield written_row(row, self.columns)
        if not self.path.stat().st_size:
            self._put(_csv_line(header))

    def as_kept(self, text: str) -> str:
        return _uncelled(super().as_kept(cell(text)))

    def _is_whole(self, record: bytes) -> bool:
        return record.endswith(b"\n") and record.count(b'"') % 2 == 0

    def write(self, row: Mapping[str, Any]) -> None:
        values = (row.get(name) for name in self.columns.all)
        self._put(_csv_line(["" if v is None else cell(as_text(v)) for v in values]))


def as_text(value: Any) -> str:
    """As text; a date, a decimal or bytes of a Parquet row too."""
    try:
        return to_text(value)
    except ValueError:
        return str(value)


def _csv_line(cells: Sequence[str]) -> str:
    found = io.StringIO()
    # Python's writer takes a lone CR for a letter, which readers take for the end of a row
    bare = any("\r" in cell for cell in cells)
    writer = csv.writer(
        found, lineterminator="\n", quoting=csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL
    )
    writer.writerow(cells)
    return found.getvalue()


def _uncelled(text: str) -> str:
    """A cell as it was before it was made safe."""
    return text[1:] if text.startswith("'") and cell(text[1:]) == text else text


def written_row(row: Mapping[str, Any], columns: Columns) -> Written:
    """Raises KeyError, TypeError or ValueError for a row that is none of ours."""
    confidence = row[columns.confidence]
    return Written(
        str(row[columns.row_id]),
        {name: row[column] for name, column in columns.outputs.items()},
        None if confidence in (None, "") else float(confidence),
        row[columns.error] or None,
        {name: row[name] for name in columns.given if name in row},
    )
