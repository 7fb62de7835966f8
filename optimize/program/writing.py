"""The prompt by which an LM writes a new row: some rows of people, the label wanted, and how.

One row a call, each call with other rows to look at (Self-Instruct: Wang et al., 2023) and another
length and manner (AttrPrompt: Yu et al., 2023): the same LM asked the same way writes the same few
rows. Knows no files and asks nothing itself.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import dspy

from optimize.data.fields import free_name
from optimize.files import to_text
from optimize.lm.room import CAREFUL
from optimize.program.program import Program
from optimize.task import Score, Task, choices

ALIKE, OTHER = 3, 3  # rows shown of the label wanted, and of others beside
STYLES = (
    "in plain words",
    "in a hurry, with an abbreviation or a slip of the keyboard",
    "politely and at ease",
    "as a question",
    "as a statement or an order, not as a question",
    "in a roundabout way, without the most obvious words",
    "with a detail that does not matter",
    "as an expert would",
)
ROOM, MOST_ROOM = 100, 2000  # tokens of a new row


@dataclass(frozen=True)
class Draw:
    """What one call is asked for. label: None where the task's outputs are no label. alike, other:
    rows it is shown. words: about how many its longest text has. passage: that the row is about.
    """

    number: int
    label: str | None
    alike: tuple[dspy.Example, ...]
    other: tuple[dspy.Example, ...]
    style: str
    words: int
    passage: str = ""

    @property
    def seeds(self) -> tuple[dspy.Example, ...]:
        return self.other + self.alike

    def fewer(self) -> Draw:
        """The draw with a row less to look at."""
        if self.other:
            return replace(self, other=self.other[:-1])
        return replace(self, alike=self.alike[:-1])


def label_values(task: Task) -> dict[str, Any]:
    """The task's labels as text, with their values; empty where it has none."""
    if not task.label:
        return {}
    annotation: Any = task.signature.output_fields[task.label].annotation
    values = list(get_args(annotation) or annotation)
    return dict(zip(choices(annotation), values, strict=True))


def label_of(task: Task, row: Mapping[str, Any]) -> str | None:
    """A row's label as text."""
    return str(getattr(row[task.label], "value", row[task.label])) if task.label else None


def wanted_labels(task: Task, counts: Mapping[str, int]) -> Iterator[str | None]:
    """The label of each new row, without end: always one of those with the fewest rows so far,
    those that were asked for among them. counts: train rows of each label.

    It hangs on the train rows alone, so that a command that goes on asks for the same again.
    """
    heap = [(counts.get(label, 0), n, label) for n, label in enumerate(label_values(task))]
    heapq.heapify(heap)
    while True:
        if not heap:
            yield None
            continue
        count, n, label = heapq.heappop(heap)
        heapq.heappush(heap, (count + 1, n, label))
        yield label


def drawn(
    task: Task,
    rows: Sequence[dspy.Example],
    number: int,
    label: str | None,
    seed: int,
    passages: Sequence[str] = (),
) -> Draw:
    """What call `number` is asked for: the same for the same rows and seed, whatever came of the
    calls before it.
    """
    rng = random.Random(f"{seed} {number}")
    same = [e for e in rows if label_of(task, e) == label]
    others = [e for e in rows if label_of(task, e) != label] if label is not None else []
    alike = rng.sample(same, min(ALIKE if others else ALIKE + OTHER, len(same)))
    other = rng.sample(others, min(OTHER, len(others)))
    words = _words(task, rng.choice(rows))
    passage = rng.choice(passages) if passages else ""
    return Draw(number, label, tuple(alike), tuple(other), rng.choice(STYLES), words, passage)


def brief(task: Task, draw: Draw) -> str:
    """What the writer is told."""
    parts = [f"The rows are made for this task: {task.signature.instructions}"]
    if task.guide:
        parts += [f"People who label them go by this:\n{task.guide}"]
    if draw.other:
        parts += ["Rows of other kinds, to see the difference:", *_shown(task, draw.other)]
    if draw.alike:
        parts += ["Rows of the kind that is wanted:", *_shown(task, draw.alike)]
    if draw.passage:
        parts += [f"The new row is about this passage of the knowledge base:\n{draw.passage}"]
    told = ["Write one new row, as a person in real use would. It is about something that none of "
            "the rows above is about, and copies no phrase of theirs."]  # fmt: skip
    if draw.label is not None:
        told += [f"The right {task.label} for it is {draw.label!r}, and no other."]
    if draw.words:
        told += [f"It has about {draw.words} words."]
    told += [f"As far as such rows allow, it is written {draw.style}."]
    return "\n\n".join([*parts, " ".join(told)])


def writer(task: Task, rows: Sequence[dspy.Example]) -> Program:
    """The program that writes a row from its brief: the task's inputs, and its outputs unless these
    are the label that is asked for, each with its own type. Its task's metric accepts all.
    """
    written = {**task.signature.input_fields, **task.signature.output_fields}
    written.pop(task.label or "", None)
    name = brief_field(task)
    fields: dict[str, Any] = {name: (str, dspy.InputField())}
    for field, info in written.items():
        told = (info.json_schema_extra or {}).get("desc")
        known = {} if not told or str(told).startswith("${") else {"desc": told}
        fields[field] = (info.annotation, dspy.OutputField(**known))
    signature = dspy.make_signature(fields, "Write one new row, as the brief asks.")
    longest = max(sum(len(to_text(e[f])) for f in written) for e in rows)
    room = min(MOST_ROOM, ROOM + longest // CAREFUL)
    made = replace(
        task, signature=signature, metric=lambda row, answer: Score(1.0), program=dspy.Predict
    )
    program = Program(dspy.Predict(signature, max_tokens=room), made)
    program.format = "json"
    return program


def asked(task: Task, draw: Draw) -> dspy.Example:
    """The draw as the writer's input."""
    name = brief_field(task)
    return dspy.Example(**{name: brief(task, draw)}).with_inputs(name)


def brief_field(task: Task) -> str:
    return free_name("brief", task.fields)


def _shown(task: Task, rows: Sequence[dspy.Example]) -> list[str]:
    return ["\n".join(f"{name}: {to_text(e[name])}" for name in task.fields) for e in rows]


def _words(task: Task, row: dspy.Example) -> int:
    """Of its longest input text; 0: it has none, or no spaces between words."""
    from optimize.data.words import SPACELESS

    texts = [row[name] for name in task.signature.input_fields if isinstance(row[name], str)]
    if any(map(SPACELESS.search, texts)):
        return 0
    return max((len(text.split()) for text in texts), default=0)
