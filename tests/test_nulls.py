"""Null, "none" and an empty text are one thing in an optional field: in rows, demos and answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any, Literal

import dspy
import pytest
from pydantic import BaseModel

from optimize.data.fields import denulled
from optimize.data.rows import load_splits
from optimize.finetune.training_rows import chat_rows
from optimize.program.formats import FORMATS
from optimize.program.program import Program, render, student
from optimize.task import Task
from tests.conftest import Says

Tiny = Callable[..., Task]
Rows = list[dict[str, Any]]
SPELT = ["null", "None", "none", " NULL ", ""]


class Guest(BaseModel):
    name: str
    phone: str | None = None
    born: date | None = None


class Booking(dspy.Signature):
    """Read the booking."""

    text: str = dspy.InputField()
    hint: str | None = dspy.InputField()
    place: str | None = dspy.OutputField()
    day: date | None = dspy.OutputField()
    seat: Literal["aisle", "window"] | None = dspy.OutputField()
    guest: Guest | None = dspy.OutputField()


GOLD = {"place": None, "day": None, "seat": None, "guest": None}
FULL = {
    "place": "Bern", "day": date(2026, 3, 4), "seat": "aisle", "guest": Guest(name="Ana"),
}  # fmt: skip


def written(form: str, values: dict[str, str]) -> str:
    """An answer as an LM writes it in the format, with these texts for the fields."""
    if form == "chat":
        return "\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in values.items())
    if form == "xml":
        return "\n".join(f"<{name}>{text}</{name}>" for name, text in values.items())
    return "{" + ", ".join(f'"{name}": "{text}"' for name, text in values.items()) + "}"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("text", SPELT)
def test_every_spelling_of_null_is_read_as_null(form: str, text: str) -> None:
    answer = written(form, dict.fromkeys(GOLD, text))
    assert FORMATS[form].parse(Booking, answer) == GOLD


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("outputs", [GOLD, FULL])
def test_what_is_shown_is_read_back_and_null_is_shown_as_null(
    form: str, outputs: dict[str, Any]
) -> None:
    shown = FORMATS[form].format_assistant_message_content(Booking, outputs)
    assert "None" not in shown and (outputs is FULL or shown.count("null") == 4)
    assert FORMATS[form].parse(Booking, shown) == outputs


@pytest.mark.parametrize("form", FORMATS)
def test_a_demo_with_nulls_is_a_whole_demo_in_its_place(form: str) -> None:
    demos = [{"text": "first", "hint": None, **FULL}, {"text": "second", "hint": None, **GOLD}]
    messages = FORMATS[form].format(Booking, demos, {"text": "third", "hint": None})
    said = "\n".join(m["content"] for m in messages[1:])
    assert "not supplied" not in said and "None" not in said.replace("NoneType", "")
    assert said.index("first") < said.index("second") < said.index("third")


@pytest.mark.parametrize("form", ["chat", "json", "xml"])
def test_nulls_inside_an_object_are_read(form: str) -> None:
    guest = '{"name": "Ana", "phone": "none", "born": "None"}'
    values = {
        "chat": f"[[ ## guest ## ]]\n{guest}",
        "json": f'{{"guest": {guest}}}',
        "xml": "<guest><name>Ana</name><phone>none</phone><born>None</born></guest>",
    }
    asked = Booking.delete("place").delete("day").delete("seat")
    assert FORMATS[form].parse(asked, values[form])["guest"] == Guest(name="Ana")


def test_a_required_text_may_say_none() -> None:
    asked = dspy.Signature("question -> answer")
    assert FORMATS["chat"].parse(asked, "[[ ## answer ## ]]\nNone") == {"answer": "None"}
    assert denulled("none", Literal["none", "some"] | None) == "none"


def test_an_answer_asked_for_again_as_json_reads_nulls_too(tiny: Tiny, mood_rows: Rows) -> None:
    asked = dspy.Signature(
        {"text": (str, dspy.InputField()), "mood": (str | None, dspy.OutputField())}
    )
    program = student(tiny(asked, rows=mood_rows))
    lm = dspy.LM("any/lm", engine=Says(["nothing to be read", '{"mood": "None"}']), cache=False)
    with dspy.context(lm=lm):
        assert program(text="hello").mood is None


@pytest.mark.parametrize("form", FORMATS)
def test_thoughts_are_no_part_of_an_answer(form: str) -> None:
    """A thinking model's, where its server leaves them in the text."""
    asked = dspy.Signature("question -> answer, tone")
    said, doubted = ({"answer": colour, "tone": "dark"} for colour in ("blue", "red"))
    thought = f"<think>\nIs it red? {written(form, doubted)}\n</think>\n\n"
    assert FORMATS[form].parse(asked, thought + written(form, said)) == said
    # some templates write the opening tag into the prompt
    cut = thought.removeprefix("<think>")
    assert FORMATS[form].parse(asked, cut + written(form, said)) == said


# --- rows ---


@pytest.fixture
def bookings(tiny: Tiny, mood_rows: Rows) -> Task:
    rows = [{"text": row["text"], "place": SPELT[n % 5]} for n, row in enumerate(mood_rows)]
    rows[7] |= {"place": "Bern", "guest": {"name": "Ana", "phone": "none", "born": ""}}
    return tiny(Booking, rows=rows)


def test_an_absent_optional_field_and_every_spelling_is_null(bookings: Task) -> None:
    splits = load_splits(bookings)
    found = {e.place: e for side in splits.sides().values() for e in side}
    assert set(found) == {None, "Bern"}
    assert found["Bern"].guest == Guest(name="Ana") and found["Bern"].seat is None


def test_training_rows_and_demos_show_null(bookings: Task) -> None:
    rows = load_splits(bookings).train
    program: Program = student(bookings)
    for form in ("chat", "xml", "compact", "terse"):
        program.format = form
        answer = chat_rows(program, rows[:1])[0]["messages"][-1]["content"]
        assert "None" not in answer and answer.count("null") >= 3
    program.format = "chat"
    program.predictors()[0].demos = [dict(rows[0])]
    assert "None\n" not in render(program, rows[1]) and "not supplied" not in render(
        program, rows[1]
    )
