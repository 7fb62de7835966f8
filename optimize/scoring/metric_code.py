"""What a task's metric says, as a hash: scores that two metrics gave do not compare. Reads the
task's file as text and runs nothing.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from optimize.files import read_text
from optimize.task import Task

DOCUMENTED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module


def metric_hash(task: Task) -> str:
    """A hash of the metric, and of all in the project that it names, without comments, docstrings
    and layout; of the whole file where that does not say which function it is. Empty where an LM
    judges, or there is no such file.
    """
    path = task.root / "programs" / f"{task.name}.py"
    if not path.is_file():
        return ""
    tree = _parsed(path)
    given = {word.arg: word.value for word in _arguments(tree)}
    if "judge" in given and "metric" not in given:
        return ""
    reached = _Reached(task.root)
    reached.code(path, given.get("metric", tree))
    return hashlib.sha256("\n".join(reached.texts.values()).encode()).hexdigest()[:16]


@dataclass
class _Reached:
    """texts: the code of what a metric needs, by file and name, in the order it was found."""

    root: Path
    texts: dict[tuple[Path, str], str] = field(default_factory=dict)

    def code(self, path: Path, node: ast.AST) -> None:
        """This code of that file, and what it names."""
        if not isinstance(node, ast.Name):  # which is looked up
            said = ast.unparse(_bare(node))
            self.texts[path, said] = said
        known = dict(_definitions(_parsed(path)))
        for name in sorted({n.id for n in ast.walk(node) if isinstance(n, ast.Name)}):
            if (path, name) not in self.texts and name in known:
                self.texts[path, name] = name
                self._definition(path, name, known[name])

    def _definition(self, path: Path, name: str, found: ast.stmt) -> None:
        if isinstance(found, ast.Import | ast.ImportFrom):
            self._imported(path, name, found)
        elif name != "task":  # the target is no part of the metric
            self.code(path, found)

    def _imported(self, path: Path, name: str, found: ast.Import | ast.ImportFrom) -> None:
        """What is imported under a name, as far as it is the project's own."""
        for alias in found.names:
            if name not in (alias.asname, alias.name.partition(".")[0]):
                continue
            if isinstance(found, ast.Import):
                if file := self._file(path, alias.name):
                    self.code(file, _parsed(file))
            elif file := self._file(path, found.module or ""):
                self.code(file, ast.Name(alias.name))
            elif file := self._file(path, f"{found.module or ''}.{alias.name}".strip(".")):
                self.code(file, _parsed(file))

    def _file(self, beside: Path, module: str) -> Path | None:
        if module.partition(".")[0] == "optimize":  # its own version is told
            return None
        places = [
            folder / f"{module.replace('.', '/')}.py" for folder in (self.root, beside.parent)
        ]
        return next((place for place in places if place.is_file()), None)


def _parsed(path: Path) -> ast.Module:
    return ast.parse(read_text(path))


def _arguments(tree: ast.Module) -> list[ast.keyword]:
    """Of the call that makes the task."""
    return next(
        (
            found.value.keywords
            for name, found in _definitions(tree)
            if name == "task"
            and isinstance(found, ast.Assign)
            and isinstance(found.value, ast.Call)
        ),
        [],
    )


def _definitions(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """What a file defines, by name."""
    for found in tree.body:
        if isinstance(found, DOCUMENTED):
            yield found.name, found
        elif isinstance(found, ast.Import | ast.ImportFrom):
            yield from ((a.asname or a.name.partition(".")[0], found) for a in found.names)
        else:
            names = (n for n in ast.walk(found) if isinstance(n, ast.Name))
            yield from ((n.id, found) for n in names if isinstance(n.ctx, ast.Store))


def _bare(node: ast.AST) -> ast.AST:
    """The code without docstrings."""
    for found in ast.walk(node):
        if isinstance(found, DOCUMENTED) and ast.get_docstring(found, clean=False) is not None:
            found.body = found.body[1:] or [ast.Pass()]
    return node
