"""What a run of this store keeps beside its report, read back: rows, answers, prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

from optimize.errors import WorkbenchError
from optimize.files import to_text
from optimize.report.page import Material
from optimize.report.prices import Price
from optimize.report.rows import Answers, RowTable
from optimize.store.read import TEST_ROWS, Found
from optimize.store.rungs import rungs
from optimize.store.table import GOLD, INPUT

VERSIONS = ("optimize", "dspy", "mlflow")
Table = Mapping[str, list[Any]]  # a column by name


def material(run: Found) -> Material:
    """What the run keeps; what it does not keep is left out."""
    info = run.store.get_run(run.id)
    began = datetime.fromtimestamp(info.info.start_time / 1000, UTC)
    prompts, tables = {}, {}
    for tried in rungs(run):
        with suppress(WorkbenchError):
            prompts[tried.rung] = tried.text("prompt.txt")
            found = json.loads(tried.text("examples.json"))
            cells = zip(*found["data"], strict=True)
            tables[tried.rung] = dict(zip(found["columns"], map(list, cells), strict=True))
    test = None
    with suppress(WorkbenchError):
        test = run.read(TEST_ROWS, RowTable)
    prices = {rung: price for rung, table in tables.items() if (price := _price(table))}
    return Material(
        run=run.id,
        made=f"{began:%Y-%m-%d %H:%M} UTC",
        versions={n: v for n in VERSIONS if (v := info.data.params.get(n))},
        val=_rows(tables),
        test=test,
        prompts=prompts,
        prices=prices,
    )


def _rows(tables: Mapping[str, Table]) -> RowTable | None:
    """The val rows, from the attempt that answered most of them, with all attempts' answers."""
    if not tables:
        return None
    whole = max(tables.values(), key=lambda table: len(table["row"]))
    columns = list(whole)
    gold = [name for name in columns if name.startswith(GOLD)]
    inputs = columns[: columns.index(gold[0])]
    fields = [name.removeprefix(GOLD) for name in gold]
    return RowTable(
        rows=whole["row"],
        inputs={name.removeprefix(INPUT): whole[name] for name in inputs},
        gold={name: whole[GOLD + name] for name in fields},
        programs={rung: _answers(table, fields) for rung, table in tables.items()},
    )


def _answers(table: Table, fields: list[str]) -> Answers:
    said = [json.loads(text) for text in table["answer"]]
    return Answers(
        fields={
            name: [to_text(a[name]) if a.get(name) is not None else "" for a in said]
            for name in fields
        },
        scores=table["score"],
        feedback=[
            "; ".join(filter(None, both))
            for both in zip(table["error"], table["feedback"], strict=True)
        ],
        confidence=table.get("confidence", [None] * len(said)),
    )


def _price(table: Table) -> Price | None:
    """None where the cache answered all."""
    asked = [n for n, tokens in enumerate(table["tokens_in"]) if tokens]
    if not asked:
        return None
    usd = [table["cost_usd"][n] for n in asked]
    return Price(
        tokens=fmean(table["tokens_in"][n] + table["tokens_out"][n] for n in asked),
        usd=None if None in usd else fmean(usd),
    )
