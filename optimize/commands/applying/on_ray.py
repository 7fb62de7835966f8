"""Rows answered by workers on Ray. Each answers pieces of them into files; this process puts these
into OUT in the rows' order, so that what comes out is what it writes without Ray.
"""

from __future__ import annotations

import os
import pickle
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from optimize import lm as lms
from optimize.commands import cluster
from optimize.commands.answer import Found, known_program
from optimize.commands.applying.answering import Answered
from optimize.commands.applying.pieces import Piece, answer_piece, answered, pieces
from optimize.commands.budget import Drawn, Ledger, SharedPurse, read_drawn
from optimize.data.stream import Given, Rows
from optimize.errors import (
    BudgetExhausted,
    LmRefused,
    StoreFailed,
    UserCodeError,
    WorkbenchError,
)
from optimize.lm.limits import Limits
from optimize.lm.meter import Summing
from optimize.program.program import to_text
from optimize.task import load_task
from optimize.threads import usable_cores

TOLD = (WorkbenchError, BudgetExhausted, LmRefused, StoreFailed, UserCodeError)
INSTEAD = "Without --ray the same command answers all rows in this process."


@dataclass(frozen=True)
class OnRay:
    """workers: None: as many as the machine or the cluster has cores. address: of a cluster that is
    up; None: one on this machine, for as long as this takes.
    """

    workers: int | None = None
    address: str | None = None

    @property
    def is_here(self) -> bool:
        """Whether workers share this machine's files, the cache of answers among them."""
        return cluster.is_here(self.address)

    def check(self, rows: Rows) -> None:
        """Raises WorkbenchError, before any call, for rows that are not in Parquet, and where there
        is no Ray.
        """
        if rows.form != ".parquet":
            raise WorkbenchError(
                f"--ray: {rows.path} is no Parquet, in which a worker finds its rows without "
                "reading all others. Write them as .parquet (pandas: to_parquet), or leave --ray "
                "out."
            )
        cluster.check_ray(self.address, INSTEAD)


@dataclass(frozen=True)
class Job:
    """All that a worker is told; it reads the project's files itself. cwd: this command's folder,
    by which files are named. state: of the program, which must be the same there. calls: the cap.
    until: of the clock, when nothing more is to be asked. told: what a cap that is reached is told
    by. shares: whether this machine's files are its own.
    """

    root: Path
    cwd: Path
    task: str
    rows: Path
    folder: Path
    run: str | None
    text: str | None
    state: str
    flags: Mapping[str, Any]
    calls: int
    until: float
    told: str
    shares: bool


class Worker:
    """One process of Ray's, which answers a piece at a time. What ends it is told, not raised: Ray
    would try again.
    """

    def __init__(self, job: Job, actor: Any) -> None:
        self.job, self.ledger = job, cluster.Asked(actor)
        self.meter, self.over = Summing(), b""
        self.found: Found | None = None

    def __call__(self, given: Mapping[str, Any]) -> dict[str, list[Any]]:
        piece, before = Piece(int(given["start"][0]), int(given["stop"][0])), self.meter.usage()
        try:
            if not self.over:
                self._answer(piece)
        except TOLD as error:
            self.over = pickle.dumps(error)
        after = self.meter.usage()
        cached, unpriced = after.cached - before.cached, after.unpriced - before.unpriced
        told = {"start": piece.start, "over": self.over, "cached": cached, "unpriced": unpriced}
        return {name: [value] for name, value in told.items()}

    def _answer(self, piece: Piece) -> None:
        found = self.found = self.found or self._ready()
        rows, path = self.rows.between(piece.start, piece.stop), piece.path(self.job.folder)
        answer_piece(found.program, rows, path, found.config.in_flight)

    def _ready(self) -> Found:
        """The program, with one purse for all of this worker's lives."""
        job = self.job
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        os.chdir(job.cwd)
        self.rows, self.own = Rows(job.rows), tempfile.TemporaryDirectory()
        # SQLite must not be written by several machines: elsewhere a worker has its own cache
        lms.configure(job.root if job.shares else Path(self.own.name), self.meter)
        self.meter.cap(job.calls, Limits())
        task = load_task(job.task, job.root)
        found = known_program(task, self.meter, job.run, job.text, job.flags)
        if to_text(found.program) != job.state:
            raise WorkbenchError(
                f"On {socket.gethostname()} {job.root} holds another program for {job.task!r}, or "
                "optimize has another version there. Every machine needs the same."
            )
        name = cluster.worker_name()
        log = job.folder / f"spent-{name}.log"
        # never left: it is the worker's own for all of its lives
        self.meter.purse = SharedPurse(self.ledger, name, log, job.told, job.until).__enter__()
        return found


