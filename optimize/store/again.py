"""Calls to a shared store that are made again where somebody else's write came between."""

from __future__ import annotations

import random
import re
from functools import partial
from typing import Any

from optimize.stopping import wait

TRIES = 6
PAUSE = 0.2  # seconds before the second try, twice as long each time
# how databases say that they have taken nothing of a write, as another one was at the same row
CLASH = re.compile(r"UniqueViolation|IntegrityError|[Dd]eadlock|could not serialize|is locked")


class Again:
    """An MLflow client, each of whose calls is tried several times where it clashes with another
    one's: MLflow looks whether a dataset or a tag is there and then writes it, so that of two at
    once one is refused. Nothing is written twice.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return partial(_tried, found) if callable(found) else found


def _tried(call: Any, *given: Any, **named: Any) -> Any:
    from mlflow.exceptions import MlflowException

    for number in range(TRIES):
        try:
            return call(*given, **named)
        except MlflowException as error:
            exists = error.error_code == "RESOURCE_ALREADY_EXISTS"  # no clash, but an answer
            if exists or number == TRIES - 1 or not CLASH.search(str(error)):
                raise
            wait(PAUSE * 2**number * random.uniform(0.5, 1.5))
