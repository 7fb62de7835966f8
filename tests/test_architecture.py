"""The two rules of the layout: imports point one way, and each third party has one door. Read from
the source, nothing is run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import dspy
import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "optimize").rglob("*.py"))
# The folders are the pipeline. Each line may import the lines below it, none beside or above it.
ORDER = (
    {"__main__"},
    {"cli"},
    {"serving"},
    {"commands"},
    {"store"},
    {"report"},
    {"finetune"},
    {"climb"},
    {"scoring"},
    {"program"},
    {"data"},
    {"lm"},
    {"task"},
    {"turns"},
    {"stats", "config", "files", "threads", "usercode", "gguf_header"},
    {"errors", "catalogue", "stopping", "secrets"},
)
RANK = {unit: rank for rank, units in enumerate(ORDER) for unit in units}
LORA = "finetune.lora"
RECIPES = "finetune.handoff.recipes"
DOORS = {
    "mlflow": {
        "store.champion",
        "store.open",
        "store.write",
        "store.read",
        "store.training",
        "store.model",
        "store.prompts",
        "store.again",
        "store.experiment",
        "store.shared",
    },
    "typer": {
        "cli.app",
        "cli.apply",
        "cli.deploy",
        "cli.run",
        "cli.finetune",
        "cli.holding",
        "cli.label",
        "cli.look",
        "cli.lm",
        "cli.runs",
        "cli.start",
        "cli.sweep",
        "cli.use",
    },
    "rich": {
        "cli.look",
        "cli.screen",
        "report.applied",
        "report.costs",
        "report.labelling",
        "report.live",
        "report.looks",
        "report.sweep_screen",
        "report.synthesis",
        "report.text",
    },
    "torch": {
        f"{LORA}.trainings",
        f"{LORA}.cut",
        f"{LORA}.fit",
        f"{LORA}.model",
        f"{LORA}.objective",
        f"{LORA}.room",
        f"{LORA}.served",
        f"{RECIPES}.trl_lora",
        "finetune.trl.launch",
    },
    "transformers": {f"{LORA}.model", f"{RECIPES}.trl_lora"},
    "peft": {f"{LORA}.model", f"{RECIPES}.trl_lora"},
    "trl": {f"{RECIPES}.trl_lora"},
    "accelerate": {"finetune.trl.launch", f"{RECIPES}.trl_lora"},
    "fastapi": {"serving.app", "serving.labelling"},
    "starlette": {"serving.app"},
    "uvicorn": {"serving.server"},
    "prometheus_client": {"serving.metrics"},
    "matplotlib": {"report.chart"},
    "jinja2": {"report.html.render"},
    "yaml": {RECIPES},
    "openai": {"finetune.openai_job", "lm.embedder"},
    "httpx": {"lm.batch.http"},
    "xllamacpp": {"lm.embedded"},
    "ray": {"commands.cluster"},
    "gguf": {"lm.requantize", "lm.bert_gguf", f"{LORA}.adapter_gguf"},
}
IN_FUNCTIONS = (
    "matplotlib",
    "mlflow",
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "openai",
    "httpx",
    "xllamacpp",
    "gguf",
    "ray",
)
DSPY_DOORS = ("lm.dspy_door", "lm.dspy_calls")
# What DSPy may rename or remove without notice, or has announced to remove.
DSPY_INSIDE = {
    "_compiled",
    "_cached",
    "_engine",
    "_attempt",
    "_aattempt",
    "_retryable",
    "_delay",
    "_price_result",
    "_target",
    "_make_json_adapter_fallback",
    "update_history",
    "DummyLM",
}
DSPY_SETTINGS = {"lm", "adapter", "max_errors", "trace"}  # its own, that we set


def dotted(path: Path) -> str:
    """The module's name below `optimize`; empty for the package itself."""
    parts = path.relative_to(ROOT / "optimize").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {dotted(path): path for path in FILES}


