"""Several answers, of which the commonest is given (self-consistency: Wang et al. 2023)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import dspy

from optimize.files import plain, to_json
from optimize.lm.endpoint import warm

HEAT = 0.7  # temperature of the answers beside the first one


def sampled(lm: dspy.LM, number: int) -> dspy.LM:
    """The LM as it is for number 0; else warm, with a place of its own in the cache."""
    return warm(lm, HEAT, rollout_id=number) if number else lm


def elected(
    answers: int, outputs: Sequence[str], answer: Callable[[int], dspy.Prediction]
) -> dspy.Prediction:
    """Of so many answers the one that most others equal in all outputs; the earliest on a tie.

    An answer that cannot be read has no vote. Raises what the first one raised where none can.
    """
    found: list[dspy.Prediction] = []
    errors: list[dspy.AdapterParseError] = []
    for number in range(answers):
        try:
            found.append(answer(number))
        except dspy.AdapterParseError as error:
            errors.append(error)
    if not found:
        raise errors[0]

    def told(prediction: dspy.Prediction) -> str:
        values: dict[str, Any] = {name: plain(prediction.get(name)) for name in outputs}
        return to_json(values)

    counts = Counter(map(told, found))
    return max(found, key=lambda prediction: counts[told(prediction)])
