"""The compact format: what an LM is shown, what it must answer, and how its answer is read."""

from __future__ import annotations

import enum
from datetime import date
from typing import Any, Literal

import dspy
import jsonschema
import pytest
from pydantic import BaseModel, TypeAdapter

from optimize.program.compact_format import CompactAdapter, answer_schema


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Part(BaseModel):
    name: str
    level: Level


class Record(BaseModel):
    owner: str
    due: date | None = None
    parts: list[Part] = []


def signature(*inputs: str, **outputs: Any) -> type[dspy.Signature]:
    fields: dict[str, Any] = {name: (str, dspy.InputField()) for name in inputs or ("text",)}
    fields |= {name: (annotation, dspy.OutputField()) for name, annotation in outputs.items()}
    return dspy.Signature(fields, "Do it.")


TEXT = signature(reply=str)
LABEL = signature(desk=Literal["billing", "claims"])
LEVEL = signature(level=Level)
RECORD = signature(record=Record)
RATED = dspy.Signature(
    {"text": (str, dspy.InputField()), "stars": (int, dspy.OutputField(ge=1, le=5))}, "Do it."
)
CODED = dspy.Signature(
    {"text": (str, dspy.InputField()), "code": (str, dspy.OutputField(pattern=r"^[A-Z]{2}[0-9]$"))},
    "Do it.",
)
SEVERAL = signature(level=Level, note=str, record=Record)
ANSWER = Record(owner="Ana", due=date(2026, 3, 4), parts=[Part(name="lid", level=Level.LOW)])
ANSWER_JSON = '{"owner": "Ana", "due": "2026-03-04", "parts": [{"name": "lid", "level": "low"}]}'
BARE = {"owner": "Ana", "due": None, "parts": []}
COMPACT, TERSE = CompactAdapter(), CompactAdapter(explain=False)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        (TEXT, ""),
        (LABEL, "\nAnswer with one of: billing, claims."),
        (LEVEL, "\nAnswer with one of: low, high."),
        (
            RECORD,
            '\nAnswer with JSON: {"owner": "...", "due": "YYYY-MM-DD or null", "parts": '
            '[{"name": "...", "level": "low|high"}]}',
        ),
        (
            signature(level=Level, note=str),
            '\nAnswer with JSON: {"level": "low|high", "note": "..."}',
        ),
        (signature(count=int), '\nAnswer with JSON: "int"'),
    ],
)
def test_the_system_message_is_the_instruction_and_the_answers_shape(
    asked: type[dspy.Signature], hint: str
) -> None:
    assert COMPACT.format_system_message(asked) == "Do it." + hint
    assert TERSE.format_system_message(asked) == "Do it."


@pytest.mark.parametrize(
    ("asked", "outputs", "answer"),
    [
        (TEXT, {"reply": "Yes, we do."}, "Yes, we do."),
        (LABEL, {"desk": "claims"}, '"claims"'),
        (LEVEL, {"level": Level.HIGH}, '"high"'),
        (RECORD, {"record": ANSWER}, ANSWER_JSON),
        (
            SEVERAL,
            {"level": Level.LOW, "note": "é", "record": ANSWER},
            f'{{"level": "low", "note": "é", "record": {ANSWER_JSON}}}',
        ),
    ],
)
def test_demos_are_turns(asked: type[dspy.Signature], outputs: dict[str, Any], answer: str) -> None:
    messages = COMPACT.format(asked, [{"text": "first", **outputs}], {"text": "second"})
    assert [(m["role"], m["content"]) for m in messages] == [
        ("system", COMPACT.format_system_message(asked)),
        ("user", "first"),
        ("assistant", answer),
        ("user", "second"),
    ]


@pytest.mark.parametrize(
    ("asked", "answer", "value"),
    [
        (CODED, '"AB1"', "AB1"),
        (CODED, "AB1", "AB1"),
        (CODED, '"ab1"', None),
        (CODED, "ab1", None),
        (RATED, "5", 5),
        (RATED, "6", None),
    ],
)
def test_an_answer_beyond_a_fields_constraints_is_unparsable(
    asked: type[dspy.Signature], answer: str, value: object
) -> None:
    if value is None:
        with pytest.raises(dspy.AdapterParseError):
            COMPACT.parse(asked, answer)
    else:
        assert COMPACT.parse(asked, answer) == {next(iter(asked.output_fields)): value}


def test_several_inputs_are_named() -> None:
    asked = signature("passages", "text", reply=str)
    messages = COMPACT.format(asked, [], {"passages": ["[1] one", "[2] two"], "text": "hello"})
    assert messages[-1]["content"] == "passages:\n[1] one\n[2] two\n\ntext:\nhello"


