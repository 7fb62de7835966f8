"""An OpenAI-compatible endpoint over real HTTP that answers, and fails in the ways real ones do.

It keeps a log of its own: what was asked and what became of it.
"""

from __future__ import annotations

import asyncio
import json
import threading
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from tests.test_lm import completion

HANG = 3600.0  # seconds: as good as for ever
DRIPS = 20.0  # seconds for which an answer drips


@dataclass(frozen=True)
class Asked:
    """A request that reached the server. number: from 0. fault: what it met; "" for an answer."""

    number: int
    text: str
    fault: str
    key: str


def drawn(asked: Asked) -> float:
    """In 0…1, the same for a request of that number and text."""
    return zlib.crc32(f"{asked.number} {asked.text}".encode()) / 2**32


def refused(status: int, message: str, code: str = "", **headers: str) -> Response:
    error = {"message": message, "type": "invalid_request_error", "code": code}
    return Response(json.dumps({"error": error}), status, headers, media_type="application/json")


def body(model: str, **message: Any) -> dict[str, Any]:
    found = completion(model, "")
    found["choices"][0]["message"] = {"role": "assistant", **message}
    return found


# each fault, as a function of the model's name and the request's key
FAULTS: dict[str, Callable[[str, str], Any]] = {
    "no choices": lambda model, key: completion(model, "") | {"choices": []},
    "empty object": lambda model, key: {},
    "null content": lambda model, key: body(model, content=None),
    "empty content": lambda model, key: body(model, content=""),
    "blank content": lambda model, key: body(model, content=" \n"),
    "error with 200": lambda model, key: {"error": {"message": "overloaded", "code": 529}},
    "no JSON": lambda model, key: Response("<html>Bad gateway</html>", 200, media_type="text/html"),
    "cut JSON": lambda model, key: Response('{"choices": [', 200, media_type="application/json"),
    "500": lambda model, key: refused(500, "internal"),
    "503": lambda model, key: refused(503, "overloaded"),
    "429": lambda model, key: refused(429, "slow down"),
    "429, in a day": lambda model, key: refused(429, "slow down", **{"Retry-After": "86400"}),
    "401": lambda model, key: refused(401, f"Incorrect API key provided: {key}"),
    "403": lambda model, key: refused(403, "Your input was flagged."),
    "too long": lambda model, key: refused(
        400, "This model's maximum context length is 8192 tokens.", "context_length_exceeded"
    ),
    "hangs up": lambda model, key: Response("{", 200, {"Content-Length": "99"}),
    "echo": lambda model, key: refused(400, f"Your request with {key} is malformed."),
    "echo in the answer": lambda model, key: body(model, content=f"My key is {key}."),
    "refusal": lambda model, key: body(model, content=None, refusal="I cannot help with that."),
    "held back": lambda model, key: held_back(model),
    "wrong key": lambda model, key: refused(400, "API key not valid. Please pass a valid one."),
    "429, in words": lambda model, key: refused(429, "Quota exceeded. Please retry in 250ms."),
}


def held_back(model: str) -> dict[str, Any]:
    """As a provider's filter does, and Claude where it refuses."""
    found = body(model, content="")
    found["choices"][0]["finish_reason"] = "content_filter"
    return found


async def _drops(whole: str) -> AsyncIterator[str]:
    for _ in range(int(DRIPS / 0.2)):
        yield " "
        await asyncio.sleep(0.2)
    yield whole


def faulty_app(
    answer: Callable[[str], str], fault: Callable[[Asked], str], seconds: float = 0.0
) -> FastAPI:
    """Answers the last message after so many seconds, unless `fault` names what the request meets:
    one of FAULTS, "hangs", or "drips": a byte now and then, and the answer at last.
    """
    app = FastAPI()
    app.state.log = log = []
    lock = threading.Lock()

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Any:
        asked = await request.json()
        text = asked["messages"][-1]["content"]
        key = request.headers.get("authorization", "")
        with lock:
            one = Asked(len(log), text, "", key)
            met = fault(one)
            log.append(Asked(one.number, text, met, key))
        if met == "drips":
            whole = json.dumps(completion(asked["model"], answer(text)))
            return StreamingResponse(_drops(whole), media_type="application/json")
        await asyncio.sleep(HANG if met == "hangs" else seconds)
        if met and met != "hangs":
            return FAULTS[met](asked["model"], key)
        return completion(asked["model"], answer(text))

    return app
