"""What the batch APIs of OpenAI and Anthropic have in common, and how each says it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from optimize.errors import WorkbenchError
from optimize.lm.batch.http import LATER, Api
from optimize.lm.post import Reply

Requests = Mapping[str, bytes]  # JSON bodies by the id that comes back with each answer
PAGES = 100  # of batches looked through for one whose id a crash has lost
SLACK = 120.0  # seconds by which a provider's clock may be behind


@dataclass(frozen=True)
class State:
    """Of a batch at the provider. done: nothing more will come. problem: why it was not taken."""

    done: bool
    status: str
    answered: int = 0
    problem: str = ""


class Provider(Protocol):
    """Each method may raise Silent, WorkbenchError or LmRefused."""

    def upload(self, requests: Requests, label: str) -> str:
        """The id of a file with the requests; empty where a batch is made with them."""

    def find(self, label: str, file: str, count: int, since: float) -> str | None:
        """The batch that was made for this label, where a crash came before its id was noted.
        count: of its requests. since: seconds of the epoch.
        """

    def create(self, requests: Requests, file: str, label: str) -> str:
        """The id of a batch that has begun. It is tried once: whether a request that failed has
        made one, `find` tells.
        """

    def look(self, batch: str) -> State: ...

    def results(self, batch: str) -> Iterator[tuple[str, Reply | None]]:
        """By its id what came of each request; None: nothing, so that it may be asked again."""

    def cancel(self, batch: str) -> None: ...


class OpenAI:
    """/files and /batches, as OpenAI has them and others have copied."""

    TASK = "/chat/completions"

    def __init__(self, api: Api) -> None:
        self.api = api

    def upload(self, requests: Requests, label: str) -> str:
        lines = (
            b'{"custom_id":%b,"method":"POST","url":"/v1/chat/completions","body":%b}\n'
            % (json.dumps(name).encode(), body)
            for name, body in requests.items()
        )
        file = f"{label}.jsonl", b"".join(lines), "application/jsonl"
        files, data = {"file": file}, {"purpose": "batch"}
        return str(self.api.call("POST", "/files", files=files, data=data)["id"])

    def find(self, label: str, file: str, count: int, since: float) -> str | None:
        after: dict[str, str] = {}
        for _ in range(PAGES):
            found = self.api.call("GET", "/batches", params={"limit": 100, **after})
            for batch in found["data"]:
                if (batch.get("metadata") or {}).get("optimize") == label:
                    return str(batch["id"])
                if batch.get("created_at", since) < since - SLACK:  # newest come first
                    return None
            if not found.get("has_more") or not found["data"]:
                return None
            after = {"after": found["data"][-1]["id"]}
        return None

    def create(self, requests: Requests, file: str, label: str) -> str:
        body = {
            "input_file_id": file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"optimize": label},
        }
        return str(self.api.call("POST", "/batches", tries=1, json=body)["id"])

    def look(self, batch: str) -> State:
        found = self.api.call("GET", f"/batches/{batch}")
        status, counts = str(found["status"]), found.get("request_counts") or {}
        problem = ""
        if status == "failed":
            errors = (found.get("errors") or {}).get("data") or []
            problem = "; ".join(str(error.get("message")) for error in errors[:3])
            problem = problem or "the provider gives no reason"
        done = status in ("completed", "failed", "expired", "cancelled")
        return State(done, status, int(counts.get("completed") or 0), problem)

    def results(self, batch: str) -> Iterator[tuple[str, Reply | None]]:
        found = self.api.call("GET", f"/batches/{batch}")
        for name in ("output_file_id", "error_file_id"):
            if found.get(name):
                for line in self.api.lines(f"/files/{found[name]}/content"):
                    yield self._result(json.loads(line))

    def _result(self, line: dict[str, Any]) -> tuple[str, Reply | None]:
        response = line.get("response") or {}
        status = int(response.get("status_code") or 0)
        if not status or status in LATER:  # it has expired, or the provider was too busy
            return str(line["custom_id"]), None
        return str(line["custom_id"]), Reply(status, json.dumps(response.get("body")).encode())

    def cancel(self, batch: str) -> None:
        self.api.call("POST", f"/batches/{batch}/cancel")


class Anthropic:
    """/messages/batches, as Anthropic has them. A batch bears no label of ours: one whose id is
    lost is known by the number of its requests and its hour.
    """

    TASK = "/messages"

    def __init__(self, api: Api) -> None:
        self.api = api

    def upload(self, requests: Requests, label: str) -> str:
        return ""

    def find(self, label: str, file: str, count: int, since: float) -> str | None:
        after: dict[str, str] = {}
        for _ in range(PAGES):
            found = self.api.call("GET", "/messages/batches", params={"limit": 100, **after})
            for batch in found["data"]:
                if _seconds(batch["created_at"]) < since - SLACK:  # newest come first
                    return None
                if sum((batch.get("request_counts") or {}).values()) == count:
                    return str(batch["id"])
            if not found.get("has_more") or not found["data"]:
                return None
            after = {"after_id": found["data"][-1]["id"]}
        return None

    def create(self, requests: Requests, file: str, label: str) -> str:
        parts = (
            b'{"custom_id":%b,"params":%b}' % (json.dumps(name).encode(), body)
            for name, body in requests.items()
        )
        body = b'{"requests":[%b]}' % b",".join(parts)
        sent = {"content": body, "headers": {"content-type": "application/json"}}
        return str(self.api.call("POST", "/messages/batches", tries=1, **sent)["id"])

    def look(self, batch: str) -> State:
        found = self.api.call("GET", f"/messages/batches/{batch}")
        status, counts = str(found["processing_status"]), found.get("request_counts") or {}
        return State(status == "ended", status, int(counts.get("succeeded") or 0))

    def results(self, batch: str) -> Iterator[tuple[str, Reply | None]]:
        found = self.api.call("GET", f"/messages/batches/{batch}")
        if not found.get("results_url"):
            return
        for line in self.api.lines(str(found["results_url"])):
            yield self._result(json.loads(line))

    def _result(self, line: dict[str, Any]) -> tuple[str, Reply | None]:
        name, found = str(line["custom_id"]), line.get("result") or {}
        if found.get("type") == "succeeded":
            return name, Reply(200, json.dumps(found["message"]).encode())
        error = found.get("error") or {}
        inner = error.get("error", error)
        if inner.get("type") in ("invalid_request_error", "request_too_large"):
            return name, Reply(400, json.dumps({"type": "error", "error": inner}).encode())
        return name, None

    def cancel(self, batch: str) -> None:
        self.api.call("POST", f"/messages/batches/{batch}/cancel")


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def provider_of(url: str, headers: Mapping[str, str]) -> Provider:
    """The batch API beside the address that a single request would go to.

    Raises WorkbenchError where none is known.
    """
    for kind in (OpenAI, Anthropic):
        if url.endswith(kind.TASK):
            return kind(Api(url.removesuffix(kind.TASK), headers))
    raise WorkbenchError(
        f"--batch: {url} has no batch API that is known. It is for OpenAI, Anthropic, and servers "
        "with OpenAI's /v1/files and /v1/batches."
    )
