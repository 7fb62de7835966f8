"""Can an LM be reached at all? Looked at before the first call; no LM is asked."""

from __future__ import annotations

import os
import socket
import urllib.request
from urllib.parse import urlsplit

from optimize.catalogue import EMBEDDERS
from optimize.config import RunConfig, is_local
from optimize.errors import WorkbenchError

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
    for name, base in config.lms:
        if base:
            _check_address(name, base)
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
        _check_address(name, base)
    else:
        _check_key(name)


def _check_key(name: str) -> None:
    provider = name.split("/", 1)[0]
    keys = KEYS.get(provider, ())
    gateway = any(os.environ.get(f"{provider.upper()}_{part}") for part in ("API_BASE", "BASE_URL"))
    if keys and not gateway and not any(os.environ.get(key) for key in keys):
        raise WorkbenchError(
            f"LM {name!r} needs a key: set {' or '.join(keys)} in the environment. No call made."
        )


def _check_address(name: str, base: str) -> None:
    address = urlsplit(base)
    try:
        host, _ = address.hostname, address.port  # a port beyond 65535 raises
    except ValueError:
        host = None
    if address.scheme not in ("http", "https") or not host:
        raise WorkbenchError(
            f"The address {base!r} of LM {name!r} is none; write it as http://HOST:PORT/v1."
        )
    if problem := unreachable(base):
        raise WorkbenchError(
            f"Nothing listens at {base}, the address of LM {name!r} ({problem}). Start the "
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
