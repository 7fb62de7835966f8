"""What the shell offers for a name that is begun. It waits for this at every Tab, so the file
system is all that is read.
"""

from __future__ import annotations

from optimize.catalogue import EMBEDDED, MODELS


def tasks(incomplete: str) -> list[str]:
    from optimize.config import find_root

    found = sorted(path.stem for path in (find_root() / "programs").glob("[!_]*.py"))
    return [name for name in found if name.startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """Tasks for their last run, and the run before it."""
    found = tasks(incomplete.partition("~")[0])
    return [n for task in found for n in (task, f"{task}~1") if n.startswith(incomplete)]


def lms(incomplete: str) -> list[str]:
    return [name for name in (EMBEDDED, *MODELS, "gguf:") if name.startswith(incomplete)]
