"""Which output format the LM obeys best, chosen on train rows."""

from __future__ import annotations

from optimize.climb.rungs.base import Context, fresh
from optimize.climb.verdict import is_cheaper, promotes
from optimize.program.program import Program, render
from optimize.scoring.evaluation import Evaluation
from optimize.stats.intervals import paired_gain

CANDIDATES = ("chat", "json", "xml", "compact")
MOST = 24  # rows: formats differ by more than such a sample blurs


def output_format(student: Program, context: Context) -> Program:
    """The format with the best mean; one that takes clearly fewer calls where it loses no more than
    a challenger may (optimize.climb.verdict). Of equal ones that with the fewest calls, then the
    shortest prompt.
    """
    shows = any(predictor.demos for predictor in student.predictors())
    search = context.halves()[1] if shows else context.unheld_rows()
    # one more than there are: some LM answers one of them at the second call only
    rows = search[: context.affordable(len(CANDIDATES) + 1, least=8, most=MOST)]
    candidates = []
    for name in CANDIDATES:
        candidate = fresh(student)
        candidate.format = name
        candidates.append(candidate)

    def length(candidate: Program) -> int:
        return len(render(candidate, rows[0]))

    def calls(evaluation: Evaluation) -> float:
        """An answer's: one that cannot be parsed is asked for again."""
        return sum(o.usage.asked for o in evaluation.outcomes) / len(evaluation.outcomes)

    begun = [(candidate, Evaluation(())) for candidate in sorted(candidates, key=length)]
    asked = context.asked(begun, rows)
    best, found = max(asked, key=lambda look: (look[1].mean, -calls(look[1])))
    for other, evaluation in asked:
        gain = paired_gain(found.scores, evaluation.scores)
        if is_cheaper(calls(evaluation), calls(found)) and promotes(gain, cheaper=True):
            best, found = other, evaluation
    return best
