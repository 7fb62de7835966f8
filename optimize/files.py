"""Reading users' text files: every error names file and line. Knows nothing of what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError


def read_text(path: Path) -> str:
    """The file's text. Raises WorkbenchError where it is missing or not UTF-8; a byte order mark is dropped."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise WorkbenchError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}. Save it as UTF-8.") from None
    except OSError as error:
        raise WorkbenchError(f"{path} cannot be read: {error.strerror}.") from None


def read_jsonl(path: Path) -> list[tuple[int, Any]]:
    """(line number, value) for each line that is not blank. Raises WorkbenchError naming the line that is not JSON."""
    found = []
    for number, line in enumerate(read_text(path).split("\n"), 1):  # not splitlines: JSON strings may hold U+2028
        if line.strip():
            try:
                found.append((number, json.loads(line)))
            except json.JSONDecodeError as error:
                raise WorkbenchError(f"{path}:{number}: not JSON: {error.msg} at column {error.colno}.") from None
    return found
