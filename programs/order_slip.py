"""An order as spoken at the counter becomes the slip that the bar and the kitchen work from, in the
shorthand of the house.

The shorthand is in the rows (devsets/order_slip/README.md), not in the prompt, and no list of
labels holds it: weights are the lever.
"""

import re
from collections import Counter

import dspy

from optimize import Score, Task


class WriteSlip(dspy.Signature):
    """Write the customer's order as a slip, in the shorthand of the house."""

    order: str = dspy.InputField()
    slip: str = dspy.OutputField()


def elements(slip: str) -> Counter[str]:
    """All that a slip says: each thing to be made, each change to it, and where it goes.

    Things of one kind are numbered, so that a change on the wrong one of two teas is wrong. Neither
    the order of the items nor the order of the changes to one matters.
    """
    items, _, place = slip.partition(">")
    things = []
    for item in items.split("/"):
        kind, *changes = item.lstrip("0123456789 \n").split() or [""]
        quantity = re.match(r"\s*([0-9]{1,2})", item)
        things += [(kind, sorted(changes))] * (int(quantity[1]) if quantity else 1)
    found, number = Counter(f"> {word}" for word in place.split()), Counter[str]()
    for kind, changes in sorted(things):
        number[kind] += 1
        found.update(
            [
                f"{kind} ({number[kind]})",
                *(f"{kind} ({number[kind]}) {change}" for change in changes),
            ]
        )
    return found


def metric(example: dspy.Example, prediction: dspy.Prediction) -> Score:
    """F1 over the elements: what is missing and what was not ordered weigh the same."""
    right, given = elements(example.slip), elements(str(prediction.slip))
    missing, wrong = (
        ", ".join(right - given) or "nothing",
        ", ".join(given - right)[:200] or "nothing",
    )
    value = 2 * (right & given).total() / max(1, right.total() + given.total())
    return Score(
        value,
        ""
        if right == given
        else f"Missing: {missing}. Not ordered: {wrong}. The slip is {example.slip}",
    )


task = Task(
    signature=WriteSlip,
    metric=metric,
    target=0.85,
    max_tokens=48,
    stability="stable",
    owner="the café's owner",
)
