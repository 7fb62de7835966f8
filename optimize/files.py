"""Text files read, with errors that name file and line, and values written as JSON.

Knows nothing of what they mean.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Set
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import RootModel, TypeAdapter

from optimize.errors import WorkbenchError, shown

ANY = TypeAdapter(Any)  # made once: making one costs more than writing a value

LONGEST = 1_000_000  # characters of a line
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_text(path: Path) -> str:
    """The file's text.

    Raises WorkbenchError where it is missing or not UTF-8; a byte order mark is dropped.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise WorkbenchError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}. Save it as UTF-8."
        ) from None
    except OSError as error:
        raise WorkbenchError(f"{path} cannot be read: {error.strerror}.") from None


def write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever reads it, after a crash too, finds the old text or the new."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with part.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def unused(path: Path) -> Path:
    """The path with a number after it, the first that nothing lies at."""
    return next(p for n in count(1) if not (p := path.with_name(f"{path.name}.{n}")).exists())


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """A line a row; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def read_jsonl(path: Path) -> list[tuple[int, Any]]:
    """(line number, value) for each line that is not blank.

    Raises WorkbenchError naming the line that is not JSON.
    """
    found = []
    # not splitlines: JSON strings may hold U+2028
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            found.append((number, json_value(line, f"{path}:{number}")))
    return found


def only_read(path: Path) -> str:
    """What to do, where nothing can be written at the path; empty where something can."""
    whole = path.absolute()
    # Path.exists raises below a folder that may not be looked into
    there = next(place for place in (whole, *whole.parents) if os.path.exists(place))
    if os.access(there, os.W_OK):
        return ""
    return f"{there} can only be read here: copy the project to a folder where you may write."


def json_value(line: str, place: str) -> Any:
    """A line of JSON. Raises WorkbenchError, naming the place, for one that is none."""
    if len(line) > LONGEST:
        raise WorkbenchError(
            f"{place}: {len(line):,} characters; a line may have {LONGEST:,}. No LM reads more."
        )
    try:
        value = json.loads(line, object_pairs_hook=_object)
        if SURROGATE.search(line):  # half a character: no LM, and no file, can be sent it
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        problem = f"not JSON: {error.msg} at column {error.colno}"
    except _Twice as error:
        problem = f"{shown(str(error))} stands in it twice; which one holds?"
    except RecursionError:
        problem = "its lists and objects are nested too deeply"
    except UnicodeEncodeError as error:
        problem = f"{error.object[error.start]!a} is half a character; repair the text"
    except ValueError as error:  # a number of thousands of digits
        problem = str(error).split(";")[0]
    raise WorkbenchError(f"{place}: {problem}.")


class _Twice(Exception):
    """A key that an object has twice. JSON's readers take the last one without a word."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return found


def plain(value: Any) -> Any:
    """The value as JSON knows it: pydantic models as objects, enums and dates as text, sets as
    sorted lists.
    """
    return _ordered(value, ANY.dump_python(value, mode="json"))


def _ordered(value: Any, written: Any) -> Any:
    """What pydantic has written of the value, with the items of its sets sorted: the order that
    Python has them in is another one in each process.
    """
    if isinstance(value, RootModel):
        return _ordered(value.root, written)
    if isinstance(written, list) and isinstance(value, Collection) and len(value) == len(written):
        items = [_ordered(v, w) for v, w in zip(value, written, strict=True)]
        return sorted(items, key=_canonical) if isinstance(value, Set) else items
    if isinstance(value, Mapping) and len(value) == len(written):  # 1 and "1" are one name
        pairs = zip(value.values(), written.items(), strict=True)
        return {name: _ordered(v, w) for v, (name, w) in pairs}
    if isinstance(written, dict):  # a model's or a dataclass's fields
        return {name: _ordered(getattr(value, name, w), w) for name, w in written.items()}
    return written


def to_text(value: Any) -> str:
    """Text as it is, anything else as JSON."""
    return value if isinstance(value, str) else to_json(value)


def to_json(value: Any) -> str:
    """Canonical JSON of plain values, pydantic models, enums and dates: keys are sorted."""
    return _canonical(plain(value))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
