"""Rows with their answers as Parquet shards, and whatever form a path asks for. Knows no LM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError
from optimize.report.answers import (
    Columns,
    Csv,
    JsonLines,
    Out,
    Written,
    as_text,
    foreign,
    replaced,
    written_row,
)

SHARD = 5000  # rows of a Parquet file
FORMS = ".jsonl, .csv, .parquet, or a folder for Parquet shards"


def open_out(path: Path, columns: Columns, types: Mapping[str, Any]) -> Out:
    """types: the Arrow type of each column of the rows given that has one."""
    if path.suffix == ".jsonl":
        return JsonLines(path, columns)
    if path.suffix == ".csv":
        return Csv(path, columns)
    return Shards(path, columns, types)


def check_out(path: Path) -> None:
    """Raises WorkbenchError for a path whose form nobody knows."""
    if path.suffix not in (".jsonl", ".csv", ".parquet", "") or (
        path.suffix in (".jsonl", ".csv") and path.is_dir()
    ):
        raise WorkbenchError(f"--out {path}: give {FORMS}.")


def _files(path: Path) -> list[Path]:
    """Those that a command has written there."""
    return sorted(path.glob("part-*.parquet")) if path.is_dir() else [path] * path.is_file()


def is_begun(path: Path) -> bool:
    return any(file.stat().st_size for file in _files(path))


def remove_out(path: Path) -> None:
    """Delete what an earlier command wrote there, and nothing else."""
    for file in _files(path):
        file.unlink()


class Shards:
    """A folder of Parquet files of SHARD rows each, every one of them whole."""

    def __init__(self, folder: Path, columns: Columns, types: Mapping[str, Any]) -> None:
        if folder.is_file():
            raise WorkbenchError(f"--out {folder} is a file; give a folder for Parquet shards.")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.columns = folder, columns
        self._types, self._rows = _typed(columns, types), list[dict[str, Any]]()

    def as_kept(self, text: str) -> str:
        return replaced(text)

    def written(self) -> Iterator[Written]:
        import pyarrow
        import pyarrow.parquet

        names = list(self.columns.all)
        for path in _files(self.folder):
            try:
                table = pyarrow.parquet.read_table(path, columns=names, partitioning=None)
                rows = table.to_pylist()
            except (pyarrow.ArrowException, OSError) as error:
                raise foreign(path, f"it cannot be read ({error})") from error
            if table.column_names != names:
                raise foreign(path, "it has other columns")
            yield from (written_row(row, self.columns) for row in rows)

    def write(self, row: Mapping[str, Any]) -> None:
        typed = {
            name: value if value is None or kind is not None else as_text(value)
            for name, kind in self._types.items()
            for value in (row.get(name),)
        }
        self._rows.append(typed)
        if len(self._rows) >= SHARD:
            self._shard()

    def close(self) -> None:
        if self._rows:
            self._shard()

    def _shard(self) -> None:
        import pyarrow
        import pyarrow.parquet

        kinds = {name: kind or pyarrow.string() for name, kind in self._types.items()}
        table = pyarrow.Table.from_pylist(self._rows, pyarrow.schema(list(kinds.items())))
        path = self.folder / f"part-{len(_files(self.folder)):05}.parquet"
        pyarrow.parquet.write_table(table, path.with_suffix(".partly"))
        path.with_suffix(".partly").replace(path)
        self._rows = []


def _typed(columns: Columns, types: Mapping[str, Any]) -> dict[str, Any]:
    """The Arrow type of each column; None: text, and what is none as JSON, since a type that the
    first rows suggest need not fit the millionth.
    """
    import pyarrow

    kinds = {name: types.get(name) for name in columns.given}
    kinds |= dict.fromkeys(columns.outputs.values())
    return kinds | {
        columns.confidence: pyarrow.float64(),
        columns.error: None,
        columns.row_id: None,
    }
