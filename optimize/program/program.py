"""A task's program with what the ladder adds around it: output format, guide, demos and passages
found at call time.

Saved as one JSON file and loaded back to the same prompts. Knows no optimizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy
from pydantic import TypeAdapter

from optimize import usercode
from optimize.data.fields import field_type
from optimize.data.inputs import input_text
from optimize.errors import WorkbenchError
from optimize.files import plain, read_text
from optimize.lm.dspy_door import first_prompt
from optimize.lm.room import THOUGHT
from optimize.program.around import Around, Sent
from optimize.program.formats import FORMATS
from optimize.program.guide import Guide, WithGuide
from optimize.program.retrieval import PASSAGES, Neighbours, Passages
from optimize.program.votes import elected, sampled
from optimize.task import Task

if TYPE_CHECKING:
    from optimize.lm.embedder import Embedder

STATE_VERSION = 1
UNKNOWN = "…"  # in a prompt: what an earlier step will say
REASONING = "reasoning"  # the output field that dspy.ChainOfThought adds


class Program(dspy.Module):
    """The task's module (`inner`) in an output format, with demos and passages looked up for each
    call.

    reasoning: tokens for what is written out before the answer; 0: it is not. votes: answers of
    which the commonest is given; 0: the one there is. tuned: the adapter file or
    the provider's name of the tuned LM this program must run on, with `lm` that LM; None: the LM in
    context.
    """

    def __init__(self, inner: dspy.Module, task: Task) -> None:
        super().__init__()
        self.inner = inner
        self.task = task
        self.format = "chat"
        self.neighbours: Neighbours | None = None
        self.passages: Passages | None = None
        self.guide: Guide | None = None
        self.reasoning = 0
        self.votes = 0
        self.tuned: str | None = None
        self.lm: dspy.LM | None = None

    def forward(self, **inputs: Any) -> Any:
        if not self.votes:
            return self._answer(inputs, self.lm)
        outputs, lm = list(self.task.signature.output_fields), self.lm or dspy.settings.lm
        return elected(self.votes, outputs, lambda n: self._answer(inputs, sampled(lm, n)))

    def _answer(self, inputs: dict[str, Any], lm: dspy.LM | None) -> Any:
        """One answer, by this LM; None: by the one in context."""
        with ExitStack() as stack:
            stack.enter_context(dspy.context(adapter=self.adapter_for(inputs)))
            if lm:
                stack.enter_context(dspy.context(lm=lm))
            given = self.with_passages(inputs)
            # a module of DSPy's own fails by what the LM answered: a failed call
            if type(self.inner).__module__.startswith("dspy."):
                return self.inner(**given)
            with usercode.on_row(lambda: self.task.row_name(inputs)):
                return usercode.run(lambda: self.inner(**given), self.inner, self.task.root)

    def adapter_for(self, inputs: dict[str, Any]) -> dspy.Adapter:
        """The format, with what else is shown to this input."""
        adapter: dspy.Adapter = FORMATS[self.format]
        if self.guide:
            adapter = WithGuide(adapter, self.guide)
        if not self.neighbours:
            return adapter
        found = self.neighbours.find(input_text(self.task, inputs))
        shown = [self.with_passages(row) for row in found]
        return _WithDemos(adapter, shown, reasoning=self.reasoning > 0)

    @property
    def reasons(self) -> bool:
        """Whether it takes more than one step, written out or not, to its answer."""
        return len(self.predictors()) > 1 or any(
            REASONING in p.signature.output_fields for p in self.predictors()
        )

    def with_passages(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row, or an input, with the passages its inputs retrieve, if this program retrieves
        any.
        """
        return (
            {PASSAGES: self.passages.find(input_text(self.task, row)), **row}
            if self.passages
            else row
        )

    def demos_for(self, inputs: dict[str, Any]) -> list[dict[str, Any]]:
        """The demos that these inputs are shown with: those of its predictors, and those looked
        up.
        """
        fixed = [dict(demo) for predictor in self.predictors() for demo in predictor.demos]
        near = self.neighbours
        return fixed + (near.find(input_text(self.task, inputs)) if near else [])

    def use_passages(self, passages: Passages) -> None:
        """Give every predictor a passages input, before the others, and its demos their passages.

        Raises WorkbenchError where the task's module does not pass unknown inputs on to its
        predictors.
        """
        if not isinstance(self.inner, dspy.Predict | dspy.ChainOfThought):
            raise WorkbenchError("passages are handed to dspy.Predict and dspy.ChainOfThought only")
        for predictor in self.predictors():
            if PASSAGES not in predictor.signature.input_fields:
                field = dspy.InputField(desc="from the knowledge base, best match first")
                predictor.signature = predictor.signature.prepend(PASSAGES, field, list[str])
        self.passages = passages
        for predictor in self.predictors():
            demos = [
                {k: v for k, v in dict(demo).items() if k != PASSAGES} for demo in predictor.demos
            ]
            predictor.demos = [dspy.Example(**self.with_passages(demo)) for demo in demos]

    def use_reasoning(self, thought: int = THOUGHT) -> None:
        """Let the LM write its reasoning before its answer, in so many tokens, without the demos
        there were: they show none.

        Raises WorkbenchError for a module that is more than one dspy.Predict.
        """
        if type(self.inner) is not dspy.Predict:
            raise WorkbenchError("reasoning is added to a dspy.Predict only")
        room = self.task.max_tokens + thought
        self.inner = dspy.ChainOfThought(self.inner.signature, max_tokens=room)
        self.neighbours, self.reasoning = None, thought

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        return {
            "version": STATE_VERSION,
            "task": self.task.name,
            "signature": signature_hash(self.task),
            "format": self.format,
            "neighbours": self.neighbours
            and {
                "k": self.neighbours.k,
                "rows": plain(self.neighbours.rows),
                "embedder": _knobs(self.neighbours.embedder),
            },
            "passages": self.passages
            and {"k": self.passages.k, "embedder": _knobs(self.passages.embedder)},
            "guide": self.guide and asdict(self.guide),
            "reasoning": self.reasoning,
            "votes": self.votes,
            "tuned": self.tuned,
            # DSPy keeps enums, dates and decimals of a demo as they are
            "predictors": plain(super().dump_state(json_mode=json_mode)),
        }

    def load_state(self, state: dict[str, Any], *, allow_unsafe_lm_state: bool = False) -> None:
        """Take over a saved state.

        Raises WorkbenchError for another version or another signature.
        """
        if state.get("version") != STATE_VERSION:
            raise WorkbenchError(
                f"The saved program has version {state.get('version')!r}; this reads "
                f"{STATE_VERSION}."
            )
        if state["signature"] != signature_hash(self.task):
            raise WorkbenchError(
                f"The program was saved for other fields than programs/{self.task.name}.py has now."
            )
        self.format = state["format"]
        if thought := state.get("reasoning"):  # True: what was saved before it had a size
            self.use_reasoning(THOUGHT if thought is True else thought)
        if state["neighbours"]:
            saved, rows = state["neighbours"], tuple(state["neighbours"]["rows"])
            texts = tuple(input_text(self.task, r) for r in rows)
            self.neighbours = Neighbours(saved["k"], texts, rows, self._embedder(saved))
        if state["passages"]:
            if not self.task.corpus:
                raise WorkbenchError(
                    f"The program retrieves passages, but {self.task.folder}/corpus.jsonl is gone."
                )
            saved = state["passages"]
            self.use_passages(Passages(saved["k"], self.task.corpus, self._embedder(saved)))
        self.guide = Guide(**found) if (found := state.get("guide")) else None
        self.votes = state.get("votes", 0)
        self.tuned = state["tuned"]
        # the LM is the caller's, or the module's own; never one that a file names
        own = {name: predictor.lm for name, predictor in self.named_predictors()}
        saved = {name: {**found, "lm": None} for name, found in state["predictors"].items()}
        super().load_state(saved, allow_unsafe_lm_state=False)
        for name, predictor in self.named_predictors():
            predictor.lm = own[name]

    def _embedder(self, saved: Mapping[str, Any]) -> Embedder | None:
        if not (knobs := saved.get("embedder")):
            return None
        from optimize.lm.embedder import saved_embedder  # heavy, and not in every exported program

        return saved_embedder(self.task.root, **knobs)


