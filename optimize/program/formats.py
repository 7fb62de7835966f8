"""The prompt formats: DSPy's and our own, all with one way to show and to read a null.

DSPy shows a null as `None`, which LMs copy and which then reads as a text; and it takes a demo with
a null for an unfinished one, puts it first and says so in the prompt.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import dspy

from optimize.data.fields import denulled, is_optional, lenient
from optimize.lm import heard
from optimize.lm.dspy_door import OwnFallback
from optimize.lm.thinking import THOUGHTS
from optimize.program.compact_format import CompactAdapter

Signature = type[dspy.Signature]
NULL = "null"


class Nulls(OwnFallback):
    """Mixed into an adapter: a demo whose gaps are nulls is a whole one, an answer of "None",
    "null" or nothing for an optional field is null, and thoughts are no part of an answer.
    """

    def format_demos(self, signature: Signature, demos: list[Any]) -> list[dict[str, Any]]:
        whole = [demo for demo in demos if _is_whole(signature, demo)]
        rest = [demo for demo in demos if not _is_whole(signature, demo)]
        messages: list[dict[str, Any]] = super().format_demos(signature, rest)  # type: ignore[misc]
        for demo in whole:
            asked = self.format_user_message_content(signature, demo)  # type: ignore[attr-defined]
            said = self.format_assistant_message_content(signature, demo)  # type: ignore[attr-defined]
            messages += [
                {"role": "user", "content": asked},
                {"role": "assistant", "content": said},
            ]
        return messages

    def parse(self, signature: Signature, completion: str) -> dict[str, Any]:
        read: Any = _lenient
        completion = THOUGHTS.sub("", completion)
        found = super().parse(read(signature), completion)  # type: ignore[misc]
        fields = signature.output_fields
        return {name: denulled(value, fields[name].annotation) for name, value in found.items()}

    def fallback(self) -> dspy.JSONAdapter:
        heard.note_again()
        return Json(use_native_function_calling=False)


class Spelt(Nulls):
    """The same for formats that write values as text: a null is written as JSON writes it."""

    def format_user_message_content(
        self, signature: Signature, inputs: dict[str, Any], *args: Any, **named: Any
    ) -> str:
        shown = {name: NULL if value is None else value for name, value in inputs.items()}
        return super().format_user_message_content(signature, shown, *args, **named)  # type: ignore[misc, no-any-return]

    def format_field_with_value(self, fields_with_values: dict[Any, Any], **role: str) -> str:
        if role.get("role") != "assistant":  # there JSON has a null of its own
            fields_with_values = {
                field: NULL if value is None else value
                for field, value in fields_with_values.items()
            }
        return super().format_field_with_value(fields_with_values, **role)  # type: ignore[misc, no-any-return]


class Chat(Spelt, dspy.ChatAdapter):
    """DSPy's default."""


class Json(Spelt, dspy.JSONAdapter):
    """DSPy's JSON object."""


class Xml(Spelt, dspy.XMLAdapter):
    """DSPy's XML."""


class Compact(Nulls, CompactAdapter):
    """Ours: a null input is left out, a null output is JSON's."""


FORMATS: dict[str, dspy.ChatAdapter] = {
    "chat": Chat(),
    "json": Json(),
    "xml": Xml(),
    "compact": Compact(),
    "terse": Compact(explain=False),  # what an LM is tuned on and then asked in
}


def _is_whole(signature: Signature, demo: Any) -> bool:
    return all(
        name in demo and (demo[name] is not None or is_optional(field))
        for name, field in signature.fields.items()
    )


@lru_cache(maxsize=256)
def _lenient(signature: Signature) -> Signature:
    """The signature with output types that read null in all its spellings."""
    changed = {
        name: read
        for name, field in signature.output_fields.items()
        if (read := lenient(field.annotation)) is not field.annotation
    }
    if not changed:
        return signature
    copy: Signature = signature.with_updated_fields(next(iter(changed)))
    for name, read in changed.items():  # set here: a signature's making takes Annotated apart
        copy.output_fields[name].annotation = read
    return copy
