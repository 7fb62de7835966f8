"""Rows of any number answered by a task's best program, in their order: what is written is never
asked again, and memory does not grow with the rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from optimize import lm as lms
from optimize.climb.observer import Observer
from optimize.commands.answer import Found, best_program
from optimize.commands.applying.answering import Answered, answers
from optimize.commands.applying.batches import CHUNK, Batched, InBatches, check_batch
from optimize.commands.applying.beside import alone, beside, check_about, check_ours
from optimize.commands.applying.on_ray import OnRay, Workers
from optimize.commands.applying.pieces import remove_pieces
from optimize.commands.applying.writing import Review, Writer, judged
from optimize.commands.session import check_price
from optimize.data.stream import Given, Rows
from optimize.errors import BudgetExhausted, WorkbenchError
from optimize.lm.batch.box import PRICE, Box, is_out
from optimize.lm.limits import Limits
from optimize.lm.meter import Summing
from optimize.lm.usage import Usage
from optimize.report.answers import Columns, columns_of
from optimize.report.applied import Applied, Estimate, Forecast, forecast_lines
from optimize.report.shards import check_out, open_out, remove_out
from optimize.task import Task, load_task

PILOT = 200  # rows asked before the rest is forecast
BATCH_PILOT = 20  # the same before batches, since they are asked at the full price
CALLS = 4  # a row that may be made, for each that its program makes where nothing fails


@dataclass(frozen=True)
class Wish:
    """What is to be done. flags: knobs that were given. pilot: end after it. below: rows less sure
    than that go to the review file. again: begin anew. batch: through the provider's batch API.
    ray: by workers on Ray; None: in this process.
    """

    task: str
    rows: Path
    out: Path
    flags: dict[str, Any] = field(default_factory=dict)
    pilot: bool = False
    below: float | None = None
    again: bool = False
    batch: bool = False
    ray: OnRay | None = None


def apply(root: Path, wish: Wish, watch: Observer) -> Applied:
    """Answer the rows that `wish.out` does not hold yet.

    Raises WorkbenchError for what does not fit together, where more than half of the pilot fails,
    and where a cap is reached: what was written stays.
    """
    check_out(wish.out)
    rows, task = Rows(wish.rows), load_task(wish.task, root)
    if wish.ray:
        wish.ray.check(rows)
    if wish.out.resolve() == wish.rows.resolve():
        raise WorkbenchError(f"--out {wish.out} is the file of the rows; give another.")
    if not (total := rows.count()):
        raise WorkbenchError(f"{wish.rows} holds no rows.")
    meter = Summing()
    lms.configure(root, meter)
    found = best_program(task, meter, **wish.flags)
    _cap(meter, found, wish, total)
    if wish.batch:
        check_batch(found.program, found.config)
    watch.counts(meter, found.config.in_flight)
    with alone(wish.out):
        return _AtWork(found, rows, total, meter, watch, wish).all()


def _cap(meter: Summing, found: Found, wish: Wish, total: int) -> None:
    config = found.config
    check_price(config)
    steps = len(found.program.predictors()) * max(1, found.program.votes)
    own = "max_calls" in config.model_fields_set  # by a flag, the environment or the file
    calls = config.max_calls if own else CALLS * steps * total
    meter.cap(calls, Limits(config.max_tokens, config.budget_usd, config.max_minutes))


class _AtWork:
    """One command at work on the rows of a file."""

    def __init__(
        self,
        found: Found,
        rows: Rows,
        total: int,
        meter: Summing,
        watch: Observer,
        wish: Wish,
    ) -> None:
        self.found, self.rows, self.total = found, rows, total
        self.meter, self.watch, self.wish = meter, watch, wish
        self.task: Task = found.program.task
        self.pieces = beside(wish.out, "pieces")
        self.began = time.monotonic()

    def all(self) -> Applied:
        check_ours(self.wish.out)
        if self.wish.again:
            remove_out(self.wish.out)
            remove_pieces(self.pieces)
        columns = self._columns()
        check_about(self.wish.out, self.found, columns, self._has_pieces(), self.watch.noted)
        inputs = self.task.signature.input_fields
        review = Review(beside(self.wish.out, "review.jsonl"), self.wish.below, inputs)
        out = open_out(self.wish.out, columns, self.rows.types())
        writer, source = Writer(self.wish.out, out, columns, self.task, review), iter(self.rows)
        try:
            resumed, forecast = self._answered(source, writer)
        except BudgetExhausted as error:
            raise WorkbenchError(
                f"{error} {writer.tally.rows:,} of {self.total:,} rows are in {self.wish.out}; "
                "the same command goes on from there."
            ) from None
        finally:
            writer.close()
        if writer.tally.rows == self.total:
            remove_pieces(self.pieces)
        return self._applied(writer, resumed, forecast)

    def _columns(self) -> Columns:
        given: dict[str, None] = {}
        for row in islice(self.rows, PILOT):
            given |= dict.fromkeys(row.columns)
        return columns_of(list(given), list(self.task.signature.output_fields))

    def _answered(self, source: Iterator[Given], writer: Writer) -> tuple[int, Forecast | None]:
        """How many rows were there already, and the forecast after the pilot."""
        writer.skip_written(source)
        resumed, threads = writer.tally.rows, self.found.config.in_flight
        if resumed:
            self.watch.noted(f"{resumed:,} rows are in {self.wish.out} already.")
        pilot, began = list(islice(source, self._pilot(resumed))), time.monotonic()
        if resumed == self.total:
            return resumed, None
        found = list(self._shown("pilot", answers(self.found.program, pilot, threads), len(pilot)))
        for row, answer in found if resumed else judged(found):
            writer.write(row, answer)
        left, seconds = self.total - writer.tally.rows, time.monotonic() - began
        forecast = self._forecast([a.usage for _, a in found if a.usage.calls], seconds, left)
        if self.wish.pilot or not left:
            return resumed, forecast
        if forecast:
            self.watch.noted(" ".join(forecast_lines(forecast)))
        self._rest(source, writer, left)
        return resumed, forecast

    def _pilot(self, resumed: int) -> int:
        """Rows to ask before the rest is forecast: none where workers have begun with them, or a
        batch that is out holds them.
        """
        begun = bool(self.wish.ray) and (bool(resumed) or self._has_pieces())
        begun = begun or (self.wish.batch and is_out(beside(self.wish.out, "batch")))
        if begun and not self.wish.pilot:
            return 0
        return BATCH_PILOT if self.wish.batch else PILOT

    def _has_pieces(self) -> bool:
        return any(self.pieces.glob("*.jsonl"))

    def _rest(self, source: Iterator[Given], writer: Writer, left: int) -> None:
        program, config, box = self.found.program, self.found.config, None
        rest = answers(program, source, config.in_flight)
        if self.wish.batch:
            box = Box(beside(self.wish.out, "batch"), self.watch.scored, config.max_minutes)
            batched = Batched(box, self.meter, self.watch.noted)
            rest = InBatches(program, config.in_flight, batched)(source)
        if self.wish.ray:
            rest = self._workers(self.wish.ray)(source, writer.tally.rows, self.total)
        for row, answer in self._shown("apply", rest, left):
            writer.write(row, answer)
        if box:
            box.close()

    def _workers(self, wish: OnRay) -> Workers:
        minutes = self.found.config.max_minutes
        left = None if minutes is None else 60 * minutes - (time.monotonic() - self.began)
        return Workers(
            found=self.found,
            rows=self.rows,
            folder=self.pieces,
            meter=self.meter,
            until=math.inf if left is None else time.time() + left,
            flags=self.wish.flags,
            wish=wish,
            say=self.watch.noted,
        )

    def _shown(self, name: str, found: Iterator[Answered], total: int) -> Iterator[Answered]:
        if total:
            self.watch.started(name)
        for done, one in enumerate(found, 1):
            yield one
            self.watch.scored(done, total)

    def _forecast(self, asked: Sequence[Usage], seconds: float, left: int) -> Forecast | None:
        """What the rows left will take, by those that an LM was asked for; None: no row tells."""
        if not left or not asked:
            return None
        price = PRICE if self.wish.batch else 1.0
        priced = not any(usage.unpriced for usage in asked)
        return Forecast(
            asked=len(asked),
            rows=left,
            seconds=seconds / len(asked) * left,
            calls=Estimate.of([usage.calls for usage in asked], left),
            tokens=Estimate.of([u.tokens_in + u.tokens_out for u in asked], left),
            cost_usd=Estimate.of([price * u.cost for u in asked], left) if priced else None,
            batches=math.ceil(left / CHUNK) if self.wish.batch else 0,
        )

    def _applied(self, writer: Writer, resumed: int, forecast: Forecast | None) -> Applied:
        used, tally, review = self.meter.usage(), writer.tally, writer.review
        return Applied(
            task=self.task.name,
            run=self.found.run,
            lm=self.found.config.lm,
            out=str(self.wish.out),
            rows=self.total,
            answered=tally.rows - tally.failed,
            failed=tally.failed,
            resumed=resumed,
            errors=tally.errors,
            confident=tally.confident,
            below=self.wish.below,
            review=str(review.path) if review.count else None,
            reviewed=review.count,
            left_out=sorted(writer.left_out),
            forecast=forecast if self.wish.pilot else None,
            elsewhere=self.wish.ray is not None and not self.wish.ray.is_here,
            calls=used.calls,
            cached_calls=used.cached,
            tokens=used.tokens_in + used.tokens_out,
            cost_usd=used.cost_usd,
            seconds=round(time.monotonic() - self.began, 2),
        )
