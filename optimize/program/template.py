"""A program's prompts with a place for each input, as a prompt registry keeps them. Knows no rows.

Nothing of the task's own code is run for them.
"""

from __future__ import annotations

import hashlib
from typing import Any

from optimize.program.formats import FORMATS
from optimize.program.guide import RULES, Guide, WithGuide
from optimize.program.program import Program

Messages = list[dict[str, Any]]


class _AnyRules(Guide):
    """A guide of which some rules are looked up for each input."""

    def find(self, text: str) -> list[str]:
        return [_place(RULES)]


def templates(program: Program) -> dict[str, Messages]:
    """The messages that each predictor sends, by its name, with `{{field}}` where a value goes.

    What is looked up for each input has a place as well: `{{rules}}`, `{{passages}}`, and
    `{{nearest_4_rows}}` for demos.
    """
    adapter, near = FORMATS[program.format], program.neighbours
    if guide := program.guide:
        adapter = WithGuide(adapter, _AnyRules(guide.text, guide.k))
    found = {}
    for name, predictor in program.named_predictors():
        inputs = {field: _place(field) for field in predictor.signature.input_fields}
        messages = adapter.format(predictor.signature, list(predictor.demos), inputs)
        if near:
            messages.insert(-1, {"role": "user", "content": _place(f"nearest_{near.k}_rows")})
        found[name] = messages
    return found


def instructions_hash(program: Program) -> str:
    """Eight digits that change with the instructions of any predictor, or with the guide."""
    told = [str(p.signature.instructions) for p in program.predictors()]
    told += [program.guide.text] if program.guide else []
    return hashlib.sha256("\0".join(told).encode()).hexdigest()[:8]


def _place(name: str) -> str:
    return "{{" + name + "}}"
