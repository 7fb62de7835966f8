"""Local LMs of several processes compute one after the other, in fair turns."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from optimize import turns
from optimize.turns import Turns

# calls of 20 ms, four side by side, until told to stop; each line is a call's beginning and end
OTHER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from optimize import turns
turns.SLICE = 0.1
own, end = turns.Turns(Path(sys.argv[1])), time.monotonic() + float(sys.argv[2])
def ask(_):
    found = []
    while time.monotonic() < end:
        own.enter()
        began = time.monotonic()
        time.sleep(0.02)
        found.append((began, time.monotonic()))
        own.leave()
    return found
print("ready", flush=True)
with ThreadPoolExecutor(4) as pool:
    print([call for calls in pool.map(ask, range(4)) for call in calls])
"""


def test_two_processes_never_compute_at_once_and_share_the_time(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OTHER, str(tmp_path), "3"]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [other.communicate(timeout=60)[0].splitlines() for other in others]
    one, two = (eval(lines[-1]) for lines in told)
    both = [(a, b) for a in one for b in two if a[0] < b[1] and b[0] < a[1]]
    assert not both, f"{len(both)} pairs of calls at once"
    again = [any(b[0] > a[1] for a in one) and any(a[0] > b[1] for a in one) for b in two]
    assert any(again), "neither is done before the other begins"
    assert 0.3 < len(one) / len(two) < 3


def test_calls_of_one_process_run_side_by_side(tmp_path: Path) -> None:
    own, inside = Turns(tmp_path), threading.Barrier(4, timeout=5)

    def ask() -> None:
        own.enter()
        inside.wait()
        own.leave()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not inside.broken


def test_alone_a_turn_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.05)
    own, start = Turns(tmp_path), time.monotonic()
    own.enter()
    while time.monotonic() - start < 0.5:
        assert own.enter() < 1
        own.leave()
    own.leave()


def test_a_process_that_dies_in_its_turn_gives_it_up(tmp_path: Path) -> None:
    code = "import sys, os; from pathlib import Path; from optimize.turns import Turns; "
    code += "Turns(Path(sys.argv[1])).enter(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], timeout=60)
    own = Turns(tmp_path)
    assert own.enter() < 5
    own.leave()