@pytest.mark.parametrize(("asked", "right", "wrong"), [
    (LABEL, "claims", "sales"),
    (LEVEL, "low", "middle"),
    (RECORD, BARE, {"owner": "Ana"}),  # optional fields are answered too, with null
    (SEVERAL, {"level": "low", "note": "x", "record": BARE}, {"level": "low", "note": "x"}),
    (RATED, 5, 6),  # a field's own constraints hold as well
    (CODED, "AB1", "ab1"),
])  # fmt: skip
def test_the_schema_takes_right_answers_only(
    asked: type[dspy.Signature], right: Any, wrong: Any
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = answer_schema(asked)
    jsonschema.validate(right, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_text_has_no_schema() -> None:
    assert answer_schema(TEXT) is None


@pytest.mark.parametrize(
    ("any_schema", "asked", "constrained"),
    [(True, LABEL, True), (True, TEXT, False), (False, LABEL, False)],
)
def test_an_answer_is_constrained_where_the_server_can(
    any_schema: bool, asked: type[dspy.Signature], constrained: bool
) -> None:
    """What the LM is sent, seen by the engine behind it."""

    class Engine:
        def complete(self, request: dspy.lm15.Request) -> dspy.lm15.Response:
            seen.append(request.config.response_format)
            raise dspy.lm15.InvalidRequestError("seen enough")

    seen: list[Any] = []
    lm = dspy.LM("any/lm", engine=Engine(), cache=False)
    lm.any_schema = any_schema
    with pytest.raises(dspy.LMError):
        COMPACT(lm, {}, asked, [], {"text": "hello"})
    (sent,) = seen
    assert (sent and sent["schema"]) == (answer_schema(asked) if constrained else None)


@pytest.mark.parametrize(
    ("asked", "answer", "expected"),
    [
        (TEXT, "  Yes, we do.\n", {"reply": "Yes, we do."}),
        (TEXT, '"quoted"', {"reply": '"quoted"'}),
        (LABEL, '"claims"', {"desk": "claims"}),
        (LABEL, "claims", {"desk": "claims"}),
        (LABEL, " 'claims'.\n", {"desk": "claims"}),
        (LABEL, "`claims`", {"desk": "claims"}),
        (signature(grade=Literal["1", "2"]), "2", {"grade": "2"}),
        (signature(grade=Literal[1, 2]), "2", {"grade": 2}),
        (signature(reply=Literal["Yes.", "No."]), "Yes.", {"reply": "Yes."}),
        (LEVEL, '"high"', {"level": Level.HIGH}),
        (LEVEL, "high", {"level": Level.HIGH}),
        (signature(count=int), "12", {"count": 12}),
        (signature(names=list[str]), '["a", "b"]', {"names": ["a", "b"]}),
        (RECORD, ANSWER_JSON, {"record": ANSWER}),
        (RECORD, f"```json\n{ANSWER_JSON}\n```", {"record": ANSWER}),
        (
            signature(level=Level, note=str),
            '{"note": "12", "level": "low"}',
            {"level": Level.LOW, "note": "12"},
        ),
    ],
)
def test_good_answers(asked: type[dspy.Signature], answer: str, expected: dict[str, Any]) -> None:
    assert COMPACT.parse(asked, answer) == expected


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (LABEL, "sales"),
        (LABEL, ""),
        (LABEL, '["claims"]'),
        (LABEL, "claims or billing"),
        (LEVEL, "middling"),
        (RECORD, '{"due": "2026-03-04"}'),
        (RECORD, '{"owner": "Ana", "due": "soon"}'),
        (RECORD, "I cannot do that"),
        (signature(count=int), "many"),
        (SEVERAL, '{"level": "low"}'),
        (SEVERAL, "low"),
        (SEVERAL, ""),
    ],
)
def test_bad_answers(asked: type[dspy.Signature], answer: str) -> None:
    with pytest.raises(dspy.AdapterParseError) as raised:
        COMPACT.parse(asked, answer)
    assert raised.value.lm_response == answer


@pytest.mark.parametrize(
    ("asked", "outputs"),
    [
        (TEXT, {"reply": 'Say "hi", then go.'}),
        (LABEL, {"desk": "billing"}),
        (signature(reply=Literal["Yes.", "'No'"]), {"reply": "'No'"}),
        (signature(grade=Literal["1", "2"]), {"grade": "1"}),
        (signature(done=bool), {"done": False}),
        (signature(when=date), {"when": date(2026, 3, 4)}),
        (signature(note=str | None), {"note": None}),
        (LEVEL, {"level": Level.LOW}),
        (RECORD, {"record": ANSWER}),
        (signature(records=list[Record]), {"records": [ANSWER, ANSWER]}),
        (SEVERAL, {"level": Level.HIGH, "note": "true", "record": ANSWER}),
        (signature(first=str, second=str), {"first": "1", "second": '{"x": "y"}'}),
    ],
)
def test_what_is_shown_as_an_answer_is_read_back(
    asked: type[dspy.Signature], outputs: dict[str, Any]
) -> None:
    shown = COMPACT.format_assistant_message_content(asked, outputs)
    assert COMPACT.parse(asked, shown) == outputs
    if schema := answer_schema(asked):
        pytest.importorskip("jsonschema").validate(TypeAdapter(Any).validate_json(shown), schema)


def test_a_field_may_be_called_as_a_word_of_json_schema() -> None:
    class Param(BaseModel):
        name: str
        default: str | None = None

    asked = dspy.Signature({"text": (str, dspy.InputField()), "param": (Param, dspy.OutputField())})
    schema = answer_schema(asked)
    jsonschema.validate({"name": "size", "default": "1"}, schema)
    assert set(schema["required"]) == set(schema["properties"]) == {"name", "default"}


def test_a_field_that_may_be_null_may_be_left_out() -> None:
    asked = dspy.Signature("trip -> place: str | None, day: str | None, n: int")
    read = CompactAdapter().parse(asked, '{"place": "Bern", "n": 3}')
    assert read == {"place": "Bern", "day": None, "n": 3} and list(read) == ["place", "day", "n"]
    with pytest.raises(dspy.AdapterParseError):
        CompactAdapter().parse(asked, '{"place": "Bern", "day": null}')
