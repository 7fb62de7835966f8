"""Runs on the same rows know of each other: their programs are rivals, their readings count."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from optimize.commands.memory import remembered, tunings_read
from optimize.commands.redraw import redraw
from optimize.commands.run import run
from optimize.commands.session import Own, Session, tracked_run
from optimize.commands.sweeping.plan import FOLDER
from optimize.data.rows import row_hash
from optimize.report.text import terminal
from optimize.stats.reads import readings
from optimize.stats.records import RowScores
from tests.test_fallback import endpoint, project  # noqa: F401  (fixtures)
from tests.test_fallback import session as opened
from tests.test_report import shown

Rows = list[dict[str, str]]


@pytest.fixture
def again(
    project: Path,  # noqa: F811
    endpoint: str,  # noqa: F811
) -> Callable[..., Session]:
    def make(**knobs: object) -> Session:
        return opened(project, endpoint, finetune="never", max_calls=1000, **knobs)

    return make


def test_a_run_knows_the_programs_and_the_readings_of_those_before(
    again: Callable[..., Session],
) -> None:
    nothing = remembered(again())
    assert not nothing.climbs and not nothing.rivals and not nothing.read
    first = run(again())
    known = remembered(again())
    assert first.numbers.climbs == first.numbers.test_reads == 1
    assert len(known.climbs) == len(known.read) == 1
    assert len(known.rivals) >= 3 and {len(s) for s in known.rivals} == {first.rows["val"]}
    same = run(again())
    assert same.lm_calls == 0 and same.numbers == first.numbers, "the same programs, not rivals"
    other = run(again(seed=1))
    assert other.numbers.climbs == 2
    assert "have judged 2 climbs" in shown(terminal(other, details=True), 200)
    assert redraw(again().root, "paint").numbers == other.numbers


def test_what_a_sweeps_cells_tuned_counts_as_judged(again: Callable[..., Session]) -> None:
    session = again()
    cell = Own(session.root / FOLDER / "trial" / "paint-1", session.root)
    (cell.home / "mlruns").mkdir(parents=True)
    rows = [row_hash(session.task, row) for row in session.splits.test]
    for every, owner in ((2, session), (3, replace(session, own=cell))):
        scores = {"tuned": [float(n % every == 0) for n, _ in enumerate(rows)]}
        with tracked_run(owner, "finetune") as tracked:
            tracked.client.set_tag(tracked.id, "verdict", "plateau")
            tracked.scores("test", RowScores(rows=rows, programs=scores))
    assert readings(rows, tunings_read(again())) == 2


def test_other_val_rows_have_judged_nothing(again: Callable[..., Session]) -> None:
    run(again())
    session = again()
    rows = session.task.folder / "rows.jsonl"
    kept = rows.read_text()
    try:
        found = [json.loads(line) for line in kept.splitlines()]
        fresh = [row | {"thing": f"{row['thing']} anew"} for row in found]
        rows.write_text("".join(json.dumps(row) + "\n" for row in fresh))
        known = remembered(again())
        hashes = [row_hash(session.task, row) for row in again().splits.test]
        assert not known.climbs and readings(hashes, known.read) == 1
    finally:
        rows.write_text(kept)