def _knobs(embedder: Embedder | None) -> dict[str, Any] | None:
    return embedder.knobs if embedder else None


class _WithDemos(Around):
    """Demos of this call, put before the input."""

    def __init__(self, adapter: dspy.Adapter, demos: list[dict[str, Any]], reasoning: bool) -> None:
        super().__init__(adapter)
        self.demos, self.reasoning = demos, reasoning

    def changed(self, signature: Any, demos: list[Any], inputs: dict[str, Any]) -> Sent:
        # rows hold no reasoning; DSPy shows that as not supplied
        shown = set(signature.output_fields) - ({REASONING} if self.reasoning else set())
        fitting = [demo for demo in self.demos if shown <= set(demo)]
        return signature, [*demos, *fitting], inputs


def student(task: Task) -> Program:
    """The task's program as anyone would first run it: zero-shot, DSPy's default format."""
    inner = usercode.run(lambda: task.program(task.signature), task.program, task.root)
    return Program(inner, task)


def signature_hash(task: Task) -> str:
    """A hash of the task's field names and their JSON Schemas, so that a program is not loaded into
    another signature.
    """
    types = [(name, TypeAdapter(field_type(f)).json_schema()) for name, f in task.fields.items()]
    return hashlib.sha256(json.dumps(types).encode()).hexdigest()[:16]


