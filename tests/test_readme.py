"""The README is executable: every command and option it names exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"^(?:\| `)?optimize ((?:lm )?[a-z]+)", README, re.MULTILINE)))


def help_of(command: str) -> str:
    words = [sys.executable, "-m", "optimize", *command.split(), "--help"]
    return subprocess.run(
        words, capture_output=True, text=True, env={"COLUMNS": "200", "PATH": "", "TERM": "dumb"}
    ).stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_exists(command: str) -> None:
    shown = help_of(command)
    assert "Usage" in shown
    for line in re.findall(rf"^.*optimize {command}\b.*$", README, re.MULTILINE):
        for option in re.findall(
            r"(?<!pip install )--[a-z][a-z-]+",
            line.split("#")[0].split("`")[1] if line.startswith("|") else line.split("#")[0],
        ):
            assert option in shown, (command, option)


def test_every_command_is_in_the_readme() -> None:
    listed = re.findall(r"^[│|] ([a-z]+) ", help_of(""), re.MULTILINE)
    assert len(listed) >= 8
    for command in listed:
        assert f"optimize {command}" in README, command


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make ([a-z]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_documents_link_to_files_that_exist() -> None:
    for link in re.findall(r"\]\(([a-zA-Z][^):]*)\)", README):
        assert (ROOT / link).exists(), link
