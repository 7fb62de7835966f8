"""The task's written guide in the prompt: all of it behind the instruction, or the rules in it that
fit an input. Knows no LM.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dspy

from optimize.data.fields import free_name
from optimize.files import to_text
from optimize.program.around import Around, Sent
from optimize.program.retrieval import PASSAGES, Matching

RULES = "rules"  # the input field that holds those which fit
# a list's entry or a table's row begins a rule of its own; white space before it is a rule's inside
ENTRY = re.compile(r"^\s*(?:[-*·•]|[+–](?=\s)|\d+[.)]|\|)\s*\S")


@dataclass(frozen=True)
class Guide:
    """text: Markdown, as it was written. k: how many of its rules an input is shown; 0: all of it,
    with the instruction.
    """

    text: str
    k: int = 0

    def __deepcopy__(self, memo: object) -> Guide:
        return self  # frozen; optimizers copy programs by the dozen

    @cached_property
    def _matching(self) -> Matching:
        return Matching(rules(self.text))

    def find(self, text: str) -> list[str]:
        """The rules that fit an input, the best match first."""
        return self._matching.find(text, self.k)


def rules(guide: str) -> list[str]:
    """The guide's list entries, table rows and paragraphs, each with the lines it goes over."""
    found: list[str] = []
    fresh = True
    for line in guide.splitlines():
        if not line.strip():
            fresh = True
        elif fresh or ENTRY.match(line):
            found.append(line.strip())
            fresh = False
        else:
            found[-1] += " " + line.strip()
    return [rule for rule in found if re.search(r"\w", rule)]


class WithGuide(Around):
    """The guide in what is sent."""

    def __init__(self, adapter: dspy.Adapter, guide: Guide) -> None:
        super().__init__(adapter)
        self.guide = guide

    def changed(self, signature: Any, demos: list[Any], inputs: dict[str, Any]) -> Sent:
        if not self.guide.k:
            told = f"{signature.instructions}\n\n{self.guide.text}"
            return signature.with_instructions(told), demos, inputs
        # what is retrieved is long, and would be what rules are found for
        names = [name for name in signature.input_fields if name != PASSAGES]
        field = dspy.InputField(desc="of the guide, best match first")
        held = free_name(RULES, signature.fields)  # the task's own rules stay as they are
        shown = [{**dict(demo), held: self._rules(demo, names)} for demo in demos]
        given = {**inputs, held: self._rules(inputs, names)}
        return signature.prepend(held, field, list[str]), shown, given

    def _rules(self, row: Any, names: list[str]) -> list[str]:
        return self.guide.find("\n".join(to_text(row[name]) for name in names if name in row))