@dataclass
class Workers:
    """Gives rows with their answers, in order. folder: of the pieces. meter: that of this process,
    which is told what workers have spent, and has the caps. until: of the clock, when they end.
    flags: knobs that were given.
    """

    found: Found
    rows: Rows
    folder: Path
    meter: Summing
    until: float
    flags: Mapping[str, Any]
    wish: OnRay
    say: Callable[[str], None]
    counted: Drawn = Drawn()  # noqa: RUF009 (immutable)

    def __call__(self, source: Iterator[Given], first: int, total: int) -> Iterator[Answered]:
        """source: the rows from the first one on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (*self.folder.glob("spent-*.log"), *self.folder.glob("budget.*")):
            path.unlink()  # of an earlier command: caps are those of one
        address, wanted = self.wish.address, self.wish.workers or usable_cores()
        own = f"optimize {self.folder.resolve()}"  # others may be at work on the same cluster
        with cluster.connected(own, address, INSTEAD, wanted) as ray:
            if address:
                wanted = cluster.workers_at(ray, address, self.wish.workers)
            todo = pieces(self.folder, first, total, wanted)
            self.say(f"{total - first:,} rows in {len(todo)} pieces go to {wanted} workers.")
            given = (self._job(), cluster.ledger_actor(ray, self._ledger()))
            items = [{"start": piece.start, "stop": piece.stop} for piece in todo]
            ended = cluster.spread(ray, Worker, given, items, wanted)
            yield from self._in_order(todo, source, first, ended)

    def _in_order(
        self,
        todo: Sequence[Piece],
        source: Iterator[Given],
        first: int,
        ended: Iterator[Mapping[str, Any]],
    ) -> Iterator[Answered]:
        """first: number of the source's next row."""
        done, over = set[int](), b""
        for piece in todo:
            while piece.start not in done and (told := next(ended, None)):
                done.add(told["start"])
                self._count(told)
                over = over or told["over"]
                if over and not isinstance(error := pickle.loads(over), BudgetExhausted):
                    raise error
            stop = max(first, piece.start)
            rows, path = islice(source, piece.stop - stop), piece.path(self.folder)
            for one in answered(self.found.program, rows, path, stop - piece.start):
                stop += 1
                yield one
            if stop < piece.stop:  # a cap is reached: what is in flight elsewhere is waited for
                for told in ended:
                    self._count(told)
                raise pickle.loads(over) if over else WorkbenchError(f"{path} lacks rows.")

    def _count(self, told: Mapping[str, Any]) -> None:
        """Tell the meter what workers have spent, of lost ones too, and the cache has answered."""
        logs = [read_drawn(path) for path in self.folder.glob("spent-*.log")]
        now, before = Drawn(*map(sum, zip(Drawn(), *logs, strict=True))), self.counted
        self.counted = now
        self.meter.spend(
            calls=now.calls - before.calls,
            cost=now.usd - before.usd,
            tokens_in=now.tokens - before.tokens,  # read and written are not told apart
            cached=told["cached"],
            unpriced=told["unpriced"],
        )

    def _ledger(self) -> Ledger:
        """What the pilot has left."""
        used, limits = self.meter.usage(), self.meter.limits
        tokens = None if limits.tokens is None else limits.tokens - used.tokens_in - used.tokens_out
        usd = None if limits.usd is None else limits.usd - used.cost
        calls = self.meter.max_calls - used.calls
        return Ledger(self.folder.resolve() / "budget.json", calls, usd, tokens)

    def _job(self) -> Job:
        found, limits, calls = self.found, self.meter.limits, self.meter.max_calls
        caps = {"calls": calls, "tokens": limits.tokens, "minutes": limits.minutes}
        told = [f"--max-{name} {cap:g}" for name, cap in caps.items() if cap is not None]
        told += [] if limits.usd is None else [f"--budget-usd {limits.usd:g}"]
        return Job(
            root=found.program.task.root,
            cwd=Path.cwd(),
            task=found.program.task.name,
            rows=self.rows.path.resolve(),
            folder=self.folder.resolve(),
            run=found.run,
            text=found.text,
            state=to_text(found.program),
            flags=self.flags,
            calls=calls,
            until=self.until,
            told=f"A cap on all workers together is reached ({', '.join(told)}).",
            shares=self.wish.is_here,
        )
