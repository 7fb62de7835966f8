"""A provider with batches in memory, in OpenAI's shape and in Anthropic's, that fails as it is told
to.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from tests.test_lm import completion

Row = dict[str, Any]


@dataclass
class Batch:
    """ends: how it will. answered: of its requests, that many."""

    id: str
    requests: list[Row]
    metadata: Row
    ends: str
    answered: int
    looks: int = 0
    created: float = field(default_factory=time.time)
    lines: list[Row] = field(default_factory=list)


class BatchServer:
    """answer: to the last message. fail: (method, begin of a path) → what it does instead, once
    each: a status; "made", to do it and answer 500; "cut", to hang up in the middle. ends: of each
    batch to come: (how, how many of its requests are answered); completed and all after these.
    line: what becomes of a request in place of an answer: a status, for some texts.
    """

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.answer, self.app = answer, FastAPI()
        self.fail: dict[tuple[str, str], list[int | str]] = {}
        self.ends: list[tuple[str, int]] = []
        self.line: Callable[[str], int] = lambda text: 200
        self.looks = 1  # at a batch before it has ended
        self.files: dict[str, list[Row]] = {}
        self.batches: list[Batch] = []
        self.log: list[str] = []
        self.direct: list[str] = []
        self.app.api_route("/v1/{path:path}", methods=["GET", "POST"])(self.route)

    async def route(self, path: str, request: Request) -> Any:
        step = f"{request.method} {path.split('/')[0] if 'messages' not in path else path}"
        self.log.append(f"{request.method} {path}")
        body = await request.body()
        planned = self.fail.get((request.method, path.split("/")[0])) or []
        fault = planned.pop(0) if planned else None
        if isinstance(fault, int):
            error = {"message": f"no {step}", "type": "api_error"}
            return JSONResponse({"error": error}, status_code=fault)
        found = self.answered(path, request, body)
        if fault == "made":
            return JSONResponse({"error": {"message": "lost"}}, status_code=500)
        if fault == "cut":
            return Response(
                found.body[: len(found.body) // 2], headers={"Content-Length": "999999"}
            )
        return found

    def answered(self, path: str, request: Request, body: bytes) -> Any:
        parts = path.removeprefix("messages/").split("/")
        if path in ("chat/completions", "messages"):
            asked = json.loads(body)
            self.direct.append(asked["messages"][-1]["content"])
            return self.said(asked, path == "messages")
        if path == "files":
            return self.upload(request.headers["content-type"], body)
        if parts[0] == "files":
            lines = self.files[parts[1]]
            return Response("".join(json.dumps(line) + "\n" for line in lines))
        anthropic = path.startswith("messages")
        if parts == ["batches"] and request.method == "GET":
            newest = [self.told(batch, anthropic) for batch in reversed(self.batches)]
            return {"data": newest, "has_more": False}
        if parts == ["batches"]:
            return self.told(self.create(json.loads(body), anthropic), anthropic)
        batch = next((batch for batch in self.batches if batch.id == parts[1]), None)
        if batch is None:
            return JSONResponse({"error": {"message": "no such batch"}}, status_code=404)
        if parts[2:] == ["cancel"]:
            batch.ends, batch.looks, batch.answered = "cancelled", self.looks, 0
        if parts[2:] == ["results"]:
            lines = self.results(batch, anthropic)
            return Response("".join(json.dumps(line) + "\n" for line in lines))
        batch.looks += 1
        return self.told(batch, anthropic, str(request.base_url))

    def upload(self, kind: str, body: bytes) -> Row:
        whole = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
        (text,) = [p.get_payload(decode=True) for p in whole.walk() if p.get_filename()]
        name = f"file-{len(self.files)}"
        self.files[name] = [json.loads(line) for line in text.decode().splitlines()]
        return {"id": name}

    def create(self, asked: Row, anthropic: bool) -> Batch:
        requests = asked["requests"] if anthropic else self.files[asked["input_file_id"]]
        assert len({request["custom_id"] for request in requests}) == len(requests)
        ends, answered = self.ends.pop(0) if self.ends else ("completed", len(requests))
        name = f"batch-{len(self.batches)}"
        self.batches.append(Batch(name, requests, asked.get("metadata", {}), ends, answered))
        return self.batches[-1]

    def told(self, batch: Batch, anthropic: bool, base: str = "") -> Row:
        done, count = batch.looks > self.looks, len(batch.requests)
        if anthropic:
            counts = {"processing": 0 if done else count, "succeeded": count if done else 0}
            moment = datetime.fromtimestamp(batch.created, UTC).isoformat()
            url = f"{base}v1/messages/batches/{batch.id}/results" if done else None
            status = {"processing_status": "ended" if done else "in_progress", "results_url": url}
            return {"id": batch.id, "created_at": moment, "request_counts": counts} | status
        found = {"id": batch.id, "created_at": int(batch.created), "metadata": batch.metadata}
        found |= {"status": batch.ends if done else "in_progress"}
        if done and batch.ends == "failed":
            return found | {"errors": {"data": [{"message": "Enqueued token limit reached"}]}}
        if done:
            lines = self.results(batch, anthropic)
            self.files[f"out-{batch.id}"] = [line for line in lines if not line["error"]]
            self.files[f"err-{batch.id}"] = [line for line in lines if line["error"]]
            found |= {"output_file_id": f"out-{batch.id}", "error_file_id": f"err-{batch.id}"}
        return found

    def results(self, batch: Batch, anthropic: bool) -> list[Row]:
        """Always the same, and in no order, as providers give them."""
        if not batch.lines:
            count = len(batch.requests)
            batch.lines = [self.result(batch, n, anthropic) for n in reversed(range(count))]
        return batch.lines

    def result(self, batch: Batch, at: int, anthropic: bool) -> Row:
        request = batch.requests[at]
        name, asked = request["custom_id"], request["params" if anthropic else "body"]
        status = self.line(str(asked["messages"][-1]["content"]))
        error = {"type": "invalid_request_error" if status == 400 else "overloaded_error"}
        error |= {"message": f"line {status}"}
        if anthropic:
            if at >= batch.answered:
                return {"custom_id": name, "result": {"type": "expired"}}
            if status != 200:
                told = {"type": "errored", "error": {"type": "error", "error": error}}
                return {"custom_id": name, "result": told}
            message = self.said(asked, anthropic)
            return {"custom_id": name, "result": {"type": "succeeded", "message": message}}
        if at >= batch.answered:
            told = {"code": "batch_expired", "message": "not in time"}
            return {"custom_id": name, "response": None, "error": told}
        body = self.said(asked, anthropic) if status == 200 else {"error": error}
        response = {"status_code": status, "request_id": "r", "body": body}
        return {"custom_id": name, "response": response, "error": None if status == 200 else error}

    def said(self, asked: Row, anthropic: bool) -> Row:
        text = self.answer(str(asked["messages"][-1]["content"]))
        if not anthropic:
            return completion(asked["model"], text)
        return {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": asked["model"],
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 7, "output_tokens": 2},
        }
