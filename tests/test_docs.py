"""The documentation is executable: its commands are taken by the real command line, those that ask
no LM are run, and its links lead somewhere.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from bench.scale import table
from optimize.cli import app
from tests.test_cli import optimize

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
BLOCK = re.compile(r"^```(?:sh|bash)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
FREE = ("init", "new", "check", "tasks", "cd")  # commands that ask no LM


def commands(page: Path) -> list[str]:
    """The lines of a page's blocks that are commands of ours."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if re.match(r"optimize [a-z]+( |$)", part)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_block_is_one_with_the_flags_it_has(page: Path) -> None:
    for line in commands(page):
        _, *words = shlex.split(line)
        group = typer.main.get_group(app)
        context = group.make_context("optimize", words)
        name, command, rest = group.resolve_command(context, words)
        while isinstance(command, typer.core.TyperGroup):
            context = command.make_context(name, rest, parent=context)
            name, command, rest = command.resolve_command(context, rest)
        assert command is not None, line
        command.make_context(name, rest, parent=context)


def test_a_first_day_by_the_documentation(tmp_path: Path) -> None:
    """What start.md and your-own-task.md say to do, as far as it asks no LM."""
    for page in ("start.md", "your-own-task.md"):
        folder = tmp_path
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        lines = [part for block in BLOCK.findall(text) for part in re.split(r"\n|&&", block)]
        for line in lines:
            words = shlex.split(line, comments=True)
            if words[:1] == ["cd"] and (folder / words[1]).is_dir():
                folder /= words[1]
            if words[:1] == ["optimize"] and words[1] in FREE:
                done = optimize(folder, *words[1:])
                assert done.returncode == 0, (line, done.stderr)
        assert folder != tmp_path


def test_the_site_is_built_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stderr
    python = (tmp_path / "reference" / "python.html").read_text(encoding="utf-8")
    assert "least_gain" in python and "load_program" in python
    commands = (tmp_path / "reference" / "commands.html").read_text(encoding="utf-8")
    assert "--budget-usd" in commands
    assert re.search(r"<code>new</code>: Write a new task: [^<]+\.</li>", commands)
    assert not re.search(r"<li><code>[^<]+</code>: [^<]*(\.\.\.|…)</li>", commands)
    assert "OPTIMIZE_" in (tmp_path / "reference" / "knobs.html").read_text(encoding="utf-8")


def test_the_table_of_scale_is_the_computed_one() -> None:
    assert table() in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
