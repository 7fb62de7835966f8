"""Can an LM be reached at all? Looked at before the first call; no LM is asked."""

from __future__ import annotations

import logging
import os
import socket
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from optimize.catalogue import EMBEDDERS
from optimize.config import RunConfig, is_local
from optimize.errors import WorkbenchError
from optimize.lm.addresses import (
    Address,
    addresses,
    check_apart,
    check_single,
    check_url,
)

log = logging.getLogger(__name__)

SECONDS = 3.0  # for a connection; a name that resolves slowly is left to the first call
# the environment variables that hold each provider's key; of others the first call tells
KEYS = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "groq": ("GROQ_API_KEY",),
    "mistral": ("MISTRAL_API_KEY",),
    "openai": ("OPENAI_API_KEY",),
    "openrouter": ("OPENROUTER_API_KEY",),
}


def check_reachable(config: RunConfig) -> None:
    """Raises WorkbenchError for a key that is missing, or an address where nothing listens, of the
    task LM or the teacher.
    """
    check_apart(config.lms)
    for name, base in config.lms:
        if base:
            _check_group(name, addresses(base))
        elif not is_local(name):
            _check_key(name)


def check_reachable_embedder(config: RunConfig) -> None:
    """Raises WorkbenchError for an embedder that is not named as one is, whose key is missing, or
    at whose address nothing listens.
    """
    name, base = str(config.embedder), config.embedder_api_base
    if not all(name.partition("/")) or (not base and not name.startswith("openai/")):
        raise WorkbenchError(
            f"Embedder {name!r}: use {', '.join(EMBEDDERS)}, gguf:PATH, openai/MODEL, or "
            "openai/MODEL with --embedder-api-base for any OpenAI-compatible endpoint."
        )
    if base:
        check_single(base, "--embedder")
        _check_group(name, [Address(base)])
    else:
        _check_key(name)


def _check_key(name: str) -> None:
    provider = name.split("/", 1)[0]
    keys = KEYS.get(provider, ())
    known = address_in_environment(provider) or any(os.environ.get(key) for key in keys)
    if keys and not known:
        raise WorkbenchError(
            f"LM {name!r} needs a key: set {' or '.join(keys)} in the environment. No call made."
        )


def address_in_environment(provider: str) -> str:
    """Where a variable such as OPENAI_BASE_URL or AZURE_API_BASE sends the requests for a provider;
    empty where none does.
    """
    own = provider.removesuffix("_chat")  # ollama_chat's is Ollama's
    named = (v for v in os.environ if v.endswith(("API_BASE", "BASE_URL")))  # few, at every call
    own_variables = (v for v in sorted(named) if _letters(v[: -len("API_BASE")]) == _letters(own))
    return next(filter(None, (os.environ[v] for v in own_variables)), "")


def _letters(name: str) -> str:
    """TOGETHERAI_ and together_ai are one provider."""
    return name.replace("_", "").replace("-", "").lower()


def _check_group(name: str, places: Sequence[Address]) -> None:
    """One that answers is enough; the others are told of, and tried again meanwhile."""
    for place in places:
        check_url(place.url, name)
    with ThreadPoolExecutor(len(places)) as pool:
        problems = dict(zip(places, pool.map(lambda p: unreachable(p.url), places), strict=True))
    down = {place.url: problem for place, problem in problems.items() if problem}
    if len(down) < len(places):
        for url, problem in down.items():
            log.warning(
                "Nothing listens at %s (%s). LM %s goes on at its other addresses, and that one is "
                "tried again now and then.", url, problem, name,
            )  # fmt: skip
        return
    url, problem = next(iter(down.items()))
    others = f", nor at its {len(down) - 1} other addresses" if len(down) > 1 else ""
    raise WorkbenchError(
        f"Nothing listens at {url}, the address of LM {name!r} ({problem}){others}. Start the "
        "server, or mend --api-base or --teacher-api-base. No call was made."
    )


def unreachable(base: str) -> str:
    """Why nothing can be reached at an address; empty where it can, or only trying would tell."""
    address = urlsplit(base)
    host = address.hostname or ""
    if address.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return ""  # only the proxy can tell
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((host, port), SECONDS).close()
    except (ConnectionRefusedError, socket.gaierror) as error:
        return str(error.strerror)
    except OSError:
        pass  # slow or filtered: the first call tells
    return ""
