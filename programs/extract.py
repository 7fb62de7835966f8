"""A maintenance e-mail becomes a typed work order.

What breaks is the schema, so constrained output is the lever.
"""

from collections import Counter
from datetime import date
from enum import StrEnum

import dspy
from pydantic import BaseModel, Field

from optimize import Score, Task


class Trade(StrEnum):
    PLUMBING = "plumbing"
    ELECTRICAL = "electrical"
    HEATING = "heating"
    JOINERY = "joinery"
    CLEANING = "cleaning"
    SECURITY = "security"


class Urgency(StrEnum):
    LOW = "low"
    NORMAL = "normal"
    URGENT = "urgent"


class Issue(BaseModel):
    trade: Trade
    location: str
    urgency: Urgency


class WorkOrder(BaseModel):
    reporter: str
    reported: date
    subject: str | None = None
    building: str
    phone: str | None = Field(None, pattern=r"^\+?[0-9 ]+$")
    issues: list[Issue] = Field(max_length=3)


class Extract(dspy.Signature):
    """Turn the maintenance e-mail into a work order."""

    email: str = dspy.InputField()
    order: WorkOrder = dspy.OutputField()


def fields(order: WorkOrder) -> dict[str, Counter[str]]:
    """The filled fields, each as a bag of values: one for most, three per entry of `issues`."""
    record = order.model_dump(mode="json", exclude_none=True)
    issues = Counter(
        f"{key} {value}".strip().casefold()
        for issue in record.pop("issues")
        for key, value in issue.items()
    )
    plain = {name: Counter([value.strip().casefold()]) for name, value in record.items()}
    return plain | ({"issues": issues} if issues else {})


def metric(example: dspy.Example, prediction: dspy.Prediction) -> Score:
    """The mean, over the fields filled in either record, of each field's F1: a half-right record
    earns half.
    """
    gold, found = fields(example.order), fields(prediction.order)
    scores = {}
    for name in gold | found:
        wanted, given = gold.get(name, Counter()), found.get(name, Counter())
        scores[name] = 2 * (wanted & given).total() / (wanted.total() + given.total())
    wrong = {
        name: sorted(gold.get(name, {"nothing"})) for name, score in scores.items() if score < 1
    }
    return Score(sum(scores.values()) / len(scores), f"Right would be: {wrong}." if wrong else "")


task = Task(signature=Extract, metric=metric, target=0.6, max_tokens=220)
