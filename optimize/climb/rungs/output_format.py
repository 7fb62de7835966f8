"""Which output format the LM obeys best, chosen on train rows."""

from __future__ import annotations

from optimize.climb.rungs.base import Context, fresh
from optimize.program.program import Program, render
from optimize.scoring.evaluation import Evaluation
from optimize.stats.intervals import paired_gain

CANDIDATES = ("chat", "json", "xml", "compact")
MOST = 24  # rows: formats differ by more than such a sample blurs


def output_format(student: Program, context: Context) -> Program:
    """The format that sends least among those that the best one does not beat by more than one
    standard error.
    """
    _, search = context.halves()
    rows = search[: context.affordable(len(CANDIDATES), least=8, most=MOST)]
    candidates = []
    for name in CANDIDATES:
        candidate = fresh(student)
        candidate.format = name
        candidates.append(candidate)

    def length(candidate: Program) -> int:
        return len(render(candidate, rows[0]))

    def sent(found: tuple[Program, Evaluation]) -> float:
        """Prompt characters that an answer takes: one that cannot be parsed is asked for again."""
        candidate, evaluation = found
        return (
            length(candidate)
            * sum(o.usage.asked for o in evaluation.outcomes)
            / len(evaluation.outcomes)
        )

    compared = context.compare(sorted(candidates, key=length), rows)
    _, best = max(compared, key=lambda found: found[1].mean)
    gains = [paired_gain(evaluation.scores, best.scores) for _, evaluation in compared]
    return min(
        (found for found, gain in zip(compared, gains, strict=True) if gain.mean <= gain.error),
        key=sent,
    )[0]
