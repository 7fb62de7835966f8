"""What the shell offers at Tab, and how little it takes to say so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from optimize.cli import app


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


def test_completion_imports_nothing_heavy(project: Path) -> None:
    code = """
import sys
from optimize.cli import complete
found = complete.runs("")
print(found, [name for name in ("dspy", "mlflow", "numpy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True)
    assert done.stdout.strip() == "['review', 'review~1'] []", done.stderr
