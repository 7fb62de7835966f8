"""Keys in use, which no text that is kept or shown may hold: a server may echo them."""

from __future__ import annotations

SHORTEST = 8  # of a key: "none" is a word
HIDDEN = "[key]"
_keys: set[str] = set()


def keep_secret(key: str | None) -> None:
    if key and len(key) >= SHORTEST:
        _keys.add(key)


def redacted(text: str) -> str:
    for key in sorted(_keys, key=len, reverse=True):  # one may begin another
        text = text.replace(key, HIDDEN)
    return text
