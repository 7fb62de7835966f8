"""Route a customer's message to the desk that takes it, under house rules that common sense gets
wrong.

The rules live in the labels (devsets/tickets/README.md), not in the prompt: prompts first, then
weights.
"""

from typing import Literal

import dspy

from optimize import Score, Task

Desk = Literal[
    "orders", "delivery", "claims", "returns", "repairs", "payments",
    "risk", "account", "plans", "retention", "trade", "safety",
]  # fmt: skip


class Route(dspy.Signature):
    """Route the customer's message to the desk that takes it."""

    message: str = dspy.InputField()
    desk: Desk = dspy.OutputField()


def metric(example: dspy.Example, prediction: dspy.Prediction) -> Score:
    if prediction.desk == example.desk:
        return Score(1.0)
    return Score(
        0.0, f"The desk that takes this message is {example.desk!r}, not {prediction.desk!r}."
    )


task = Task(
    signature=Route,
    metric=metric,
    target=0.9,
    max_tokens=24,
    stability="stable",
    owner="support operations",
)
