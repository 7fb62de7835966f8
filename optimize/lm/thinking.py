"""Models that think before they answer: their room for it, and which do so though no list says it.

An answer that is cut in the midst of its thoughts tells. The answer cache remembers which LM, so
that what is known of an LM lasts as long as its answers. Knows no call and no meter.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import dspy

log = logging.getLogger(__name__)

THINKING = 16_000  # tokens for the thoughts of a reasoning model and its answer
FIRST = 8  # answers of an LM with all that room, after which most of them tell what others will be
# what a thinking model says to itself, where its server leaves it in the answer; some templates
# write the opening tag into the prompt
THOUGHTS = re.compile(r"^\s*(?:<think(?:ing)?>)?.*?</think(?:ing)?>\s*", re.DOTALL)
OPENED = re.compile(r"\s*<think(?:ing)?>")
OFF = (
    "Turn its thinking off on the server (vLLM: --default-chat-template-kwargs "
    "'{\"enable_thinking\": false}', llama.cpp: --reasoning-budget 0, else a chat template without)"
)

_known: dict[tuple[str, str], bool] = {}  # by cache and LM: whether it thinks
_ended: dict[str, list[bool]] = {}  # of each LM's first answers with all its room, which were cut


def room_within(context: int | None) -> int:
    """Tokens for thoughts and answer where a call may read and write so many; None: not known."""
    return min(THINKING, context // 2) if context else THINKING


def most_room(lm: Any) -> int:
    """Tokens that an LM of ours is given for thoughts and answer once it is known to think."""
    return lm.thinking or max(room_within(lm.context), lm.kwargs.get("max_tokens") or 0)


def room_to_think(lm: Any) -> int:
    """The same; 0 for an LM that is not known to think, and for one that is not ours."""
    if not hasattr(lm, "thinking"):
        return 0
    return most_room(lm) if lm.thinking or remembered(lm.model) else 0


def unfinished(output: Any) -> bool:
    """Whether an answer that was cut, as DSPy gives it, was cut in the midst of its thoughts."""
    fields = output if isinstance(output, dict) else {"text": output}
    text = str(fields.get("text") or "")
    if OPENED.match(text):
        return not THOUGHTS.match(text)
    return not text.strip() and bool(fields.get("reasoning_content"))


def remembered(model: str) -> bool:
    """Whether answers of the LM of this DSPy model string have told that it thinks."""
    place = _place(model)
    if place not in _known:
        kept = getattr(dspy.cache, "kept", None)
        _known[place] = bool(kept and kept.get([_key(model)]))
    return _known[place]


def remember(lm: Any, name: str, asked: int) -> None:
    """An answer of this LM has told that it thinks. name: as the user knows it; asked: the tokens
    within which it was cut.
    """
    place = _place(lm.model)
    if _known.get(place):
        return
    _known[place] = True
    if kept := getattr(dspy.cache, "kept", None):
        kept.put({_key(lm.model): b"{}"})
    log.warning(
        "LM %s thinks before it answers, and was cut in its thoughts at %s tokens: from now on it "
        "has %s for thoughts and answer, and what was cut is asked again. %s where that takes too "
        "long.", name, f"{asked:,}", f"{most_room(lm):,}", OFF,
    )  # fmt: skip


def hopeless(model: str, cut: bool) -> int:
    """How many of an LM's first answers with all its room were cut, where that is most of them;
    else 0. To be told of each such answer.
    """
    seen = _ended.setdefault(model, [])
    if len(seen) < FIRST:
        seen.append(cut)
    return sum(seen) if len(seen) >= FIRST and sum(seen) > FIRST / 2 else 0


def _place(model: str) -> tuple[str, str]:
    return str(getattr(getattr(dspy.cache, "kept", None), "path", "")), model


def _key(model: str) -> str:
    return f"thinks {model}"
