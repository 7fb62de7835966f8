"""What a task's metric says, as a hash: scores that two metrics gave do not compare. Reads the
task's file, and the project's modules that it imports, and runs nothing.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from optimize.task import Task

DOCUMENTED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
DEFINED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
IMPORT = ast.Import | ast.ImportFrom


def metric_hash(task: Task) -> str:
    """A hash of the metric: of all in the task's file that it names, and of the project's modules
    that these import, whole, without comments, docstrings, layout and targets. Of the whole file
    where that does not say which function it is. Empty where an LM judges, or there is no file.
    """
    path = task.root / "programs" / f"{task.name}.py"
    if task.judge or not path.is_file():
        return ""
    tree = ast.parse(path.read_bytes())
    parts = _reached(tree.body, metric) if (metric := _metric(tree)) else tree.body
    modules = _Modules(task.root)
    for part in parts:
        modules.read(path, part)
    said = [*map(_said, parts), *(modules.texts[place] for place in sorted(modules.texts))]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def _metric(tree: ast.Module) -> ast.expr | None:
    """What `task = Task(…, metric=…)` has for one; None where there is no such line."""
    for part in tree.body:
        call = part.value if isinstance(part, ast.Assign | ast.AnnAssign) else None
        if isinstance(call, ast.Call) and "task" in _bound(part):
            return next((word.value for word in call.keywords if word.arg == "metric"), None)
    return None


def _reached(body: list[ast.stmt], metric: ast.expr) -> list[ast.AST]:
    """The metric, and the statements that make what it names, in their order."""
    parts = [part for part in body if "task" not in _bound(part)]
    names, found = _named(metric) | {"*"}, set[int]()
    while new := {n for n, p in enumerate(parts) if n not in found and _bound(p) & names}:
        found |= new
        names |= {name for n in new for name in _named(parts[n])}
    return [metric, *(parts[n] for n in sorted(found))]


def _named(node: ast.AST) -> set[str]:
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}


def _bound(part: ast.stmt) -> set[str]:
    """The names that a statement makes or changes; * of an import of all that a module has."""
    if isinstance(part, DEFINED):
        return {part.name}
    if isinstance(part, ast.Expr):  # a call may change what it names
        return _named(part)
    found = set[str]()
    for node in ast.walk(part):
        if isinstance(node, ast.Name | ast.Subscript | ast.Attribute):
            found |= _named(node) if isinstance(node.ctx, ast.Store | ast.Del) else set()
        elif isinstance(node, IMPORT):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, DEFINED):
            found.add(node.name)
    return found


def _said(node: ast.AST) -> str:
    """The code without docstrings and targets."""
    for found in ast.walk(node):
        if isinstance(found, DOCUMENTED) and ast.get_docstring(found, clean=False) is not None:
            found.body = found.body[1:] or [ast.Pass()]
        if isinstance(found, ast.Call) and ast.unparse(found.func).endswith("Task"):
            found.keywords = [word for word in found.keywords if word.arg != "target"]
    return ast.unparse(node)


@dataclass
class _Modules:
    """texts: the code of the project's modules that were imported, by their file."""

    root: Path
    texts: dict[Path, str] = field(default_factory=dict)

    def read(self, path: Path, part: ast.AST) -> None:
        """Those that this code of that file imports, and that these import."""
        for node in ast.walk(part):
            for place in self._places(path, node) if isinstance(node, IMPORT) else ():
                if place not in self.texts:
                    self.texts[place] = str(place.read_bytes())  # also while it is looked into
                    with suppress(SyntaxError, ValueError):  # one that nobody has imported
                        tree = ast.parse(place.read_bytes())
                        self.read(place, tree)
                        self.texts[place] = _said(tree)

    def _places(self, path: Path, node: ast.Import | ast.ImportFrom) -> Iterator[Path]:
        """The files that may be meant: a module's, its packages', and what a package has of that
        name.
        """
        names, level = [alias.name for alias in node.names], 0
        if isinstance(node, ast.ImportFrom):
            level = node.level
            names = [f"{node.module or ''}.{name}".strip(".") for name in names]
        folders = [path.parents[level - 1]] if level else [self.root, path.parent]
        for parts in (name.split(".") for name in names):
            if not level and parts[0] == "optimize":  # its own version is told
                continue
            for folder in folders:
                for length in range(1, len(parts) + 1):
                    place = folder.joinpath(*parts[:length])
                    files = (place.with_name(f"{place.name}.py"), place / "__init__.py")
                    yield from (file.resolve() for file in files if file.is_file())
