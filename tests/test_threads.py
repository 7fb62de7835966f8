"""Work side by side: in order, and ended by the first error at every depth."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from optimize import threads
from optimize.threads import in_threads


def test_results_come_in_the_order_of_the_jobs() -> None:
    first_may_end = threading.Event()

    def work(job: int) -> int:
        if job == 0:
            assert first_may_end.wait(10)
        elif job == 3:
            first_may_end.set()
        return job

    assert list(in_threads(work, range(4), 4)) == [0, 1, 2, 3]


def test_no_more_jobs_are_taken_than_may_be_ahead() -> None:
    taken = []

    def jobs() -> Iterator[int]:
        for job in range(50):
            taken.append(job)
            yield job

    for result in in_threads(lambda job: job, jobs(), 4, ahead=8):
        assert len(taken) <= result + 8
    assert len(taken) == 50


def test_an_error_ends_what_other_jobs_have_begun() -> None:
    """As Ctrl-C does while candidates are compared: each is a job that asks its rows in threads of
    its own.
    """
    done, begun = [], threading.Event()

    def row(number: int) -> None:
        done.append(number)
        begun.set()
        time.sleep(0.01)

    def interrupted() -> NoReturn:
        assert begun.wait(10)
        raise KeyboardInterrupt

    def candidate() -> None:
        list(in_threads(row, range(1000), 1))

    with pytest.raises(KeyboardInterrupt):
        list(in_threads(lambda work: work(), [interrupted, candidate], 2))
    assert len(done) < 1000


def test_a_containers_share_of_cores_and_memory_is_all_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, free = threads.usable_cores(), threads.free_memory()
    monkeypatch.setattr(threads, "CONTAINER", str(tmp_path))
    assert threads.usable_cores() == whole, "no control group"
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2000000\n")
    (tmp_path / "memory.stat").write_text("anon 1500000\ninactive_file 400000\n")
    assert threads.usable_cores() == 1 and threads.free_memory() == 1_400_000
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert threads.usable_cores() == whole and threads.free_memory() > free / 2