def imported(nodes: list[ast.AST]) -> Iterator[str]:
    """Every absolute name that import statements among the nodes bring in; `from a import b` counts
    as `a.b`.
    """
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they point"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(path: Path) -> set[str]:
    return set(imported(list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))))


def ours(path: Path) -> set[str]:
    """The modules of ours that a file imports, named as in MODULES."""
    names = {
        name.removeprefix("optimize.") for name in imports(path) if name.split(".")[0] == "optimize"
    }
    return {name if name in MODULES else name.rpartition(".")[0] for name in names} - {""}


def unit(module: str) -> str:
    return module.split(".")[0]


def test_every_module_has_a_place_in_the_order() -> None:
    assert {unit(module) for module in MODULES if module} == set(RANK)


@pytest.mark.parametrize("module", [m for m in MODULES if m])
def test_imports_point_one_way(module: str) -> None:
    against = {
        found
        for found in ours(MODULES[module])
        if unit(found) != unit(module) and RANK[unit(found)] <= RANK[unit(module)]
    }
    assert not against, f"{module} imports {against}, which the order puts beside or above it"


def test_no_two_modules_import_each_other_in_a_circle() -> None:
    # raises CycleError
    TopologicalSorter({module: ours(path) - {module} for module, path in MODULES.items()}).prepare()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "programs").glob("*.py")), ids=lambda path: path.stem
)
def test_programs_import_the_public_names_only(path: Path) -> None:
    found = {name for name in imports(path) if name.split(".")[0] == "optimize"}
    assert found <= {"optimize.Score", "optimize.Task"}


def test_the_engine_does_not_go_round_by_the_public_names() -> None:
    """They lead to the top of the order: an import of them would not show in it."""
    public = {"optimize.Score", "optimize.Task", "optimize.load_program"}
    assert [module for module, path in MODULES.items() if public & imports(path)] == []


@pytest.mark.parametrize("package", DOORS)
def test_each_third_party_has_one_door(package: str) -> None:
    found = {
        module
        for module, path in MODULES.items()
        if package in {name.split(".")[0] for name in imports(path)}
    }
    assert found == DOORS[package]


@pytest.mark.parametrize("package", IN_FUNCTIONS)
def test_heavy_third_parties_are_imported_inside_functions(package: str) -> None:
    for door in DOORS[package]:
        tree = ast.parse(MODULES[door].read_text(encoding="utf-8"))
        inside = {
            child
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
            for child in ast.walk(node)
        }
        outside = imported([node for node in ast.walk(tree) if node not in inside])
        assert package not in {name.split(".")[0] for name in outside}, (
            f"{door} imports {package} when it is itself imported"
        )


def of_dspy(node: ast.AST) -> Iterator[str]:
    """What a node uses of DSPy that belongs behind the door."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        found = [name for name in imported([node]) if name.startswith("dspy.")]
        yield from (name for name in found if not name.startswith("dspy.lm15."))
    elif isinstance(node, ast.Attribute):
        first, name, *more = [*ast.unparse(node).split("."), ""]
        inside = isinstance(getattr(dspy, name, None), ModuleType) and name != "lm15"
        setting = name == "settings" and more[0] not in ("lm", "")
        if node.attr in DSPY_INSIDE or (first == "dspy" and (inside or setting)):
            yield ast.unparse(node)
    elif isinstance(node, ast.FunctionDef) and node.name in DSPY_INSIDE:
        yield node.name
    elif isinstance(node, ast.Call):
        given = {keyword.arg for keyword in node.keywords}
        ours = (
            ast.unparse(node.func) in ("dspy.context", "dspy.configure") and given - DSPY_SETTINGS
        )
        if ours or "messages" in given:
            yield ast.unparse(node)


@pytest.mark.parametrize("module", [m for m in MODULES if m])
def test_dspys_private_and_deprecated_names_have_one_door(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    used = [name for node in ast.walk(tree) for name in of_dspy(node)]
    assert bool(used) is (module in DSPY_DOORS), f"{module} uses {used} of DSPy"
