"""Rows answered through a provider's batch API. Each is run up to its LM call, which is put into a
batch, and run again when the answer has come: parsing, metering and caching are the program's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from optimize.commands.applying.answering import Answer, Answered, answer, answers
from optimize.config import RunConfig, is_local
from optimize.data.stream import Given
from optimize.errors import BudgetExhausted, WorkbenchError
from optimize.lm.addresses import check_single
from optimize.lm.batch.box import Box
from optimize.lm.meter import Meter
from optimize.lm.post import Unanswered, by_post
from optimize.program.program import Program
from optimize.threads import in_threads

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


class InBatches:
    """Gives rows with their answers, in order, a chunk at a time."""

    def __init__(
        self, program: Program, threads: int, box: Box, meter: Meter, say: Callable[[str], None]
    ) -> None:
        self.program, self.threads, self.box, self.meter = program, threads, box, meter
        self.say = say

    def __call__(self, rows: Iterable[Given]) -> Iterator[Answered]:
        source = iter(rows)
        while chunk := list(islice(source, CHUNK)):
            found = self._answered(chunk)
            yield from zip(chunk, found, strict=True)

    def _answered(self, chunk: Sequence[Given]) -> list[Answer]:
        found: list[Answer | None] = [None] * len(chunk)
        batches = 0
        while True:
            left = [number for number, known in enumerate(found) if known is None]
            for number, known in in_threads(lambda n: (n, self._one(chunk[n])), left, self.threads):
                found[number] = known
            left = [number for number, known in enumerate(found) if known is None]
            if not left:
                return [known for known in found if known]
            if batches and self.box.waiting <= FEW:
                self._ask_directly(chunk, left, found)
                continue
            self._deliver()
            batches += 1

    def _one(self, row: Given) -> Answer | None:
        """None: its request waits for a batch."""
        try:
            with by_post(self.box):
                return answer(self.program, row)
        except Unanswered:
            return None

    def _deliver(self) -> None:
        """Raises WorkbenchError for a batch that brought nothing: the next one might not either."""
        if (most := self.meter.remaining()) < 1:
            raise BudgetExhausted("A cap does not allow the calls of another batch.")
        waiting = self.box.waiting
        came = self.box.deliver(most)
        if not came:
            raise WorkbenchError(
                f"The batch of {waiting:,} requests brought no answer: it has expired, was "
                "cancelled, or the provider was too busy. The same command sends another one."
            )
        self.say(f"A batch brought {came:,} answers.")

    def _ask_directly(
        self, chunk: Sequence[Given], left: Sequence[int], found: list[Answer | None]
    ) -> None:
        self.box.forget()
        self.say(
            f"{len(left)} rows that no batch has answered are asked one by one, at the full price."
        )
        rows = [chunk[number] for number in left]
        for number, (_, known) in zip(left, answers(self.program, rows, self.threads), strict=True):
            found[number] = known
