"""A task that a small LM learns in a few steps: the word that belongs to another one."""

from __future__ import annotations

from collections.abc import Iterable


def pairs_program(words: Iterable[str], more: str = "") -> str:
    """The task's file. words: the answers there are. more: of what is said to `Task`."""
    return f"""
from typing import Literal

import dspy

from optimize.task import Score, Task


class Pair(dspy.Signature):
    \"\"\"Say the word that belongs to it.\"\"\"

    text: str = dspy.InputField()
    word: Literal{sorted(words)} = dspy.OutputField()


def metric(example, prediction):
    return Score(float(example.word == prediction.word))


task = Task(signature=Pair, metric=metric, max_tokens=8{more})
"""
