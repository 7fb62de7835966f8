"""Copies of the few modules of ours that an exported program needs, and pins of what they need.

What is needed is what a fresh process loads to write the prompts of the golden rows: nothing is
listed by hand, and a program that looks nothing up needs DSPy alone.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from optimize.errors import WorkbenchError
from optimize.program.folder import OURS, task_code
from optimize.secrets import redacted
from optimize.task import Task

SECONDS = 300
LOADED = """
import json, sys
from pathlib import Path
import dspy
from optimize.program.exported import GOLDEN, load, prompt
folder = Path(sys.argv[1])
program = load(folder, dspy.LM("openai/not-asked"))
rows = json.loads((folder / GOLDEN).read_text(encoding="utf-8"))
same = all(prompt(program, row["inputs"]) == row["prompt"] for row in rows)
print(json.dumps([same, sorted(sys.modules)]))
"""


def vendor(folder: Path, task: Task) -> list[str]:
    """Put into a folder with a program and its golden rows what the program needs of ours; the pins
    of what else it needs, DSPy first.

    Raises WorkbenchError where a fresh process does not write the prompts that this one wrote.
    """
    loaded = _loaded(folder, task)
    ours = [_source(name) for name in loaded if name.split(".")[0] == "optimize"]
    for path in ours:
        copy = folder / "optimize" / path.relative_to(OURS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    if licence := metadata.distribution("optimize-workbench").read_text("licenses/LICENSE"):
        (folder / "optimize" / "LICENSE").write_text(licence, encoding="utf-8")
    return _pins([*ours, *task_code(task)], loaded)


def _loaded(folder: Path, task: Task) -> set[str]:
    """The names of the modules that a fresh process loads."""
    paths = [str(OURS.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    where = f"programs/{task.name}.py"
    if done.returncode:
        last = redacted((done.stderr.strip().splitlines() or ["no message"])[-1])
        raise WorkbenchError(
            f"The exported program does not load by itself: {last[:300]} What {where} opens "
            "beside the modules that it imports is not exported."
        )
    same, names = json.loads(done.stdout.splitlines()[-1])
    if not same:
        raise WorkbenchError(
            f"The exported program writes other prompts than the one on record: does {where} "
            "depend on a file, the clock or chance?"
        )
    return set(names)


def _source(module: str) -> Path:
    path = OURS.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _pins(files: list[Path], loaded: set[str]) -> list[str]:
    """`name==version` of each package that these files import and that was loaded."""
    known = metadata.packages_distributions()
    packages = {name for path in files for name in _imported(path)} & loaded & known.keys()
    names = {known[package][0] for package in packages - {"optimize"}}
    return [f"{n}=={metadata.version(n)}" for n in sorted(names, key=lambda n: (n != "dspy", n))]


def _imported(path: Path) -> Iterator[str]:
    """The top-level names that a file imports, within functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
