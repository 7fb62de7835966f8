"""Keys in use, which no text that is kept or shown may hold: a server may echo them."""

from __future__ import annotations

import os
import re

SHORTEST = 8  # of a key: "none" is a word
HIDDEN = "[key]"
NAMED_SECRET = re.compile(r"(API_KEY|_TOKEN|_SECRET|SECRET_ACCESS_KEY)$")
_keys: set[str] = set()


def keep_secret(key: str | None) -> None:
    if key and len(key) >= SHORTEST:
        _keys.add(key)


def keep_environment_secret() -> None:
    """The keys and tokens of whatever provider; each has a name of its own."""
    for name, value in os.environ.items():
        if NAMED_SECRET.search(name):
            keep_secret(value)


def redacted(text: str) -> str:
    for key in sorted(_keys, key=len, reverse=True):  # one may begin another
        text = text.replace(key, HIDDEN)
    return text
