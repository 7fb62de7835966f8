"""Text that rows and LMs wrote, made harmless for where it is shown. Knows no report."""

from __future__ import annotations

import re

# control characters, terminal escapes among them, and halves of characters
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def visible(text: str) -> str:
    """With control characters as pictures of themselves: an escape does nothing and is seen."""
    return CONTROL.sub(_picture, text)


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "\ufffd"


def cell(text: str) -> str:
    """For a spreadsheet, which runs a cell that begins like a formula; a number stays one."""
    shown = visible(text)
    risky = shown.startswith(FORMULA) or shown.lstrip().startswith(FORMULA)
    return f"'{shown}" if risky and not NUMBER.fullmatch(shown) else shown


def prose(text: str) -> str:
    """For Markdown outside of code: no HTML, no picture, no link, and nobody is mentioned."""
    shown = visible(text).replace("<", "&lt;").replace("](", "]\\(")
    return re.sub(r"@(?=\w)", "@\u2060", shown)


def code(text: str) -> str:
    """As a code span on one line of a Markdown table, in which nothing is a link or a mention."""
    line = re.sub(r"\s+", " ", visible(text)).strip().replace("|", "¦")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {line} {fence}" if line else "–"
