"""What the shell offers for a name that is begun. It waits for this at every Tab, so the file
system and the store's own file are all that is read.
"""

from __future__ import annotations

from typing import get_args

from optimize.catalogue import EMBEDDED, MODELS


def tasks(incomplete: str) -> list[str]:
    from optimize.config import find_root

    found = sorted(path.stem for path in (find_root() / "programs").glob("[!_]*.py"))
    return [name for name in found if name.startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Tasks for their last run, the run before it, and ids that begin so."""
    from optimize.config import find_root
    from optimize.store.names import run_ids

    found = tasks(incomplete.partition("~")[0])
    known = [n for task in found for n in (task, f"{task}~1") if n.startswith(incomplete)]
    return known + run_ids(find_root(), incomplete)


def programs(incomplete: str) -> list[str]:
    """Runs, and once there is a ~ the rungs of the task's runs."""
    from optimize.config import find_root
    from optimize.store.names import rung_names

    run, mark, begun = incomplete.rpartition("~")
    rungs = rung_names(find_root(), run.partition("~")[0]) if mark else []
    return runs(incomplete) + [f"{run}~{rung}" for rung in rungs if rung.startswith(begun)]


def levers(incomplete: str) -> list[str]:
    from optimize.config import Lever

    return [name for name in get_args(Lever) if name.startswith(incomplete)]


def lms(incomplete: str) -> list[str]:
    return [name for name in (EMBEDDED, *MODELS, "gguf:") if name.startswith(incomplete)]
