"""A DSPy engine for base weights plus a LoRA adapter: the same server, the adapter chosen per request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.lm15 import Request, Response, RouterConfig, registered_providers

from optimize.lm import embedded


class TunedEngine:
    """Sends each request to the base LM's endpoint with this adapter switched on."""

    supports_response_schema = True
    supported_params = ("temperature", "max_tokens", "response_format")

    def __init__(self, weights: Path, adapter: Path, base_model: str) -> None:
        self.weights, self.adapter, self.base_model = weights, adapter, base_model

    def complete(self, request: Request) -> Response:
        endpoint = embedded.serve(self.weights, self.adapter)
        provider = self.base_model.split("/", 1)[0]
        lora = [{"id": n, "scale": float(path == self.adapter)} for n, path in enumerate(endpoint.adapters)]
        config = replace(request.config, extensions={**(request.config.extensions or {}), "lora": lora})
        router = RouterConfig(
            api_keys={provider: endpoint.key},
            base_urls={provider: endpoint.url},
            providers=tuple(found.definition for found in registered_providers()),
        )
        return self._router(router).complete(replace(request, model=self.base_model, config=config))

    def _router(self, config: Any) -> LM15Engine:
        if not hasattr(self, "_engine"):
            self._engine = LM15Engine(config, model_type="chat")
        return self._engine
