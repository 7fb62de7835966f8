"""As much of a project as a program needs, as a folder of its own: our JSON and the task's code,
never a pickle.
"""

from __future__ import annotations

import json
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from optimize.program.program import Program, to_text
from optimize.task import Task

PROGRAM, ADAPTER = "program.json", "adapter.gguf"
OURS = Path(__file__).parents[1]
LIBRARIES = tuple({Path(path) for path in sysconfig.get_paths().values()})


def write_project(folder: Path, program: Program, knobs: Mapping[str, Any]) -> None:
    """What the program says, the task's code, the passages it looks up, its tuned weights.

    knobs: of the LM it was optimized on (`config.TASK_LM`).
    """
    task, state = program.task, json.loads(to_text(program, knobs))
    sources = {path.relative_to(task.root).as_posix(): path for path in task_code(task)}
    if program.passages and task.corpus:
        sources[task.corpus.relative_to(task.root).as_posix()] = task.corpus
    if program.tuned and (weights := Path(program.tuned)).is_file():
        sources[ADAPTER], state["tuned"] = weights, ADAPTER
    for name, source in sources.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    (folder / PROGRAM).write_text(json.dumps(state, ensure_ascii=False, indent=1), encoding="utf-8")


def task_code(task: Task) -> Iterator[Path]:
    """The task's file, and the project's own modules that are loaded: it may import some of
    them.
    """
    root = task.root.resolve()
    yield task.root / "programs" / f"{task.name}.py"
    for module in list(sys.modules.values()):
        path = Path(getattr(module, "__file__", None) or root)
        foreign = any(path.is_relative_to(place) for place in (OURS, *LIBRARIES))
        of_tasks = path.parent == root / "programs"  # other tasks, which it does not import
        if path.suffix == ".py" and path.is_relative_to(root) and not foreign and not of_tasks:
            yield task.root / path.relative_to(root)
