"""What has changed since a task's last run: what is asked anew, said before it is asked."""

from __future__ import annotations

import re
from pathlib import Path

from optimize.store.read import params_since

# what answers or their scores depend on, as runs keep it, and as people say it
WATCHED = {
    "data_hash": "rows",
    "synthetic_rows": "synthetic rows",
    "task_file": "programs/{task}.py",
    "lm": "LM",
    "api_base": "address of the LM",
    "teacher": "teacher",
    "teacher_api_base": "address of the teacher",
    "embedder": "embedder",
    "temperature": "temperature",
    "context": "context",
    "seed": "seed",
    "repeats": "repeats",
    "dspy": "DSPy",
    "optimize": "optimize",
}
HASHED = ("data_hash", "task_file")


def _all_rows(data_hash: str | None) -> str:
    """The hash without what says how many of the rows are used."""
    return re.sub(r":\d+:\d+(?=$|:)", "", data_hash or "")


def since_last_run(root: Path, task: str, run: str, judged: bool = False) -> str:
    """A sentence on what is another in this run than in the task's last one, finished or not; empty
    where nothing is, or there was none. judged: an LM judge scores, whose name is in that of rows.
    """
    now, before = params_since(root, task, run)
    changed = []
    for name, said in WATCHED.items() if before else ():
        old, new = before.get(name), now.get(name)
        if old == new or (name in HASHED and old is None):  # an older version did not keep it
            continue
        if name == "data_hash" and _all_rows(old) == _all_rows(new):
            said = "how many val and test rows are used"
        elif name == "data_hash" and judged:
            said = "rows, or their judge"
        known = "" if name in HASHED else f" ({old or 'none'} before, {new or 'none'} now)"
        changed.append(said.format(task=task) + known)
    if not changed:
        return ""
    return (
        f"Changed since the last run: {', '.join(changed)}. Calls that stay the same are answered "
        "from the cache, the others are asked anew."
    )