def to_text(program: Program, lm: Mapping[str, Any] | None = None) -> str:
    """The program's state as it is kept in files and artifacts.

    lm: the knobs (`config.TASK_LM`) of the LM it was optimized on, for whoever loads it; None: not
    said.
    """
    state = program.dump_state() | {"lm": dict(lm or {})}
    return json.dumps(state, indent=1, ensure_ascii=False)


def save(program: Program, path: Path, lm: Mapping[str, Any] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_text(program, lm), encoding="utf-8")


def read_program(task: Task, path: Path, tuned_lm: Callable[[str], dspy.LM]) -> Program:
    """The saved program; `tuned_lm` gives the LM that a tuned program runs on."""
    return parse_program(task, read_text(path), str(path), tuned_lm)


def parse_program(task: Task, text: str, where: str, tuned_lm: Callable[[str], dspy.LM]) -> Program:
    """The program of a file's text. Raises WorkbenchError, naming `where`, if it holds none."""
    program = student(task)
    try:
        program.load_state(json.loads(text))
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise WorkbenchError(f"{where} is not a saved program: {error!r}.") from error
    if program.tuned:
        program.lm = tuned_lm(program.tuned)
    return program


def render(program: Program, example: dspy.Example) -> str:
    """All that this example would send, as text, without calling an LM: a prompt for each step."""
    first, *later = prompts(program, example)
    return first + "".join(f"\n=== step {n} ===\n{text}" for n, text in enumerate(later, 2))


def prompts(program: Program, example: dspy.Example) -> list[str]:
    """A prompt for each step. What only an LM's answers to earlier steps would tell is UNKNOWN in
    the later ones, and code of the task between steps is not run.
    """
    inputs, lm = dict(example.inputs()), program.lm
    program.lm = None
    try:
        with usercode.on_row(lambda: program.task.row_name(example)):
            first = first_prompt(lambda: program(**inputs))
    finally:
        program.lm = lm
    if len(steps := program.predictors()) < 2:
        return [_as_text(first)]

    def ask(step: dspy.Predict) -> list[dict[str, Any]]:
        given = {name: inputs.get(name, UNKNOWN) for name in step.signature.input_fields}
        try:
            return first_prompt(lambda: step(**given))
        except Exception:  # a field that takes no text, a history for one: not to be shown
            return []

    with dspy.context(adapter=program.adapter_for(inputs)):
        asked = [ask(step) for step in steps]
    asked_first = next((n for n, messages in enumerate(asked) if messages[:1] == first[:1]), 0)
    del asked[asked_first]
    return [_as_text(messages) for messages in (first, *filter(None, asked))]


def _as_text(messages: list[dict[str, Any]]) -> str:
    return "\n".join(f"--- {m['role']} ---\n{m['content']}" for m in messages) + "\n"
