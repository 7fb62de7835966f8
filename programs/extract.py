"""A maintenance e-mail becomes a typed work order. What breaks is the schema, so constrained output is the lever."""

from collections import Counter
from datetime import date
from enum import StrEnum

import dspy
from pydantic import BaseModel

from optimize.task import Score, Task


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
    building: str
    phone: str | None = None
    visit: date | None = None
    issues: list[Issue]


class Extract(dspy.Signature):
    """Turn the maintenance e-mail into a work order."""

    email: str = dspy.InputField()
    order: WorkOrder = dspy.OutputField()


def items(order: WorkOrder) -> Counter[str]:
    """The record as a bag of `field=value`; the fields of one issue carry its place in the list."""
    record = order.model_dump(mode="json", exclude_none=True)
    issues = record.pop("issues")
    record |= {f"issues[{n}].{key}": value for n, issue in enumerate(issues) for key, value in issue.items()}
    return Counter(f"{key}={str(value).strip().casefold()}" for key, value in record.items())


def metric(example: dspy.Example, prediction: dspy.Prediction) -> Score:
    """F1 over the filled fields, so that a half-right record earns half."""
    gold, found = items(example.order), items(prediction.order)
    right = (gold & found).total()
    value = 2 * right / (gold.total() + found.total())
    missing, wrong = sorted(gold - found), sorted(found - gold)
    return Score(value, "" if value == 1 else f"Missing: {missing}. Wrong: {wrong}.")


task = Task(signature=Extract, metric=metric, target=0.6, max_tokens=220)
