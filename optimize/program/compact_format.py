"""A prompt format for small LMs: the instruction as system, demos as turns, the answer bare and
constrained.

Measured on the embedded LM, the format is worth more than any instruction (docs/results.md).
"""

from __future__ import annotations

import json
from typing import Any

import dspy
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from optimize.data.fields import field_type
from optimize.files import plain
from optimize.lm.dspy_door import read_value, whole_answer
from optimize.task import choices

Signature = type[dspy.Signature]


class CompactAdapter(dspy.ChatAdapter):
    """One output is answered by its bare value (text for `str`, JSON else), several by one JSON
    object.

    Where the server constrains to any JSON Schema (`lm.any_schema`), the answer is constrained to
    the outputs' type. With explain=False the system message is the instruction alone: enough for an
    LM tuned on these very prompts.
    """

    def __init__(self, explain: bool = True) -> None:
        super().__init__(use_json_adapter_fallback=False)
        self.explain = explain

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Signature,
        demos: list[Any],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        schema = answer_schema(signature)
        if schema and getattr(lm, "any_schema", False):
            spec = {"name": "answer", "schema": schema, "strict": True}
            lm_kwargs = {
                **lm_kwargs,
                "response_format": {"type": "json_schema", "json_schema": spec},
            }
        return dspy.Adapter.__call__(self, lm, lm_kwargs, signature, demos, inputs)  # type: ignore[no-any-return]

    def format_system_message(self, signature: Signature) -> str:
        hint = _answer_hint(signature) if self.explain else ""
        return "\n".join(filter(None, [signature.instructions, hint]))

    def format_user_message_content(
        self,
        signature: Signature,
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        given = {
            name: inputs[name] for name in signature.input_fields if inputs.get(name) is not None
        }
        if len(signature.input_fields) == 1:
            body = "".join(_text(value) for value in given.values())
        else:
            body = "\n\n".join(f"{name}:\n{_text(value)}" for name, value in given.items())
        return "\n\n".join(filter(None, [prefix, body, suffix]))

    def format_assistant_message_content(
        self,
        signature: Signature,
        outputs: dict[str, Any],
        missing_field_message: str | None = None,
    ) -> str:
        values = {
            name: outputs.get(name, missing_field_message) for name in signature.output_fields
        }
        if len(values) > 1:
            return _json(values)
        value = next(iter(values.values()))
        return value if isinstance(value, str) and _is_text(signature) else _json(value)

    def parse(self, signature: Signature, completion: str) -> dict[str, Any]:
        text = completion.strip()
        try:
            if len(signature.output_fields) > 1:
                found = read_value(text, dict[str, Any])
                fields = signature.output_fields
                read = {
                    name: _parsed(found[name], f) for name, f in fields.items() if name in found
                }
                return whole_answer(signature, read)
            name, field = next(iter(signature.output_fields.items()))
            if _is_text(signature):
                return {name: text}
            try:
                return {name: TypeAdapter(field_type(field)).validate_json(text)}
            except ValueError:
                options = choices(field.annotation)
                bare = text if text in options else text.strip("\"'`. \n")
                return {name: _parsed(bare, field)}
        except Exception as error:
            raise dspy.AdapterParseError(
                "CompactAdapter", signature, completion, message=str(error)
            ) from error


def answer_schema(signature: Signature) -> dict[str, Any] | None:
    """The JSON Schema an answer must match; None where any text will do."""
    if _is_text(signature):
        return None
    fields = list(signature.output_fields.values())
    return (
        dict(_strict(TypeAdapter(field_type(fields[0])).json_schema()))
        if len(fields) == 1
        else object_schema(signature)
    )


def object_schema(signature: Signature) -> dict[str, Any]:
    """The JSON Schema of all outputs as one object."""
    schemas = {
        name: TypeAdapter(field_type(f)).json_schema()
        for name, f in signature.output_fields.items()
    }
    shared = {
        key: value for schema in schemas.values() for key, value in schema.pop("$defs", {}).items()
    }
    schema = {"type": "object", "properties": schemas}
    return dict(_strict({**schema, "$defs": shared} if shared else schema))


def _strict(schema: Any) -> Any:
    """The schema with every property required and no other allowed, as OpenAI's strict mode
    demands.

    llama.cpp puts what is not required last, where demos do not have it, and a small LM then leaves
    it out.
    """
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items() if key != "default"}
    for names in schema.keys() & {"properties", "$defs"}:  # whose keys are no words of JSON Schema
        strict[names] = {name: _strict(value) for name, value in schema[names].items()}
    if "properties" in schema:
        strict |= {"required": list(schema["properties"]), "additionalProperties": False}
    return strict


def _is_text(signature: Signature) -> bool:
    return [field_type(f) for f in signature.output_fields.values()] == [str]


def _parsed(value: Any, field: FieldInfo) -> Any:
    """The value as DSPy reads it, checked against the field's constraints, which DSPy only mentions
    in its prompts.
    """
    return TypeAdapter(field_type(field)).validate_python(read_value(value, field.annotation))


def _answer_hint(signature: Signature) -> str:
    if _is_text(signature):
        return ""
    types = [f.annotation for f in signature.output_fields.values()]
    if len(types) == 1 and choices(types[0]):
        return f"Answer with one of: {', '.join(choices(types[0]))}."
    shape = (
        _shape(types[0])
        if len(types) == 1
        else {name: _shape(f.annotation) for name, f in signature.output_fields.items()}
    )
    return f"Answer with JSON: {json.dumps(shape, ensure_ascii=False)}"


def _shape(annotation: Any) -> Any:
    """The type as an example-like JSON value, short enough for a small LM."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {name: _shape(f.annotation) for name, f in annotation.model_fields.items()}
    if options := choices(annotation):
        return "|".join(options)
    arguments: tuple[Any, ...] = getattr(annotation, "__args__", ())
    if getattr(annotation, "__origin__", None) is list:
        return [_shape(arguments[0])]
    if type(None) in arguments:
        return f"{_shape(next(a for a in arguments if a is not type(None)))} or null"
    return {"str": "...", "date": "YYYY-MM-DD"}.get(
        getattr(annotation, "__name__", ""), getattr(annotation, "__name__", "value")
    )


def _text(value: Any) -> str:
    value = plain(value)  # as a saved demo has it
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _json(value: Any) -> str:
    return json.dumps(plain(value), ensure_ascii=False)
