"""A row on one line: what was asked comes first and is never cut away; nulls are left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optimize.files import plain, to_text
from optimize.task import Task

INPUT, OUTPUT = 160, 100  # letters of all inputs, of an output


def shown(task: Task, row: Mapping[str, Any]) -> str:
    """inputs → outputs."""
    return f"{shown_input(task, row)} → {shown_output(task, row)}"


def shown_input(task: Task, row: Mapping[str, Any]) -> str:
    """Every input field with its share of the room, so that a long one hides no short one."""
    found = {n: row[n] for n in task.signature.input_fields if row.get(n) is not None}
    return shown_fields(found, INPUT // max(1, len(found)))


def shown_output(task: Task, row: Mapping[str, Any]) -> str:
    """The outputs that are not null."""
    found = {n: row[n] for n in task.signature.output_fields if row.get(n) is not None}
    return shown_fields(found, OUTPUT) or "null"


def shown_difference(task: Task, row: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """The row's outputs that were answered otherwise, and how; inside objects, the parts that
    differ.
    """
    if not task.signature.output_fields.keys() <= answer.keys():
        return f"{shown_output(task, row)}, answered {_clipped(_joined(answer))!r}"
    parts = []
    for name in task.signature.output_fields:
        gold, said = plain(row[name]), plain(answer[name])
        if isinstance(gold, dict) and isinstance(said, dict):
            keys = [key for key in {**gold, **said} if gold.get(key) != said.get(key)]
            gold, said = ({key: found.get(key) for key in keys} for found in (gold, said))
        if gold != said:
            parts.append((name, f"{_value(gold)}, answered {_value(said)}"))
    if len(parts) == len(task.signature.output_fields) == 1:
        return parts[0][1]
    # what gold leaves null says least
    parts.sort(key=lambda part: row[part[0]] is None)
    return "; ".join(f"{name} {text}" for name, text in parts) or shown_output(task, row)


def shown_fields(found: Mapping[str, Any], room: int = OUTPUT) -> str:
    """One value alone, several with their names; each with so much room. Quoted text holds nothing
    that steers a terminal.
    """
    if len(found) == 1:
        return _value(next(iter(found.values())), room)
    return ", ".join(f"{name}={_value(value, room)}" for name, value in found.items())


def _value(value: Any, room: int = OUTPUT) -> str:
    text = to_text(_filled(plain(value)))
    return repr(_clipped(text, room)) if isinstance(value, str) else _clipped(text, room)


def _filled(value: Any) -> Any:
    """Without nulls inside objects, unless nothing else is there."""
    if isinstance(value, list):
        return [_filled(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {k: _filled(v) for k, v in value.items() if v is not None} or value


def _joined(answer: Mapping[str, Any]) -> str:
    return " / ".join(map(to_text, answer.values()))


def _clipped(text: str, room: int = OUTPUT) -> str:
    return text if len(text) <= room else f"{text[: room - 1]}…"
