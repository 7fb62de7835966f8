"""A program is one file and comes back with the same prompts, or is refused with a reason."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import dspy
import pytest
from pydantic import BaseModel, create_model

from optimize import lm as lms
from optimize.data.inputs import input_text
from optimize.data.rows import Splits
from optimize.errors import WorkbenchError
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM, one_example
from optimize.program.formats import FORMATS
from optimize.program.guide import Guide, rules
from optimize.program.program import (
    Program,
    parse_program,
    read_program,
    render,
    save,
    student,
    to_text,
)
from optimize.program.retrieval import PASSAGES, Neighbours, Passages
from optimize.program.template import templates
from optimize.store.prompts import prompt_name
from optimize.task import Task
from tests.conftest import Says

Shipped = Callable[[str], tuple[Task, Splits]]
Tiny = Callable[..., Task]
TASKS = ("tickets", "kb_answer", "extract")
SECRET = "sk-do-not-save"


def no_lm(adapter: Path) -> dspy.LM:
    raise AssertionError("only a tuned program asks for an LM")


def add_demos(program: Program, splits: Splits) -> None:
    for predictor in program.predictors():
        predictor.demos = [dspy.Example(**program.with_passages(dict(e))) for e in splits.train[:3]]


def add_neighbours(program: Program, splits: Splits) -> None:
    rows = tuple(dict(e) for e in splits.train)
    program.neighbours = Neighbours(2, tuple(input_text(program.task, row) for row in rows), rows)


def add_passages(program: Program, splits: Splits) -> None:
    if program.task.corpus:
        program.use_passages(Passages(2, program.task.corpus))


def add_instruction(program: Program, splits: Splits) -> None:
    for predictor in program.predictors():
        predictor.signature = predictor.signature.with_instructions(
            'Be exact: é, "quotes"\nand a second line.'
        )


def add_guide(program: Program, splits: Splits) -> None:
    program.guide = Guide(program.task.guide)


def add_rules(program: Program, splits: Splits) -> None:
    program.guide = Guide(program.task.guide, 2)


def add_reasoning(program: Program, splits: Splits) -> None:
    program.use_reasoning()


def add_votes(program: Program, splits: Splits) -> None:
    program.votes = 5


LEVERS: dict[str, list[Callable[[Program, Splits], None]]] = {
    "nothing": [],
    "instruction": [add_instruction],
    "demos": [add_demos],
    "neighbours": [add_neighbours],
    "passages": [add_passages],
    "demos, then passages": [add_demos, add_passages],
    "guide": [add_guide],
    "reasoning": [add_reasoning, add_guide],
    "votes": [add_demos, add_votes],
    "rules of the guide": [add_demos, add_rules],
    "all": [add_instruction, add_passages, add_demos, add_neighbours, add_guide],
}


@pytest.mark.parametrize("levers", LEVERS)
@pytest.mark.parametrize("form", ["chat", "json", "compact"])
@pytest.mark.parametrize("name", TASKS)
def test_a_loaded_program_renders_the_same_prompts(
    shipped: Shipped, tmp_path: Path, name: str, form: str, levers: str
) -> None:
    task, splits = shipped(name)
    program = student(task)
    program.format = form
    for lever in LEVERS[levers]:
        lever(program, splits)
    save(program, tmp_path / "deep" / "program.json")
    again = read_program(task, tmp_path / "deep" / "program.json", no_lm)
    for example in splits.test[:3]:
        assert render(again, example) == render(program, example)


class Desk(enum.Enum):
    FRONT = "front"


class Place(BaseModel):
    street: str
    since: date


TYPED: dict[str, tuple[Any, Any]] = {
    "date": (date, date(2026, 2, 3)),
    "moment": (datetime, datetime(2026, 2, 3, 4, 5)),
    "desk": (Desk, Desk.FRONT),
    "price": (Decimal, Decimal("1.50")),
    "model": (Place, Place(street="Elm", since=date(2026, 2, 3))),
    "days": (list[date], [date(2026, 2, 3), date(2026, 2, 4)]),
}


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("kind", TYPED)
@pytest.mark.parametrize("form", FORMATS)
def test_a_demo_of_any_type_is_sent_as_it_was_scored(
    tiny: Tiny, form: str, kind: str, alone: bool
) -> None:
    annotation, value = TYPED[kind]
    fields: dict[str, Any] = {"given": (annotation, dspy.InputField())}
    fields |= {} if alone else {"text": (str, dspy.InputField())}
    task = tiny(signature=dspy.Signature(fields | {"mood": (str, dspy.OutputField())}, "Rate it."))
    row = dspy.Example(given=value, text="so so", mood="good").with_inputs("given", "text")
    program = student(task)
    program.format = form
    program.predictors()[0].demos = [dspy.Example(given=value, text="well", mood="good")]
    again = parse_program(task, to_text(program), "there", no_lm)
    assert render(again, row) == render(program, row)


def test_each_lever_is_in_the_prompt(shipped: Shipped) -> None:
    task, splits = shipped("kb_answer")
    example = splits.test[0]
    assert task.corpus
    shown = {
        add_instruction: ["and a second line."],
        add_demos: [e.reply for e in splits.train[:3]],
        add_guide: task.guide.splitlines()[:1],
        add_passages: [
            text.split(":")[0] for text in Passages(2, task.corpus).find(example.message)
        ],
    }
    for lever, texts in shown.items():
        program = student(task)
        assert not any(text in render(program, example) for text in texts)
        lever(program, splits)
        assert all(text in render(program, example) for text in texts), lever.__name__


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_shows_the_input(shipped: Shipped, form: str) -> None:
    task, splits = shipped("tickets")
    program = student(task)
    program.format = form
    text = render(program, splits.test[0])
    assert text.startswith("--- system ---\n") and "--- user ---\n" in text
    assert splits.test[0].message in text


def test_a_neighbour_is_never_the_row_itself(shipped: Shipped) -> None:
    task, splits = shipped("tickets")
    program = student(task)
    program.format = "compact"
    add_neighbours(program, splits)
    for example in splits.train[:10]:
        assert render(program, example).count(example.message) == 1


def test_passages_go_to_demos_added_before(shipped: Shipped) -> None:
    task, splits = shipped("kb_answer")
    program = student(task)
    add_demos(program, splits)
    add_passages(program, splits)
    assert all(
        len(demo[PASSAGES]) == 2 for predictor in program.predictors() for demo in predictor.demos
    )


class Own(dspy.Module):
    def __init__(self, signature: type[dspy.Signature]) -> None:
        super().__init__()
        self.inner = dspy.Predict(signature)

    def forward(self, **inputs: Any) -> Any:
        return self.inner(**inputs)


def test_a_module_of_ones_own_takes_no_passages(shipped: Shipped) -> None:
    task, _ = shipped("kb_answer")
    assert task.corpus
    with pytest.raises(WorkbenchError, match=r"dspy\.Predict and dspy\.ChainOfThought only"):
        Program(Own(task.signature), task).use_passages(Passages(1, task.corpus))


def test_a_chain_of_thought_comes_back(shipped: Shipped, tmp_path: Path) -> None:
    task, splits = shipped("kb_answer")
    thinking = Task(
        signature=task.signature,
        metric=task.metric,
        program=dspy.ChainOfThought,
        name=task.name,
        root=task.root,
    )
    program = student(thinking)
    add_passages(program, splits)
    save(program, tmp_path / "program.json")
    again = read_program(thinking, tmp_path / "program.json", no_lm)
    assert render(again, splits.test[0]) == render(program, splits.test[0])


def test_a_tuned_program_asks_for_its_lm(tiny: Tiny, tmp_path: Path) -> None:
    program = student(tiny())
    program.tuned = "adapter.gguf"
    save(program, tmp_path / "program.json")
    lm = dspy.utils.DummyLM([])
    asked: list[Path] = []
    again = read_program(
        program.task, tmp_path / "program.json", lambda adapter: asked.append(adapter) or lm
    )
    assert (asked, again.lm, again.tuned) == ([program.tuned], lm, program.tuned)


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 2}, r"has version 2; this reads 1"),
        ({"version": None}, r"has version None"),
        ({"signature": "0" * 16}, r"saved for other fields than programs/tiny\.py has now"),
        ({"passages": {"k": 1}}, r"corpus\.jsonl is gone"),
    ],
)
def test_another_state_is_refused(
    tiny: Tiny, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    program, path = student(tiny()), tmp_path / "program.json"
    save(program, path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WorkbenchError, match=told):
        read_program(program.task, path, no_lm)


@pytest.mark.parametrize(
    "content",
    [b"", b'{"version": 1', b'{"version": 1}', b"[]", b"null", b'"text"', b'{"version": "\xff"}'],
    ids=lambda c: repr(c),
)
def test_a_file_that_is_no_program_is_refused(tiny: Tiny, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "program.json"
    path.write_bytes(content)
    with pytest.raises(WorkbenchError):
        read_program(tiny(), path, no_lm)


def test_a_missing_file_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match=r"gone\.json cannot be read"):
        read_program(tiny(), tmp_path / "gone.json", no_lm)


def output(annotation: Any, name: str = "answer") -> type[dspy.Signature]:
    return dspy.Signature(
        {"text": (str, dspy.InputField()), name: (annotation, dspy.OutputField())}, "Do it."
    )


ORDER_1: type[BaseModel] = create_model("Order", item=(str, ...))
ORDER_2: type[BaseModel] = create_model("Order", item=(str, ...), due=(str, ...))
LEVEL_1, LEVEL_2 = (
    enum.Enum("Level", {"LOW": "low"}),
    enum.Enum("Level", {"LOW": "low", "HIGH": "high"}),
)


@pytest.mark.parametrize(
    ("saved", "now"),
    [
        (output(str), output(str, "reply")),
        (output(str), output(int)),
        (output(Literal["a", "b"]), output(Literal["a", "c"])),
        (output(ORDER_1), output(ORDER_2)),  # the model's fields changed, its name did not
        (output(LEVEL_1), output(LEVEL_2)),
    ],
    ids=["name", "type", "literal", "model", "enum"],
)
def test_a_program_of_other_fields_is_refused(
    tiny: Tiny, tmp_path: Path, saved: Any, now: Any
) -> None:
    save(student(tiny(saved)), tmp_path / "program.json")
    assert read_program(tiny(saved), tmp_path / "program.json", no_lm)
    with pytest.raises(WorkbenchError, match="other fields"):
        read_program(tiny(now), tmp_path / "program.json", no_lm)


def test_the_key_of_an_lm_is_never_saved(tiny: Tiny, tmp_path: Path) -> None:
    lm = MeteredLM("openai/gpt-4.1-mini", meter=Meter(1), api_key=SECRET)
    program, path = student(tiny()), tmp_path / "program.json"
    program.lm = lm
    program.set_lm(lm)
    save(program, path)
    assert program.predictors()[0].lm is lm
    assert SECRET not in path.read_text()


@pytest.mark.parametrize("mark", ["-", "*", "+", "•", "–", "1.", "1)"])
def test_every_kind_of_list_has_a_rule_an_entry(mark: str) -> None:
    found = rules(f"Rules:\n{mark} Left is up,\n+3 is too.\n{mark} Right is down.")
    assert found == ["Rules:", f"{mark} Left is up, +3 is too.", f"{mark} Right is down."]


def test_a_guide_is_taken_apart_into_rules() -> None:
    guide = (
        "Go down\nthe list.\n\n1. **safety**: smoke,\n   sparks.\n2. risk\n   - a lawyer\n\n"
        "| a | b |\n| --- | --- |\n"
    )
    assert rules(guide) == [
        "Go down the list.",
        "1. **safety**: smoke, sparks.",
        "2. risk",
        "- a lawyer",
        "| a | b |",
    ]


def test_only_rules_that_fit_the_row_are_shown_with_it(shipped: Shipped) -> None:
    task, splits = shipped("tickets")
    program = student(task)
    before = render(program, splits.test[0])
    program.guide = Guide("1. A lawyer is named: risk.\n2. An app that fails: account.", 1)
    demo = splits.train[0]
    program.predictors()[0].demos = [demo]
    told = render(program, demo.copy(message="My lawyer will write to you."))
    asked = told.rsplit("--- user ---", 1)[1]
    assert "A lawyer is named" in asked and "An app that fails" not in asked
    assert "not supplied" not in told, "a demo has its rules as well, and counts as a whole one"
    program.guide, program.predictors()[0].demos = None, []
    assert render(program, splits.test[0]) == before


def test_the_commonest_answer_wins_and_an_unreadable_one_has_no_vote(tiny: Tiny) -> None:
    program = student(tiny(rows=[]))
    program.format, program.votes = "compact", 5
    for said, wins in (
        (["bad", "good", "good", "bad", "good"], "good"),
        (["bad", "good", "bad", "good", "neither"], "bad"),  # the earliest on a tie
        (["what?", "hm", "good", "no", "none"], "good"),
    ):
        lm = dspy.LM("openai/votes", engine=Says(said), cache=False)
        with dspy.context(lm=lm):
            assert program(text="so so").mood == wins
    with (
        dspy.context(lm=dspy.LM("openai/votes", engine=Says(["hm"] * 5), cache=False)),
        pytest.raises(dspy.AdapterParseError),
    ):
        program(text="so so")


def test_votes_are_samples_of_their_own_and_the_first_is_the_answer_there_was(
    tiny: Tiny, tmp_path: Path
) -> None:
    task, meter = tiny(rows=[]), Meter(100)
    lms.configure(tmp_path)
    program = student(task)
    program.format = "compact"
    lm = MeteredLM("openai/votes", meter=meter, engine=Says(["good"] * 100), temperature=0.0)
    with dspy.context(lm=lm):
        program(text="so so")
        program.votes = 5
        program(text="so so")
        assert (meter.usage().asked, meter.usage().calls) == (6, 5)
        program(text="so so")
        assert (meter.usage().asked, meter.usage().calls) == (11, 5)
        with one_example(repeat=1):
            program(text="so so")
        assert meter.usage().calls == 10, "asked again, each of them is asked anew"


def test_prompts_of_a_dict_of_steps_have_names_that_a_registry_can_search(tiny: Tiny) -> None:
    class Routed(dspy.Module):
        def __init__(self, signature: type[dspy.Signature]) -> None:
            super().__init__()
            self.steps = {"a/b": dspy.Predict(signature), "c d": dspy.Predict(signature)}

        def forward(self, text: str) -> dspy.Prediction:
            return self.steps["a/b"](text=text)

    program = student(replace(tiny(), program=Routed))
    names = {prompt_name(program, step) for step in templates(program)}
    assert len(names) == 2 and all(re.fullmatch(r"[\w.-]+", name) for name in names), names
