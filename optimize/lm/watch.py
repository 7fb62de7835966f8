"""Who is told of calls and of the requests that they take. Knows one call at a time."""

from __future__ import annotations

from typing import Any, Protocol

import dspy


class Watch(Protocol):
    """Who is told of every call and every request that it takes. answers: how many are asked for
    (`n`). key: the call's place in the answer cache.
    """

    def rollout(self) -> int:
        """A number for a place of its own in the answer cache; 0: the usual place."""

    def beginning(self, lm: dspy.BaseLM, answers: int, key: str) -> None:
        """The cache does not know the answer to a call. May raise."""

    def seconds_left(self, lm: dspy.BaseLM) -> float:
        """Until a cap on the clock ends the command; infinite without one."""

    def sending(self, lm: dspy.BaseLM, answers: int) -> None:
        """A request for it is about to be sent, once more or for the first time. May raise."""

    def cached(self, lm: dspy.BaseLM, answers: int, key: str) -> None:
        """The cache has answered a call. May raise."""

    def failed(self, lm: dspy.BaseLM, seconds: float, too_long: bool = False) -> None:
        """The request was sent, and brought no answer. too_long: the LM does not read so much."""

    def answered(self, lm: dspy.BaseLM, seconds: float) -> None:
        """The request was sent and answered."""

    def paid(self, lm: dspy.BaseLM, usage: dict[str, Any], cost: float | None) -> None:
        """What requests have taken. usage: tokens, as OpenAI names them. cost: US dollars."""

    def refused(self, lm: dspy.BaseLM, told: str) -> None:
        """No call of this LM will fare better, and why: its key is refused, say. May raise."""

    def runs_here(self, lm: dspy.BaseLM) -> bool:
        """Whether the LM runs in this process: it takes what it is given, and an answer without
        content is its own word and no fault on the way.
        """
