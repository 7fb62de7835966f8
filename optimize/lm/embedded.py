"""The embedded LM: llama.cpp's server in this process, on loopback. The only module that imports xllamacpp."""

from __future__ import annotations

import os
import secrets
import socket
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError

SLOTS = 4
CONTEXT = 2048  # tokens a slot may hold; with it the process stays below 1 GB


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible address and its key; `adapters` are numbered in this order."""

    url: str
    key: str
    adapters: tuple[Path, ...] = ()


_lock = threading.RLock()
_servers: dict[Path, tuple[Any, Endpoint]] = {}


def serve(weights: Path, adapter: Path | None = None) -> Endpoint:
    """The endpoint that serves `weights`, started on first use; one server per process and file.

    An adapter (a LoRA as GGUF) not yet loaded restarts the server on the same address with all adapters so far,
    none applied: each request chooses. The server listens on loopback only, wants a random key, refuses browsers
    of other origins and ends with the process.
    """
    with _lock:
        server, endpoint = _servers.pop(weights, (None, None))
        endpoint = endpoint or Endpoint(f"http://127.0.0.1:{_free_port()}/v1", secrets.token_urlsafe(24))
        if server is None or (adapter and adapter not in endpoint.adapters):
            if adapter:
                endpoint = replace(endpoint, adapters=(*endpoint.adapters, adapter))
            del server  # frees the port
            server = _start(weights, endpoint)
        _servers[weights] = server, endpoint
        return endpoint


def _start(weights: Path, endpoint: Endpoint) -> Any:
    import xllamacpp

    if not weights.is_file():
        raise WorkbenchError(f"{weights} does not exist. `optimize lm list` shows the files that do.")
    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_ctx = CONTEXT * SLOTS
    params.n_parallel = SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = len(os.sched_getaffinity(0))
    params.verbosity = -1
    params.cache_ram_mib = 256  # the default lets the prompt cache grow to gigabytes
    params.port = int(endpoint.url.rsplit(":", 1)[1].split("/")[0])
    params.api_keys = [endpoint.key]
    params.cors_origins = endpoint.url  # the default lets any page the user visits ask the LM
    params.cors_credentials = params.ui = params.endpoint_slots = False
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path=str(path), scale=1.0) for path in endpoint.adapters]
    params.lora_init_without_apply = True
    try:
        return xllamacpp.Server(params)
    except Exception as error:
        raise WorkbenchError(f"{weights} cannot be served: {error}. Is it a GGUF file of a text model?") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
