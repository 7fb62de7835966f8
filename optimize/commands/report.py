"""A run that is on record, written to files for others: the page, Markdown with a picture, CSV."""

from __future__ import annotations

import tempfile
from pathlib import Path

from optimize.errors import WorkbenchError
from optimize.files import write_whole
from optimize.report.chart import draw
from optimize.report.html.render import html
from optimize.report.page import Page, assemble
from optimize.report.pull_request import pull_request
from optimize.report.record import Report
from optimize.report.spreadsheet import spreadsheet
from optimize.store.material import material
from optimize.store.read import Found

ENDINGS = {"html": ".html", "md": ".md", "csv": ".csv"}


def page_of(report: Report, run: Found) -> Page:
    """All that is known of a run."""
    return assemble(report, material(run))


def export(page: Page, form: str, given: Path | None) -> list[Path]:
    """Write the run in that form (see ENDINGS); the files written.

    given: where to; None: a file in the current folder, named TASK-report. Raises WorkbenchError
    where that cannot be written.
    """
    path = given or Path(f"{page.report.task}-report{ENDINGS[form]}")
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else f"cannot be written: no folder {path.parent}"
        raise WorkbenchError(f"{path} {what}. Name a file.")
    try:
        if form == "md":
            picture = path.with_suffix(".png")
            picture.write_bytes(_picture(page.report))
            write_whole(path, pull_request(page, picture.name))
            return [path, picture]
        if form == "csv":  # the mark tells spreadsheets that it is UTF-8
            write_whole(path, f"\ufeff{spreadsheet(page)}")
        else:
            write_whole(path, html(page))
    except OSError as error:
        raise WorkbenchError(f"{path} cannot be written: {error.strerror}.") from None
    return [path]


def _picture(report: Report) -> bytes:
    with tempfile.TemporaryDirectory(prefix="optimize-") as folder:
        path = Path(folder) / "climb.png"
        draw(report, path)
        return path.read_bytes()
