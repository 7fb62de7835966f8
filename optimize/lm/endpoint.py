"""From a model string or an address to a `dspy.LM`. Knows no weights and no configuration."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

from dspy.lm15 import (
    AccessPolicy,
    ModelSupport,
    OpenAIChatCompat,
    ProviderDefinition,
    register_provider,
)

from optimize.lm.dspy_door import HistorylessLM, reasons, takes_temperature, thinking_tokens
from optimize.lm.thinking import THINKING, remembered, room_within

Made = TypeVar("Made", bound=HistorylessLM)


def hosted(
    kind: Callable[..., Made],
    name: str,
    context: int | None = None,
    thinks: bool = False,
    **options: Any,
) -> Made:
    """The LM of a provider, with these options as far as it takes them. One that thinks has room
    for that, as its thoughts count as part of the answer.

    context: tokens that a call may read and write, where that is known. thinks: it is known to.
    """
    provider, _, model = name.partition("/")
    if reasons(model) or not takes_temperature(provider, model):
        options["temperature"] = None
    known = reasons(model) or thinks or remembered(name)
    room = min(THINKING if known else thinking_tokens(provider, model), room_within(context))
    most = max(room, options["max_tokens"])
    found = kind(name, **{**options, "max_tokens": most})
    if room:
        found.thinking = most
    found.context = context
    return found


def warm(lm: Made, heat: float, **options: Any) -> Made:
    """The LM at that temperature; a reasoning model, which takes none, as it is: it answers
    otherwise each time anyway.
    """
    own = lm.kwargs.get("temperature")
    found: Made = lm.copy(**options | ({} if own is None else {"temperature": heat}))
    return found


def declare_endpoint(model: str, url: str, identity: str | None = None) -> str:
    """Register an OpenAI-compatible endpoint with DSPy; returns the model string that reaches it.

    DSPy's cache key holds the model string but not the address, so the provider's name is derived
    from the endpoint: no server is ever credited with another's answers.
    """
    reached = endpoint_name(model, url, identity)
    provider = reached.split("/", 1)[0]
    policy = AccessPolicy(
        provider, auth_scheme=("bearer",), env_keys=("OPTIMIZE_API_KEY",), base_url=url
    )
    # the name that every server knows; Ollama, for one, passes over OpenAI's newer one in silence
    room = "max_completion_tokens" if reasons(model) else "max_tokens"
    register_provider(
        ProviderDefinition.chat(policy, compat=OpenAIChatCompat(max_tokens_field=room)),
        supports=ModelSupport(response_schema=True),
        replace=True,
    )
    return reached


def endpoint_name(model: str, url: str, identity: str | None = None) -> str:
    """The model string by which DSPy is to know the LM at that address."""
    return f"endpoint-{hashlib.sha256((identity or url).encode()).hexdigest()[:12]}/{model}"
