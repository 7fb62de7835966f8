"""The embedded LM: llama.cpp's server in this process, on loopback. The only module that imports
xllamacpp.
"""

from __future__ import annotations

import secrets
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError
from optimize.threads import usable_cores

SLOTS = 4
CONTEXT = 2048  # tokens a slot may hold; with it the process stays below 1 GB


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible address and its key."""

    url: str
    key: str


_lock = threading.Lock()
_servers: dict[tuple[Path, Path | None], tuple[Any, Endpoint]] = {}


def serve(weights: Path, adapter: Path | None = None) -> Endpoint:
    """The endpoint that serves `weights`, with `adapter` (a LoRA as GGUF) applied if given; started
    on first use.

    One server per process for each pair; the weights are mapped into memory once. A server listens
    on loopback only, wants a random key, refuses browsers of other origins and ends with the
    process. One server could choose an adapter per request, but it then hands prompt prefixes read
    with the adapter to the base LM (docs/results.md).
    """
    with _lock:
        if (weights, adapter) not in _servers:
            endpoint = Endpoint(f"http://127.0.0.1:{_free_port()}/v1", secrets.token_urlsafe(24))
            _servers[weights, adapter] = _start(weights, adapter, endpoint), endpoint
        return _servers[weights, adapter][1]


def _start(weights: Path, adapter: Path | None, endpoint: Endpoint) -> Any:
    import xllamacpp

    if not weights.is_file():
        raise WorkbenchError(
            f"{weights} does not exist. `optimize lm list` shows the files that do."
        )
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_ctx = CONTEXT * SLOTS
    params.n_parallel = SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = usable_cores()
    params.verbosity = -1
    params.cache_ram_mib = 256  # the default lets the prompt cache grow to gigabytes
    params.port = int(endpoint.url.rsplit(":", 1)[1].split("/")[0])
    params.api_keys = [endpoint.key]
    params.cors_origins = endpoint.url  # the default lets any page the user visits ask the LM
    params.cors_credentials = params.ui = params.endpoint_slots = False
    if adapter:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path=str(adapter), scale=1.0)]
    try:
        return xllamacpp.Server(params)
    except Exception as error:
        raise WorkbenchError(
            f"{weights} cannot be served: {error}. Is it a GGUF file of a text model?"
        ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
