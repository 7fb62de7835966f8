"""The end of a command, whatever holds it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

HELD = """
import ctypes, time
from optimize import stopping

stopping.listen(lambda: None)
try:
    print("listening", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    pass
ctypes.PyDLL(None).sleep(60)  # as an engine that waits and lets no thread of Python run
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_command_ends_though_an_engine_holds_all_threads(sent: signal.Signals) -> None:
    running = subprocess.Popen([sys.executable, "-c", HELD], stdout=subprocess.PIPE, text=True)
    assert running.stdout and re.match("listening", running.stdout.readline())
    running.send_signal(sent)
    start = time.monotonic()
    assert running.wait(timeout=30) == -signal.SIGALRM
    assert time.monotonic() - start < 10
