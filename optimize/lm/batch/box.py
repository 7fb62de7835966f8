"""Requests gathered, sent as a batch and waited for; what was paid for is on record before the next
step, so that the same command after a crash goes on with the same batch.
"""

from __future__ import annotations

import glob
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from optimize.errors import JobLeft, WorkbenchError
from optimize.files import write_whole
from optimize.lm.batch.http import FIRST_PAUSE, LAST_PAUSE, TRIES, Gone, Silent
from optimize.lm.batch.provider import Provider, provider_of
from optimize.lm.kept import Kept
from optimize.lm.post import Letter, Reply
from optimize.stats.records import Record
from optimize.stopping import wait

MOST, MOST_BYTES = 50_000, 90_000_000  # requests of a batch; providers take a little more
FIRST_POLL, LAST_POLL = 2.0, 60.0  # seconds between two looks at a batch, growing by half
LOT = 500  # answers kept at once
FEWEST = 100  # requests of a batch, below which halving it meets no limit on tokens
PRICE = 0.5  # of what a call costs, at both providers
Told = Callable[[int, int, str], None]  # answered so far, of how many, and how it stands


class TooMany(Exception):
    """The account may have fewer tokens under way at once."""


class Sent(Record):
    """What is known of the batch under way; null is not done yet. began: seconds of the epoch."""

    label: str
    count: int
    began: float
    file: str | None = None
    batch: str | None = None


def is_out(path: Path) -> bool:
    """Whether a box of this path holds batches that are out, or replies that nobody has read."""
    return any(path.parent.glob(f"{glob.escape(path.name)}.*"))


class Box:
    """The post of one command: replies that have come, and requests that wait for one.

    path: its files begin with that. minutes: to wait for a batch; None: as long as it takes.
    """

    price = PRICE

    def __init__(self, path: Path, told: Told, minutes: float | None = None) -> None:
        self._replies = Kept(path.with_name(f"{path.name}.replies.db"))
        self._path = path
        self._told, self._end = told, time.monotonic() + 60 * minutes if minutes else None
        self._lock = threading.Lock()
        self._waiting: dict[str, bytes] = {}
        self._fits = MOST
        self._provider: Provider | None = None

    def reply(self, letter: Letter) -> Reply | None:
        if found := self._replies.get([letter.id]).get(letter.id):
            status, _, body = found.partition(b" ")
            return Reply(int(status), body)
        with self._lock:
            self._provider = self._provider or provider_of(letter.url, letter.headers)
            self._waiting[letter.id] = letter.body
        return None

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def forget(self) -> None:
        """The requests that wait are asked for by somebody else."""
        self._waiting = {}

    def deliver(self, most: int) -> int:
        """Send what waits as a batch, as much of it as one takes and `most` at most, and wait for
        the replies; how many have come. A batch that an earlier command began is waited for first,
        and alone.

        Raises WorkbenchError in the provider's words, and JobLeft on Ctrl-C.
        """
        assert self._provider
        came = None
        while came is None:
            with suppress(TooMany):
                came = self._came_before(self._provider)
                if came is None:
                    begun = self._begun(self._provider, min(most, self._fits))
                    came = self._brought(begun, self._provider)
        self.forget()
        return came

    def _came_before(self, provider: Provider) -> int | None:
        """How many replies an earlier command's batch has brought; None where there is none. One
        that this account does not know is left alone: it may be another's.
        """
        for record in self._records():
            known = Sent.model_validate_json(record.read_bytes())
            with suppress(Gone):
                if sent := self._with_batch(known, provider):
                    return self._brought(sent, provider)
        return None

    def _brought(self, sent: Sent, provider: Provider) -> int:
        came = self._collect(sent, provider)
        self._record(sent).unlink(missing_ok=True)
        return came

    def _with_batch(self, sent: Sent, provider: Provider) -> Sent | None:
        """With the batch's id, also where a crash came before it was noted; None: there is none."""
        if sent.batch is None and sent.file is not None:
            sent = sent.model_copy(update={"batch": self._found(provider, sent)})
            self._note(sent)
        return sent if sent.batch else None

    def _records(self) -> list[Path]:
        return sorted(self._path.parent.glob(f"{glob.escape(self._path.name)}.*.json"))

    def _record(self, sent: Sent) -> Path:
        return self._path.with_name(f"{self._path.name}.{sent.label[:8]}.json")

    def _found(self, provider: Provider, sent: Sent) -> str | None:
        return provider.find(sent.label, str(sent.file), sent.count, sent.began)

    def _begun(self, provider: Provider, most: int) -> Sent:
        """A new batch, made once: where the request for it failed, what it may have made is looked
        for before it is made again.
        """
        requests = dict(_as_many(self._waiting, most))
        sent = Sent(label=uuid.uuid4().hex, count=len(requests), began=time.time())
        self._note(sent)
        sent = sent.model_copy(update={"file": provider.upload(requests, sent.label)})
        self._note(sent)
        batch, pause = None, FIRST_PAUSE
        for left in reversed(range(TRIES)):
            try:
                batch = batch or provider.create(requests, str(sent.file), sent.label)
                break
            except Silent:
                if not left:
                    raise
                wait(pause)
                pause = min(LAST_PAUSE, 2 * pause)
                batch = self._found(provider, sent)
        sent = sent.model_copy(update={"batch": batch})
        self._note(sent)
        return sent

    def _collect(self, sent: Sent, provider: Provider) -> int:
        batch, pause = str(sent.batch), FIRST_POLL
        try:
            while not (state := provider.look(batch)).done:
                self._told(state.answered, sent.count, f"batch {batch}: {state.status}")
                if self._end and time.monotonic() > self._end:
                    raise WorkbenchError(
                        f"Batch {batch} is not done after --max-minutes. It goes on at the "
                        "provider; the same command waits for it again."
                    )
                wait(pause)
                pause = min(LAST_POLL, 1.5 * pause)
        except KeyboardInterrupt:
            raise JobLeft(batch, lambda: provider.cancel(batch)) from None
        if state.problem:
            self._record(sent).unlink()  # whoever asks again wants a new one
            if "token limit" in state.problem and sent.count >= 2 * FEWEST:
                self._fits = sent.count // 2
                raise TooMany
            raise WorkbenchError(f"Batch {batch} has {state.status}: {state.problem}.")
        return self._keep(provider, batch)

    def _keep(self, provider: Provider, batch: str) -> int:
        """Results that break off are read once more from their beginning."""
        for left in reversed(range(TRIES)):
            lot: dict[str, bytes] = {}
            came = 0
            try:
                for name, reply in provider.results(batch):
                    if reply:
                        lot[name] = b"%d %b" % (reply.status, reply.body)
                        came += 1
                    if len(lot) >= LOT:
                        self._replies.put(lot)
                        lot = {}
                self._replies.put(lot)
                return came
            except Silent:
                if not left:
                    raise
                wait(FIRST_PAUSE)
        raise AssertionError

    def _note(self, sent: Sent) -> None:
        write_whole(self._record(sent), sent.model_dump_json(indent=1) + "\n")

    def close(self) -> None:
        """All is answered: nothing is kept."""
        self._replies.clear()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._replies.path}{suffix}").unlink(missing_ok=True)
        for record in self._records():
            record.unlink(missing_ok=True)


def _as_many(waiting: Mapping[str, bytes], most: int) -> Iterator[tuple[str, bytes]]:
    """As a batch takes, and one at least."""
    size = 0
    for number, (name, body) in enumerate(waiting.items()):
        size += len(body)
        if number and (number >= min(MOST, most) or size > MOST_BYTES):
            return
        yield name, body
