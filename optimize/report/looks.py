"""How what is looked at reads in a terminal: runs, prompts, rows, this machine.

Rows, prompts and answers are nobody's but the user's and the LM's: they are never markup, and what
would steer a terminal is shown instead of sent.
"""

from __future__ import annotations

from rich.console import Group, RenderableType

from optimize.report.runs import Runs, runs_section
from optimize.report.text import bullets, table


def runs_shown(found: Runs, width: int) -> RenderableType:
    if not found.runs:
        return "No run yet. Next: optimize run TASK (`optimize tasks` lists them)."
    section = runs_section(found, width)
    return Group(table(section), *([bullets(section.lines, style="dim")] if section.lines else []))
