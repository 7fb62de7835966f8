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

    def __call__(self, lm: Any, lm_kwargs: dict[str, Any], *given: Any, **named: Any) -> Any:
        return self.adapter(lm, lm_kwargs, *self.changed(*given, **named))

    async def acall(self, lm: Any, lm_kwargs: dict[str, Any], *given: Any, **named: Any) -> Any:
        return await self.adapter.acall(lm, lm_kwargs, *self.changed(*given, **named))

    # what modules (dspy.ReAct), optimizers and programs ask an adapter for themselves

    def format(self, *given: Any, **named: Any) -> Any:
        return self.adapter.format(*self.changed(*given, **named))

    def format_user_message_content(self, *given: Any, **named: Any) -> Any:
        return self.adapter.format_user_message_content(*given, **named)

    def format_assistant_message_content(self, *given: Any, **named: Any) -> Any:
        return self.adapter.format_assistant_message_content(*given, **named)

    def parse(self, *given: Any, **named: Any) -> Any:
        return self.adapter.parse(*given, **named)
