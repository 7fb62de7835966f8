"""Which output format the LM obeys best, chosen on train rows."""

from __future__ import annotations

from optimize.program import Program
from optimize.rungs.base import Context, fresh

CANDIDATES = ("chat", "json", "xml", "compact")
MOST = 24  # rows: formats differ by more than such a sample blurs


def output_format(student: Program, context: Context) -> Program:
    """The candidate format with the best mean score; the earlier one, which is the plainer, on a tie."""
    _, search = context.halves()
    rows = search[: context.affordable(len(CANDIDATES), least=8, most=MOST)]
    best, best_score = student, -1.0
    for name in CANDIDATES:
        candidate = fresh(student)
        candidate.format = name
        if (score := context.search_score(candidate, rows)) > best_score:
            best, best_score = candidate, score
    return best
