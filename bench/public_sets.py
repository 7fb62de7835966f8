"""Public labelled sets from ../shared/data as tasks for the benchmarks.

None of their rows ship with the project.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dspy
from dspy.evaluate.metrics import f1_score

from optimize.data.split import folded
from optimize.files import read_jsonl
from optimize.task import Score, Task

SETS = Path(__file__).resolve().parents[2] / "shared" / "data"
Rows = list[dict[str, str]]
NAMES = ("banking77_12", "clinc_domain10", "query_wellformedness")


@dataclass(frozen=True)
class PublicSet:
    """A task, rows to learn from, and rows to score on; both shuffled once."""

    task: Task
    learn: tuple[dspy.Example, ...]
    score: tuple[dspy.Example, ...]


def public_set(name: str) -> PublicSet:
    """banking77_12: every sixth of the 77 intents in alphabetical order. The set's own test file is
    the rows to score on.
    """
    if not SETS.is_dir():
        sys.exit(f"{SETS} is not there: this benchmark reads the public sets beside the project.")
    if name == "banking77_12":
        labels = sorted({row["label"] for row in read_set("banking77", "train")})[::6][:12]
        learn = [
            r
            for f in ("train", "train_pool")
            for r in read_set("banking77", f)
            if r["label"] in labels
        ]
        seen: Counter[str] = Counter()
        learn = [r for r in learn if (seen.update([r["label"]]) or seen[r["label"]] <= 25)]
        score = [
            r for f in ("dev", "test") for r in read_set("banking77", f) if r["label"] in labels
        ]
        question = "Name the intent of the bank customer's message."
    else:
        learn = [r for f in ("train", "dev") for r in read_set(name, f)]
        score = read_set(name, "test")
        labels = sorted({row["label"] for row in score})
        question = {
            "clinc_domain10": "Name the domain of the request.",
            "query_wellformedness": "Is the question well formed: correct grammar and spelling, "
            "a real question?",
        }[name]
    shuffled = [random.Random(7).sample(rows, len(rows)) for rows in (learn, score)]
    sides = [
        tuple(dspy.Example(text=r["text"], label=r["label"]).with_inputs("text") for r in rows)
        for rows in shuffled
    ]
    return PublicSet(
        Task(
            signature=_signature(question, tuple(labels)), metric=_metric, name=name, max_tokens=24
        ),
        *sides,
    )


def plain_rows(data: PublicSet) -> tuple[Rows, Rows]:
    """Text and label of the rows to learn from and of those to score on."""
    learn, score = (
        [{"text": e.text, "label": e.label} for e in side] for side in (data.learn, data.score)
    )
    return learn, score


def apart(learn: Rows, held: Rows) -> Rows:
    """The rows to learn from whose text none of the held-out ones has."""
    texts = {folded(row["text"]) for row in held}
    return [row for row in learn if folded(row["text"]) not in texts]


def hotpotqa() -> PublicSet:
    """Questions that need two passages, which are given; the answer's words are scored."""
    passages = {row["id"]: row["text"] for row in read_set("hotpotqa", "corpus")}
    asked = {
        file: [
            dspy.Example(
                question=row["question"],
                passages="\n".join(passages[name] for name in row["supporting"]),
                answer=row["answer"],
            ).with_inputs("question", "passages")
            for row in read_set("hotpotqa", file)
        ]
        for file in ("train", "dev", "test")
    }
    signature = dspy.Signature("question, passages -> answer", "Answer in a few words.")
    task = Task(signature=signature, metric=_words, name="hotpotqa", max_tokens=24)
    return PublicSet(task, (*asked["train"], *asked["dev"]), tuple(asked["test"]))


def _words(example: dspy.Example, prediction: dspy.Prediction) -> Score:
    value = float(f1_score(prediction.answer or "", example.answer))
    return Score(value, "" if value == 1 else f"The right answer is {example.answer!r}.")


def _signature(question: str, labels: tuple[str, ...]) -> type[dspy.Signature]:
    fields: dict[str, Any] = {
        "text": (str, dspy.InputField()),
        "label": (Literal[labels], dspy.OutputField()),
    }
    return dspy.make_signature(fields, question)


def _metric(example: dspy.Example, prediction: dspy.Prediction) -> Score:
    right = prediction.label == example.label
    return Score(float(right), "" if right else f"The right label is {example.label!r}.")


def read_set(name: str, file: str) -> list[dict[str, Any]]:
    return [row for _, row in read_jsonl(SETS / name / f"{file}.jsonl")]
