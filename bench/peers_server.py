"""The one LM that every method of bench/peers.py asks: an OpenAI-compatible address on loopback
before the embedded LM or a hosted one. It counts calls and tokens, retries included, and refuses
what goes beyond a cap. Knows no method.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response

from optimize.lm.embedded import Endpoint

ROOM = ("max_tokens", "max_completion_tokens")
PATIENCE = 600.0  # seconds for one answer


@dataclass
class Tally:
    """What was asked since it was begun. refused: calls beyond the cap, which never reached the LM.
    failed: calls that the LM answered with an error, such as a prompt that is too long; they count.
    """

    cap: int | None = None
    calls: int = 0
    refused: int = 0
    failed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    def numbers(self) -> dict[str, int]:
        return {name: n for name, n in asdict(self).items() if name != "cap"}


class Counted:
    """An LM behind its counter.

    room: tokens that an answer may have at most, and has where a client asks for no number. local:
    it constrains to any JSON Schema; others want an object.
    """

    def __init__(self, lm: Endpoint, model: str, room: int, local: bool) -> None:
        self.lm, self.model, self.room, self.local = lm, model, room, local
        self.tally = Tally()

    def begin(self, cap: int | None = None) -> Tally:
        """Count from nought; what is still on its way is counted where it was begun."""
        self.tally = Tally(cap)
        return self.tally

    def app(self) -> FastAPI:
        @asynccontextmanager
        async def life(app: FastAPI) -> Any:
            key = {"Authorization": f"Bearer {self.lm.key}"}
            async with httpx.AsyncClient(headers=key, timeout=PATIENCE) as app.state.http:
                yield

        app = FastAPI(lifespan=life)

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": self.model, "object": "model"}]}

        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Response:
            return await self._answer(await request.json(), app.state.http)

        return app

    async def _answer(self, body: dict[str, Any], http: httpx.AsyncClient) -> Response:
        tally, answers = self.tally, int(body.get("n") or 1)
        if tally.cap is not None and tally.calls + answers > tally.cap:
            tally.refused += answers
            told = {"message": f"over budget: the cap of {tally.cap} calls is reached"}
            told |= {"type": "invalid_request_error"}
            return Response(json.dumps({"error": told}), 400, media_type="application/json")
        tally.calls += answers
        try:
            found = await http.post(f"{self.lm.url}/chat/completions", json=self._sent(body))
        except httpx.HTTPError as error:
            tally.failed += answers
            told = {"message": f"the LM does not answer: {error!r}", "type": "server_error"}
            return Response(json.dumps({"error": told}), 502, media_type="application/json")
        if found.status_code == 200:
            usage = found.json().get("usage") or {}
            tally.tokens_in += usage.get("prompt_tokens") or 0
            tally.tokens_out += usage.get("completion_tokens") or 0
        else:
            tally.failed += answers
        return Response(found.content, found.status_code, media_type="application/json")

    def _sent(self, body: dict[str, Any]) -> dict[str, Any]:
        """The request as the LM gets it: not streamed, with bounded room."""
        sent = {name: value for name, value in body.items() if not name.startswith("stream")}
        asked = [name for name in ROOM if sent.get(name)] or [ROOM[0]]
        sent |= {name: min(sent.get(name) or self.room, self.room) for name in asked}
        schema = ((sent.get("response_format") or {}).get("json_schema") or {}).get("schema") or {}
        if not self.local and schema and schema.get("type") != "object":
            del sent["response_format"]  # refused by hosted LMs; `optimize` does not send it there
        return sent | {"model": self.model}


@contextmanager
def served(counted: Counted) -> Iterator[str]:
    """Its address, with /v1, until the end."""
    config = uvicorn.Config(counted.app(), host="127.0.0.1", port=0, log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
