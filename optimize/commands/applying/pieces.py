"""Stretches of rows that workers answer side by side, each into a file of its own, row by row:
whoever takes a piece up after a worker was lost goes on behind its last whole record. Knows no Ray.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from optimize.commands.applying.answering import Answer, Answered, answers
from optimize.data.stream import Given, row_id
from optimize.program.program import Program
from optimize.report.answers import JsonLines, columns_of, foreign

MOST, LEAST = 1000, 20  # rows of a piece
EACH = 8  # pieces a worker, so that none is idle for long at the end


@dataclass(frozen=True, order=True)
class Piece:
    """Rows by their numbers, from 0; `stop` is not among them."""

    start: int
    stop: int

    def path(self, folder: Path) -> Path:
        return folder / f"{self.start:012}-{self.stop:012}.jsonl"


def pieces(folder: Path, first: int, total: int, workers: int) -> list[Piece]:
    """All rows from the first one on, in order: pieces that an earlier command has begun as they
    are, and between them new ones.
    """
    size = max(LEAST, min(MOST, -(-(total - first) // (EACH * workers))))
    begun = sorted(Piece(*map(int, path.stem.split("-"))) for path in folder.glob("*-*.jsonl"))
    found, at = list[Piece](), first
    for piece in (*begun, Piece(total, total)):
        if piece.stop < at:
            continue  # the output has its rows
        cuts = range(at, piece.start, size)
        found += [Piece(cut, min(cut + size, piece.start)) for cut in cuts]
        found += [piece] if at < piece.stop > piece.start else []
        at = max(at, piece.stop)
    return found


def answer_piece(program: Program, rows: Iterable[Given], path: Path, threads: int) -> None:
    """Answer those rows of a piece that its file does not hold; it holds them all afterwards.

    Raises WorkbenchError where the file is one of other rows.
    """
    fields, source = program.task.signature, iter(rows)
    columns = columns_of([], list(fields.output_fields))
    # a worker that is taken for lost may still be at its last calls
    with FileLock(path.with_suffix(".lock")), closing(JsonLines(path, columns, flush=0)) as out:
        for kept in out.written():
            row = next(source, None)
            if row is None or row_id(fields.input_fields, row) != kept.row_id:
                raise foreign(path, f"{kept.row_id} is not {row.place if row else 'among them'}")
        for row, found in answers(program, source, threads):
            ours = {columns.confidence: found.confidence, columns.error: found.error or None}
            name = row_id(fields.input_fields, row)
            # a failed row has its columns too
            out.write(
                dict.fromkeys(columns.outputs) | found.outputs | ours | {columns.row_id: name}
            )


def answered(
    program: Program, rows: Iterable[Given], path: Path, skipped: int
) -> Iterator[Answered]:
    """Rows of a piece with the answers that its file holds, in order; fewer where a worker did not
    get to its end. skipped: answers before the first of the rows.
    """
    fields = program.task.signature
    columns = columns_of([], list(fields.output_fields))
    with closing(JsonLines(path, columns)) as out:
        kept = list(out.written())[skipped:]
    for row, known in zip(rows, kept, strict=False):
        if row_id(fields.input_fields, row) != known.row_id:
            raise foreign(path, f"{known.row_id} is not {row.place}")
        outputs = {} if known.error else known.answer
        yield row, Answer(outputs, known.confidence, known.error or "")


def remove_pieces(folder: Path) -> None:
    """Delete them, with all that workers have written down beside them."""
    if folder.is_dir():
        shutil.rmtree(folder)
