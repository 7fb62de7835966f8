"""Is there anything for a prompt to bring out?

The best of several answers, and the teacher with the same prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import dspy

from optimize.lm.endpoint import warm
from optimize.program.program import Program
from optimize.scoring.evaluate import Asking, evaluate
from optimize.stats.intervals import Interval, mean_interval
from optimize.stats.judge import corrected

ANSWERS = 5  # of which the best counts
TEMPERATURE = 1.0


@dataclass(frozen=True)
class Headroom:
    """best: the score if each row's best of ANSWERS answers counted. teacher: with the same prompt;
    None where there is no other LM.
    """

    best: Interval
    teacher: Interval | None


def calls_needed(rows: int, teacher: bool) -> int:
    return rows * (ANSWERS + teacher)


def headroom(
    program: Program, examples: Sequence[dspy.Example], teacher: dspy.LM | None, asking: Asking
) -> Headroom:
    """Ask the LM in context for several answers a row, and the teacher for one.

    What no answer of several gets right, no choice of words will likely bring out (pass@k: Chen et
    al., 2021).
    """
    with dspy.context(lm=warm(dspy.settings.lm, TEMPERATURE)):
        asked = evaluate(program, examples, replace(asking, repeats=ANSWERS))
    most = mean_interval([max(o.repeats) for o in asked.outcomes if o.repeats])
    best = corrected(most, asked.judge)
    if teacher is None:
        return Headroom(best, None)
    with dspy.context(lm=teacher):
        return Headroom(best, evaluate(program, examples, asking).score)
