"""How much a server of one's own reads and writes in a call, as it says itself. No LM is asked."""

from __future__ import annotations

import http.client
import json
import urllib.request
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from optimize.lm.addresses import Address

SECONDS = 3.0  # for an answer; a server that says nothing is asked no more
LARGEST = 1 << 20  # bytes of one that are read
# what they call it: vLLM and SGLang, others that copy OpenAI's API
NAMES = ("max_model_len", "context_length", "context_window", "max_context_length")


class _Here(urllib.request.HTTPRedirectHandler):
    """The key is for this address, and for none that it names."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_opener = urllib.request.build_opener(_Here)


def context_served(places: Sequence[Address], model: str) -> int | None:
    """Tokens that a call may read and write at the first of these addresses that tells, for the
    model of that name; None where none does.
    """
    return next(filter(None, (_at(p.url, p.key or "", model) for p in places)), None)


@cache  # once a process
def _at(url: str, key: str, model: str) -> int | None:
    listed = _got(f"{url}/models", key)
    data = listed.get("data")
    models = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    found = [one for one in models if one.get("id") == model] or models[: len(models) == 1]
    if not found:
        return None
    if told := next((n for name in NAMES if (n := _number(found[0].get(name)))), None):
        return told
    meta = found[0].get("meta")  # llama.cpp's: what the model was trained on
    if not isinstance(meta, dict):
        return None
    settings = _got(url.removesuffix("/v1") + "/props", key).get("default_generation_settings")
    own = _number(settings.get("n_ctx")) if isinstance(settings, dict) else None
    return own or _number(meta.get("n_ctx")) or _number(meta.get("n_ctx_train"))


def _got(url: str, key: str) -> Mapping[str, Any]:
    """The JSON object there; an empty one where there is none."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        request = urllib.request.Request(url, headers=headers)
        with _opener.open(request, timeout=SECONDS) as reply:
            found = json.loads(reply.read(LARGEST))
    # the first call tells what is wrong with the address
    except (OSError, ValueError, http.client.HTTPException):
        return {}
    return found if isinstance(found, dict) else {}


def _number(told: Any) -> int | None:
    return told if isinstance(told, int) and told > 0 else None
