"""Rows answered through a provider's batch API. Each is run up to its LM call, which is put into a
batch, and run again when the answer has come: parsing, metering and caching are the program's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from optimize.climb.observer import Observer
from optimize.commands.applying.answering import Answered, answer
from optimize.config import RunConfig, is_local
from optimize.data.stream import Given
from optimize.errors import WorkbenchError
from optimize.lm.addresses import check_single
from optimize.lm.batch.box import Box
from optimize.lm.meter import Meter
from optimize.lm.post import Unanswered, by_post
from optimize.program.program import Program
from optimize.scoring.evaluate import Spread
from optimize.threads import in_threads

Job = TypeVar("Job")
Result = TypeVar("Result")
CHUNK = 20_000  # rows held while their batch is out
FEW = 100  # requests that a batch has left over and that are not worth another


def check_batch(program: Program, config: RunConfig) -> None:
    """Raises WorkbenchError for a program or an LM that cannot be asked in batches."""
    if is_local(config.lm):
        raise WorkbenchError(f"--batch: {config.lm} runs in this process; no provider has batches.")
    check_single(config.api_base, "--batch")
    steps = max(len(program.predictors()), program.votes)
    if steps > 1:
        raise WorkbenchError(
            f"--batch: the program makes {steps} LM calls a row, and each would take a batch of "
            "its own, one after the other. Leave out --batch."
        )


class Batched:
    """Work whose LM calls a provider answers in batches."""

    def __init__(self, box: Box, meter: Meter, say: Callable[[str], None]) -> None:
        self.box, self.meter, self.say = box, meter, say

    def spread(
        self,
        work: Callable[[Job], Result],
        jobs: Sequence[Job],
        threads: int,
        copy: Callable[[Job], int] = lambda job: 0,
    ) -> Iterator[Result]:
        """Each job's result, in order. copy: as letters have it."""

        def one(number: int) -> tuple[int, list[Result]]:
            """Nothing where a request waits for a batch."""
            try:
                with by_post(self.box, copy(jobs[number])):
                    return number, [work(jobs[number])]
            except Unanswered:
                return number, []

        found, left = dict[int, Result](), list(range(len(jobs)))
        batches = 0
        while left:
            for number, known in in_threads(one, left, threads):
                found.update((number, result) for result in known)
            if not (left := [number for number in left if number not in found]):
                break
            capped = self.meter.remaining() < 1  # whoever asks is told so
            if capped or (batches and self.box.waiting <= FEW):
                self._say_directly(len(left), capped)
                rest = in_threads(work, [jobs[number] for number in left], threads)
                found.update(zip(left, rest, strict=True))
                break
            self._deliver()
            batches += 1
        yield from (found[number] for number in range(len(jobs)))

    def _deliver(self) -> None:
        """Raises WorkbenchError for a batch that brought nothing: the next one might not either."""
        waiting = self.box.waiting
        came = self.box.deliver(self.meter.remaining())
        if not came:
            raise WorkbenchError(
                f"The batch of {waiting:,} requests brought no answer: it has expired, was "
                "cancelled, or the provider was too busy. The same command sends another one."
            )
        self.say(f"A batch brought {came:,} answers.")

    def _say_directly(self, rows: int, capped: bool) -> None:
        self.box.forget()
        if capped:
            return
        self.say(f"{rows} rows that no batch has answered are asked one by one, at the full price.")


@contextmanager
def boxed(path: Path, config: RunConfig, meter: Meter, watch: Observer) -> Iterator[Spread]:
    """How rows are asked in batches, each repeat a request of its own. path: what has come is kept
    in files that begin with it, until all has.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    box = Box(path, watch.scored, config.max_minutes)
    batched = Batched(box, meter, watch.noted)
    yield partial(batched.spread, copy=lambda job: job[1])
    box.close()


class InBatches:
    """Gives rows with their answers, in order, a chunk at a time."""

    def __init__(self, program: Program, threads: int, batched: Batched) -> None:
        self.program, self.threads, self.batched = program, threads, batched

    def __call__(self, rows: Iterable[Given]) -> Iterator[Answered]:
        source = iter(rows)
        while chunk := list(islice(source, CHUNK)):
            work = lambda row: answer(self.program, row)  # noqa: E731
            yield from zip(chunk, self.batched.spread(work, chunk, self.threads), strict=True)
