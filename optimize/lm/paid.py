"""What a call has cost, and errors without keys or names of ours."""

from __future__ import annotations

import re
from typing import Any

from optimize.lm.dspy_door import token_prices
from optimize.lm.post import posted
from optimize.lm.watch import Watch
from optimize.secrets import redacted

OUR_NAME = re.compile(r"endpoint-[0-9a-f]{12}/")
SUBSCRIBED = ("claude-code", "openai-codex")  # paid by the month, not by the token


def told_paid(watch: Watch, lm: Any, result: Any) -> None:
    """What comes by post costs a part of the price."""
    if result.cost is None:  # DSPy prices no answer whose service tier it does not know
        result.cost = listed_price(lm.model, result.usage)
    post = posted()
    if post and result.cost is not None:
        result.cost *= post.price
    watch.paid(lm, result.usage, result.cost)


def listed_price(name: str, usage: dict[str, Any]) -> float | None:
    """US dollars by the list of prices; None where it has none for this LM, or the server has not
    told how many tokens there were.
    """
    provider, _, model = name.partition("/")
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if OUR_NAME.match(name) or provider in SUBSCRIBED or read is None or written is None:
        return None
    prices = token_prices(provider, model)
    return float(prices[0] * read + prices[1] * written) if prices else None


def plainly(text: str) -> str:
    """Without keys, and without the names that endpoints have among us (lm.declare_endpoint)."""
    return OUR_NAME.sub("", redacted(text))
