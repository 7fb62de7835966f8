"""How a bench prints what it measured: a table for people, the same rows as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def printed(rows: Sequence[Mapping[str, Any]], title: str, as_json: bool) -> None:
    """A column for each key of the first row."""
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
