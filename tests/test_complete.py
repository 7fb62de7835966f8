"""What the shell offers at Tab, and how little it takes to say so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from optimize.cli import app
from tests.stored import stored_run


def offered(line: str) -> list[str]:
    """Of `optimize …`, whose last word is being written."""
    env = {"_OPTIMIZE_COMPLETE": "complete_bash", "COMP_WORDS": line}
    env |= {"COMP_CWORD": str(len(line.split(" ")) - 1)}
    return CliRunner().invoke(app, [], prog_name="optimize", env=env).stdout.split()


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("optimize run rev", ["review"]),
        ("optimize run ", ["refund", "review"]),
        ("optimize show rev", ["review", "review~1"]),
        ("optimize diff review review~", ["review~1"]),
        ("optimize try x", []),
        ("optimize run review --lm qwen", ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]),
        ("optimize fail", ["failures"]),
    ],
)
def test_names_are_completed(
    project: Path, monkeypatch: pytest.MonkeyPatch, line: str, names: list[str]
) -> None:
    (project / "programs" / "refund.py").write_text("this is not Python")
    monkeypatch.chdir(project)
    assert offered(line) == names


def test_rungs_and_ids_are_those_of_the_store(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stored_run(project, "review", 6)
    monkeypatch.chdir(project)
    best = ["review~1", "review~nearest_demos", "review~output_format", "review~passages"]
    assert offered("optimize show review~") == [*best, "review~zero_shot"]
    assert offered("optimize diff review review~1~o") == ["review~1~output_format"]
    assert offered("optimize report review~o") == [], "a report is of a whole run"
    assert offered(f"optimize report {run[:3]}") == [run[:8]]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert offered(f"optimize report {run[:3]}") == [], "a server is not asked at every Tab"


def test_completion_imports_nothing_heavy(project: Path) -> None:
    code = """
import sys
from optimize.cli import complete
found = complete.programs("")
print(found, [name for name in ("dspy", "mlflow", "numpy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert done.stdout.strip() == "['review', 'review~1'] []", done.stderr
