"""What a task's corpus says about a row and an answer: was the passage retrieved, is the id real?
Asks no LM.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import dspy

from optimize.data.inputs import input_text
from optimize.files import to_text
from optimize.program.retrieval import Passages, read_corpus
from optimize.scoring.evaluation import Outcome
from optimize.task import Task

SHORTEST = 4  # letters of an answer that is looked for in the passages


class Knowledge:
    """The task's corpus, if it has one, and what a program retrieves from it, if it retrieves."""

    def __init__(self, task: Task, passages: Passages | None = None) -> None:
        self.task, self.passages = task, passages
        self.corpus = read_corpus(task.corpus) if task.corpus else {}

    @cached_property
    def _shape(self) -> re.Pattern[str] | None:
        """What an id looks like, where ids hold digits: KB-0012 → KB-\\d+."""
        shapes = {
            re.sub(r"\d+", r"\\d+", re.escape(name))
            for name in self.corpus
            if re.search(r"\d", name)
        }
        shapes -= {r"\d+"}  # a bare number is not told from any other
        return re.compile(rf"(?<!\w)(?:{'|'.join(sorted(shapes))})(?!\w)") if shapes else None

    def ids(self, text: str) -> set[str]:
        """What looks like an id in the text."""
        return set(self._shape.findall(text)) if self._shape else set()

    def invented(self, outcome: Outcome) -> bool:
        """Whether the answer names an id that no passage has."""
        return bool(self.ids(_said(outcome)) - self.corpus.keys())

    def needed(self, row: dspy.Example) -> set[str]:
        """The passages the row's own answer cites, or else those that hold it word for word."""
        if cited := self._cited(row):
            return cited
        gold = self._gold(row)
        if self.task.label or len(gold) < SHORTEST:
            return set()
        return {
            name for name, passage in self.corpus.items() if gold.casefold() in passage.casefold()
        }

    def not_found(self, row: dspy.Example) -> bool:
        """Whether the answer is in the corpus, and none (or not all, where several are cited) of it
        was put into the prompt.
        """
        needed = self.needed(row)
        if not needed:
            return False
        found = needed & self._retrieved(row)
        return found < needed if self._cited(row) else not found

    def invented_share(self, outcomes: Sequence[Outcome]) -> float | None:
        """Of the answers that name an id, the share that names one which does not exist; None where
        none does, or ids have no shape.
        """
        naming = [self.invented(o) for o in outcomes if self.ids(_said(o))]
        return sum(naming) / len(naming) if naming else None

    def recall(self, rows: Sequence[dspy.Example]) -> float | None:
        """Of the rows whose passages are known, the share for which they were retrieved; None where
        none is known.
        """
        asked = [row for row in rows if self.needed(row)]
        return sum(not self.not_found(row) for row in asked) / len(asked) if asked else None

    def _gold(self, row: dspy.Example) -> str:
        return " ".join(to_text(row[name]) for name in self.task.signature.output_fields)

    def _cited(self, row: dspy.Example) -> set[str]:
        return self.ids(self._gold(row)) & self.corpus.keys()

    def _retrieved(self, row: dspy.Example) -> set[str]:
        if not self.passages:
            return set()
        found = set(self.passages.find(input_text(self.task, row.inputs())))
        return {name for name, text in self.corpus.items() if text in found}


def _said(outcome: Outcome) -> str:
    return " ".join(map(to_text, outcome.answer.values()))
