"""An adapter around another one, for what a program shows beside its format."""

from __future__ import annotations

from typing import Any

import dspy

Sent = tuple[Any, list[Any], dict[str, Any]]  # signature, demos, inputs


class Around(dspy.Adapter):
    """Another adapter, with a call changed before it is written; each step of a program passes."""

    def __init__(self, adapter: dspy.Adapter) -> None:
        super().__init__()
        self.adapter = adapter

    def changed(self, signature: Any, demos: list[Any], inputs: dict[str, Any]) -> Sent:
        """What is sent in place of these."""
        return signature, demos, inputs

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: list[Any],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.adapter(
            lm, lm_kwargs, *self.changed(signature, demos, inputs)
        )
        return found
