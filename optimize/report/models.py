"""The models that run in the process, as records and as a table. Knows no screen."""

from __future__ import annotations

from pydantic import Field

from optimize.report.sections import NONE, Section
from optimize.stats.records import Record


class ModelRecord(Record):
    flag: str = Field(description="--lm or --embedder")
    name: str = Field(description="what the flag takes")
    default: bool = False
    licence: str = ""
    context: int | None = Field(default=None, description="tokens it was trained to read")
    bytes: int
    here: bool


class Models(Record):
    models: list[ModelRecord]


def models_section(found: Models) -> Section:
    """Those of the catalogue as a table; any other file on a line of its own, its path whole."""
    known = [m for m in found.models if m.context]
    rows = [
        [m.flag, _name(m), m.licence, str(m.context), _mb(m), "yes" if m.here else NONE]
        for m in known
    ]
    others = [f"{m.flag} {m.name} ({_mb(m)} MB)" for m in found.models if not m.context]
    columns = ("flag", "name", "licence", "context", "MB", "here")
    return Section("", [*others, "Fetch one: optimize lm pull NAME"], columns, rows)


def _name(found: ModelRecord) -> str:
    return f"{found.name} (embedded)" if found.default else found.name


def _mb(found: ModelRecord) -> str:
    return f"{found.bytes / 1e6:.0f}"
