"""How much a prompt may hold: told by a local LM's own tokenizer, estimated for a hosted one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import dspy

from optimize.lm.dspy_door import input_tokens
from optimize.lm.embedded import Endpoint
from optimize.lm.thinking import room_to_think

# a hosted LM reads more, but each call pays for it; what is not known to read so much gets less
MOST, UNKNOWN = 12_000, 6_000
CHARS_A_TOKEN = 4  # of English, on most tokenizers
CAREFUL = 3  # the same where a prompt must fit: JSON and numbers take more tokens than prose
# tokens for reasoning that is written out before an answer: a small LM in this process rambles to
# the limit, and each token takes its time; a hosted one, which stops by itself, needs several
# hundred where an answer takes more than two steps (multi-hop questions, sums)
THOUGHT, HOSTED_THOUGHT = 300, 1_000
OF_CONTEXT = 8  # of a small context reasoning has no more than that part
TURN = 8  # tokens that a chat template may add to each message, which the tokenizer is not shown
_local: dict[str, Room] = {}


@dataclass(frozen=True)
class Room:
    """tokens: that a prompt may hold. count: how many a text takes."""

    tokens: int
    count: Callable[[str], int]

    def fits(self, text: str, messages: int = 2) -> bool:
        room = self.tokens - TURN * messages
        # no tokenizer makes more than one token of a byte, and few texts less than one of ten
        if len(text.encode()) <= room:
            return True
        return len(text) <= 10 * room and self.count(text) <= room


def room_of(lm: dspy.BaseLM | None) -> Room:
    """The room for prompts of this LM, its answer aside."""
    name = str(getattr(lm, "model", ""))
    return _local.get(name) or Room(_of_hosted(lm, name), estimated)


def _of_hosted(lm: Any, name: str) -> int:
    if not (context := getattr(lm, "context", None)):
        return hosted_tokens(name)
    answer: int = room_to_think(lm) or (lm.kwargs.get("max_tokens") or 0) + written(lm)
    left = max(1, int(context) - answer)
    return left if lm.asked_for else min(MOST, left)


def written(lm: Any) -> int:
    """Tokens for reasoning that this LM writes out before its answer."""
    if getattr(lm, "local", False):
        return THOUGHT
    return written_within(getattr(lm, "context", None))


def written_within(context: int | None) -> int:
    """The same of a hosted LM that reads and writes so many tokens; None: not known."""
    return min(HOSTED_THOUGHT, context // OF_CONTEXT) if context else HOSTED_THOUGHT


@cache
def hosted_tokens(name: str) -> int:
    """Tokens that a prompt for the LM of this DSPy model string may hold, where no more is known of
    it than its name.
    """
    provider, _, model = name.partition("/")
    known = input_tokens(provider, model)
    return min(MOST, known // 2) if known else UNKNOWN


def note_local(model: str, endpoint: Endpoint, tokens: int) -> None:
    """From now on prompts of this LM are measured by its own tokenizer, at this endpoint."""
    _local[model] = local_room(endpoint, tokens)


def local_room(endpoint: Endpoint, tokens: int) -> Room:
    """So many tokens, counted by the tokenizer of the model that this endpoint serves."""

    def counted(text: str) -> int:
        return len(endpoint.post("/tokenize", {"content": text}, timeout=60)["tokens"])

    return Room(tokens, counted)


def estimated(text: str) -> int:
    """Tokens that a text takes at most on most tokenizers: one for each letter outside ASCII, as in
    Chinese, and for each few others.
    """
    plain = len(text.encode("ascii", "ignore"))
    return len(text) - plain - (-plain // CAREFUL)
