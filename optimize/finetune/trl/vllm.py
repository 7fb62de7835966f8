"""A LoRA served beside its base by vLLM, under a name of its own."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from optimize.config import RunConfig
from optimize.errors import WorkbenchError
from optimize.lm.addresses import Address, addresses

SECONDS = 120.0  # that loading an adapter may take


def serve(config: RunConfig, name: str, folder: Path) -> None:
    """Have the adapter in the folder served by that name at each address of the task LM, unless it
    is.

    Raises WorkbenchError, with what to do, where a server does not load one.
    """
    assert config.api_base, "check_config asks for an address"
    for place in addresses(config.api_base):
        try:
            known = [one["id"] for one in _asked(config, place, "/models")["data"]]
            if name not in known:
                body = {"lora_name": name, "lora_path": str(folder.absolute())}
                _asked(config, place, "/load_lora_adapter", body)
        except (urllib.error.URLError, OSError, ValueError, KeyError, TypeError) as error:
            raise WorkbenchError(
                f"The LoRA is trained, in {folder}, but the server at {place.url} does not load "
                f"it: {_said(error)}. Start it with --enable-lora --lora-modules "
                f"{name}={folder}, or with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True where it can read "
                "that folder; the same command then goes on from there."
            ) from error


def _asked(config: RunConfig, place: Address, path: str, body: Any = None) -> dict[str, Any]:
    key = place.key or (config.api_key.get_secret_value() if config.api_key else "none")
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(place.url + path, data, headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as reply:
        # what loading an adapter answers is a sentence
        return dict(json.load(reply)) if body is None else {}


def _said(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"it answers {error.code}, {error.read().decode(errors='replace')[:200].strip()}"
    return str(getattr(error, "reason", error))
