"""Rows and prompts as the page's script reads them: small, and harmless inside HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from optimize.report.page import Page
from optimize.report.rows import Answers, RowTable
from optimize.report.untrusted import visible

MOST = 1_900_000  # bytes of the data: the page stays below 2 MB
# what ends a script, opens a comment, or ends a line where JSON allows it and scripts once did not
ESCAPED = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


@dataclass(frozen=True)
class Cut:
    """How much of a page is shown. letters: of a text; prompt: of a prompt; rows: of a side;
    whole: with the answers of levers that were not built on.
    """

    letters: int
    prompt: int
    rows: int
    whole: bool = True

    @property
    def note(self) -> str:
        levers = "" if self.whole else ", without the answers of levers that were not built on"
        return (
            f"To keep this file small it shows the first {self.letters} letters of a text and at "
            f"most {self.rows:,} rows a side, those that changed first{levers}. "
            "`optimize report … --csv` writes all."
        )


CUTS = (
    Cut(4_000, 60_000, 20_000),
    Cut(1_000, 30_000, 10_000),
    Cut(400, 20_000, 10_000, whole=False),
    Cut(160, 10_000, 5_000, whole=False),
    Cut(160, 10_000, 1_000, whole=False),
    Cut(160, 5_000, 200, whole=False),
)


def embedded(page: Page) -> tuple[str, str]:
    """The page's data as JSON that may stand inside a script element, and what was cut off; empty
    where nothing was.
    """
    for cut in CUTS:
        writer = _Writer(page, cut)
        text = json.dumps(writer.data(), ensure_ascii=False, separators=(",", ":"))
        text = text.translate(ESCAPED)
        if len(text.encode()) <= MOST:
            break
    return text, cut.note if writer.cuts else ""


@dataclass
class _Writer:
    """Texts are written once and known by their numbers."""

    page: Page
    cut: Cut
    known: dict[str, int] = field(default_factory=dict)
    cuts: bool = False

    def data(self) -> dict[str, Any]:
        page = self.page
        tables = {side: self._table(table) for side, table in page.tables.items()}
        return {
            "tables": tables,
            "prompts": {n: self._clipped(p, self.cut.prompt) for n, p in page.prompts.items()},
            "steps": [step.model_dump() for step in page.steps],
            "compared": page.compared,
            "kept": page.kept,
            "label": page.label,
            "texts": list(self.known),
        }

    def _table(self, table: RowTable) -> dict[str, Any]:
        chosen = self._chosen(table)
        place = {row: n for n, row in enumerate(chosen)}
        return {
            "rows": [table.rows[n][:12] for n in chosen],
            "inputs": {name: self._texts(c, chosen) for name, c in table.inputs.items()},
            "gold": {name: self._texts(c, chosen) for name, c in table.gold.items()},
            "programs": {
                name: self._answers(a, chosen)
                for name, a in table.programs.items()
                if self._wanted(name)
            },
            "slices": {
                name: [place[n] for n in numbers if n in place]
                for name, numbers in table.slices.items()
            },
        }

    def _wanted(self, name: str) -> bool:
        built = {step.rung for step in self.page.steps if step.promoted}
        wanted = self.cut.whole or name in built | {*self.page.compared}
        self.cuts |= not wanted
        return wanted

    def _chosen(self, table: RowTable) -> Sequence[int]:
        """Row numbers in their order: all, or those that changed or are wrong before others."""
        if len(table.rows) <= self.cut.rows:
            return range(len(table.rows))
        self.cuts = True
        scores = [table.programs[n].scores for n in self.page.compared if n in table.programs]
        right = [all(s[n : n + 1] == [1.0] for s in scores) for n in range(len(table.rows))]
        return sorted(sorted(range(len(right)), key=lambda n: right[n])[: self.cut.rows])

    def _answers(self, found: Answers, chosen: Sequence[int]) -> dict[str, Any]:
        asked = [n for n in chosen if n < len(found.scores)]
        return {
            "fields": {name: self._texts(c, asked) for name, c in found.fields.items()},
            "scores": _numbers(found.scores, asked),
            "feedback": self._texts(found.feedback, asked),
            "confidence": _numbers(found.confidence, asked),
        }

    def _texts(self, column: Sequence[str], chosen: Iterable[int]) -> list[int]:
        clipped = (self._clipped(column[n], self.cut.letters) for n in chosen)
        return [self.known.setdefault(text, len(self.known)) for text in clipped]

    def _clipped(self, text: str, room: int) -> str:
        if len(text) > room:
            self.cuts = True
            text = f"{text[: room - 1]}…"
        return visible(text)


def _numbers(column: Sequence[float | None], chosen: Iterable[int]) -> list[float | None]:
    return [None if (v := column[n]) is None else round(v, 3) for n in chosen]
