"""What a field may hold, and that null, "none" and an empty text are one thing in an optional one.

Knows no rows, no LM.
"""

from __future__ import annotations

from collections.abc import Container
from functools import partial
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from optimize.lm.dspy_door import allows_none
from optimize.task import choices

NULLS = ("", "none", "null")  # what LMs, CSV files and people write for nothing, in any case


def is_optional(field: FieldInfo) -> bool:
    return allows_none(field.annotation)


def closed_set(field: FieldInfo) -> dict[str, Any]:
    """What an output may hold, by how it is written; empty where that is no closed set. A null
    beside them is not among them.
    """
    inside = _some(get_args(field.annotation)) if is_optional(field) else []
    for kind in (field.annotation, *inside):
        if known := choices(kind):
            return dict(zip(known, get_args(kind) or list(kind), strict=True))
    return {}


def field_type(field: FieldInfo) -> Any:
    """The field's type with its constraints (`OutputField(pattern=…, ge=…)`), which pydantic keeps
    apart, and with null read in all its spellings.
    """
    kept = (*field.metadata, *_reader(field.annotation))
    return Annotated[(field.annotation, *kept)] if kept else field.annotation


def lenient(annotation: Any) -> Any:
    """The type for `dspy_door.read_value`, with null read in all its spellings."""
    # a text or null is told from JSON by the bare annotation; `denulled` comes after
    kept = () if str in get_args(annotation) else _reader(annotation)
    return Annotated[(annotation, *kept)] if kept else annotation


def denulled(value: Any, annotation: Any) -> Any:
    """The value, not yet validated, with null for every spelling of it where the type allows null:
    as it is, or inside models, lists and dicts.
    """
    if isinstance(value, str):
        spelt = value.strip().casefold() in NULLS and allows_none(annotation)
        return None if spelt and not _is_choice(value, annotation) else value
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated or (origin in (Union, UnionType) and len(_some(args)) == 1):
        return denulled(value, _some(args)[0])
    if isinstance(value, dict) and _is_model(annotation):
        known = annotation.model_fields
        return {k: denulled(v, known[k].annotation) if k in known else v for k, v in value.items()}
    if isinstance(value, dict) and origin is dict:
        return {k: denulled(v, args[1]) for k, v in value.items()}
    if isinstance(value, list) and origin in (list, set) and args:
        return [denulled(item, args[0]) for item in value]
    return value


def _reader(annotation: Any) -> tuple[BeforeValidator, ...]:
    nested = _is_model(annotation) or get_origin(annotation) in (list, set, dict)
    if not (nested or allows_none(annotation)):
        return ()
    return (BeforeValidator(partial(denulled, annotation=annotation)),)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _some(args: tuple[Any, ...]) -> list[Any]:
    return [arg for arg in args if arg is not type(None)]


def _is_choice(value: str, annotation: Any) -> bool:
    """Whether "none" is one of the labels of an optional closed set."""
    return any(value in choices(arg) for arg in get_args(annotation))


def free_name(name: str, taken: Container[str]) -> str:
    """The name, with `_` behind it as often as it takes to be none of those taken."""
    while name in taken:
        name += "_"
    return name
