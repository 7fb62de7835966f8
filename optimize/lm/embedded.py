"""The embedded LM: llama.cpp's server in this process, on loopback. The only module that imports
xllamacpp.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimize.errors import WorkbenchError
from optimize.gguf_header import read_header
from optimize.threads import free_memory, usable_cores

SLOTS = 4  # calls that are answered side by side
CONTEXT = 4096  # tokens a call may read and write, unless asked for more; on CPUs they take seconds
SHARE = 0.5  # of the memory that is free, at most, for what the slots hold


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible address and its key."""

    url: str
    key: str

    def post(self, path: str, body: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """What the server answers at a path below its root, in so many seconds: for what no DSPy
        LM asks.
        """
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        url = self.url.removesuffix("/v1") + path
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return dict(json.load(reply))


_lock = threading.Lock()
_servers: dict[tuple[Path, Path | None, int], tuple[Any, Endpoint]] = {}


def context_of(weights: Path, asked: int | None = None) -> int:
    """Tokens one call may read and write: as many as asked for, or CONTEXT; never more than the
    model was trained to read.
    """
    return min(asked or CONTEXT, read_header(weights).context)


def check_embedder(weights: Path) -> None:
    """Raises WorkbenchError for a GGUF file that is no embedder."""
    if not weights.is_file():
        raise WorkbenchError(f"The embedder {weights} does not exist.")
    if not read_header(weights).embeds:
        raise WorkbenchError(
            f"{weights} is an LM and no embedder; `optimize lm list` names one that can be fetched."
        )


def serve(weights: Path, adapter: Path | None = None, context: int | None = None) -> Endpoint:
    """The endpoint that serves `weights`, with `adapter` (a LoRA as GGUF) applied if given; started
    on first use.

    One server per process for each pair; the weights are mapped into memory once. A server listens
    on loopback only, wants a random key, refuses browsers of other origins and ends with the
    process. One server could choose an adapter per request, but it then hands prompt prefixes read
    with the adapter to the base LM (docs/results.md).
    """
    with _lock:
        if not weights.is_file():
            raise WorkbenchError(
                f"{weights} does not exist. `optimize lm list` shows the files that do."
            )
        key = weights, adapter, context_of(weights, context)
        if key not in _servers:
            endpoint = Endpoint(f"http://127.0.0.1:{_free_port()}/v1", secrets.token_urlsafe(24))
            _servers[key] = _start(*key, endpoint), endpoint
        return _servers[key][1]


def stop(adapter: Path) -> None:
    """End what serves this adapter; the next call of `serve` starts it anew."""
    with _lock:
        for key in [key for key in _servers if key[1] == adapter]:
            del _servers[key]  # the engine ends with the object


def _start(weights: Path, adapter: Path | None, context: int, endpoint: Endpoint) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.n_parallel = _slots(weights, context)
    params.n_ctx = context * params.n_parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = usable_cores()
    params.verbosity = -1
    if read_header(weights).embeds:
        params.embedding = True
        params.n_batch = params.n_ubatch = context  # a text is read in one piece
    params.enable_reasoning = 0  # thoughts would use up an answer's room; a lever asks for them
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


def _slots(weights: Path, context: int) -> int:
    """As many as the free memory has room for, up to SLOTS."""
    each = context * read_header(weights).token_bytes
    return max(1, min(SLOTS, int(SHARE * free_memory() / max(1, each))))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
