"""A server that speaks vLLM's API for a base LM and LoRA adapters beside it: chat, the models that
are served, and adapters loaded and unloaded while it runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from tests.test_lm import completion


def refused(status: int, message: str) -> JSONResponse:
    kind = {400: "BadRequestError", 404: "NotFoundError"}[status]
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status)


def vllm_app(base: str, answer: Callable[[list[dict[str, str]], bool], str]) -> FastAPI:
    """answer: to a conversation, by an adapter or by the base. Served models are in `state.loaded`,
    by name, with the folder they were loaded from; None: the base.
    """
    app = FastAPI()
    app.state.loaded = loaded = {base: None}
    app.state.asked = asked = []

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        parents = {name: None if path is None else base for name, path in loaded.items()}
        data = [{"id": n, "object": "model", "parent": p} for n, p in parents.items()]
        return {"object": "list", "data": data}

    @app.post("/v1/load_lora_adapter")
    async def load(request: Request) -> Any:
        body = await request.json()
        name, path = body.get("lora_name"), Path(body.get("lora_path") or "")
        if not name or not body.get("lora_path"):
            return refused(400, "Both 'lora_name' and 'lora_path' must be provided.")
        if name in loaded:
            return refused(400, f"The lora adapter '{name}' has already been loaded.")
        if not (path / "adapter_config.json").is_file():
            return refused(404, f"No adapter found for {path}")
        loaded[name] = path
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload(request: Request) -> Any:
        name = (await request.json()).get("lora_name")
        if loaded.pop(name, None) is None:
            return refused(404, f"The lora adapter '{name}' cannot be found.")
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Any:
        body = await request.json()
        if body["model"] not in loaded:
            return refused(404, f"The model `{body['model']}` does not exist.")
        asked.append(body["model"])
        said = answer(body["messages"], loaded[body["model"]] is not None)
        schema = json.dumps(body.get("response_format") or {})
        if '"properties"' in schema:
            said = json.dumps({"colour": said})
        elif '"enum"' in schema:
            said = json.dumps(said)
        elif "## thing" in body["messages"][-1]["content"]:
            said = f"[[ ## colour ## ]]\n{said}"
        return completion(body["model"], said)

    return app
