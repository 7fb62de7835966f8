"""A page on which a person labels the chosen rows. It listens on this machine alone."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, ConfigDict

from optimize.commands.labelling import Sitting, Work
from optimize.data.fields import is_optional
from optimize.errors import WorkbenchError
from optimize.files import to_text
from optimize.report.html.policy import policy
from optimize.report.labelling import RANDOM, by_number, kind
from optimize.report.untrusted import visible
from optimize.serving.guard import Guard, Refused
from optimize.serving.metrics import Metrics
from optimize.serving.server import listen
from optimize.task import Task

HOST = "127.0.0.1"
MOST = 8  # requests at once: one person asks


class Asked(BaseModel):
    """choice: of which rows the page shows one, as `/rows` names them."""

    model_config = ConfigDict(extra="forbid")
    choice: str


class Given(Asked):
    """What was typed for the outputs of a row."""

    outputs: dict[str, str]


def label_page(sitting: Sitting, port: int, say: Callable[[str], None]) -> None:
    """Show the page until the person, or Ctrl-C, ends it. say: is told its address.

    Raises WorkbenchError where it cannot listen.
    """
    app = application(sitting, end=lambda: os.kill(os.getpid(), signal.SIGTERM))
    listen(Guard(app, Metrics(), "", True, MOST), (HOST, port), say, grace=2)


def application(sitting: Sitting, end: Callable[[], None]) -> FastAPI:
    """The page and what it asks. What the champion answered is in none of it."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    text = (files(__package__) / "labelling.html").read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": _policy(text), "Cache-Control": "no-store"}

    def check(asked: Asked) -> None:
        if asked.choice != sitting.choice:
            told = "Not kept: other rows are being labelled by now. Reload this page to see them."
            raise Refused(409, "stale", told)

    @app.get("/")
    def page() -> Response:
        return HTMLResponse(text, headers=headers)

    @app.get("/rows")
    def rows() -> Response:
        return JSONResponse(_shown(sitting), headers={"Cache-Control": "no-store"})

    @app.post("/rows/{number}/label")
    def label(number: int, given: Given) -> Response:
        check(given)
        sitting.label(number, given.outputs)
        return JSONResponse(_work(sitting.task, sitting.work[number]))

    @app.post("/rows/{number}/skip")
    def skip(number: int, asked: Asked) -> Response:
        check(asked)
        sitting.skip(number)
        return JSONResponse(_work(sitting.task, sitting.work[number]))

    @app.post("/end")
    def ended(asked: Asked) -> Response:
        check(asked)
        end()
        return JSONResponse({})

    @app.exception_handler(WorkbenchError)
    def wrong(_: Request, error: WorkbenchError) -> Response:
        return JSONResponse(Refused(422, "invalid", str(error)).body, 422)

    @app.exception_handler(Refused)
    def refused(_: Request, error: Refused) -> Response:
        return JSONResponse(error.body, error.status)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        return JSONResponse(Refused(422, "invalid", error.errors()[0]["msg"]).body, 422)

    return app


def _policy(text: str) -> str:
    """The page's own style and script, its own address, and nothing else at all."""
    style, script = (
        "".join(re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)) for tag in ("style", "script")
    )
    return policy(style, script, "connect-src 'self'", "frame-ancestors 'none'")


def _shown(sitting: Sitting) -> dict[str, Any]:
    task = sitting.task
    return {
        "task": task.name,
        "choice": sitting.choice,
        "question": str(task.signature.instructions),
        "guide": task.guide,
        "note": RANDOM,
        "inputs": list(task.signature.input_fields),
        "outputs": [_output(task, name) for name in task.signature.output_fields],
        "rows": [_work(task, row) for row in sitting.work],
    }


def _output(task: Task, name: str) -> dict[str, Any]:
    field = task.signature.output_fields[name]
    labels, numbers = by_number(task, name)
    told = {"labels": labels, "numbered": bool(numbers), "optional": is_optional(field)}
    return {"name": name, "kind": kind(task, name), **told}


def _work(task: Task, row: Work) -> dict[str, Any]:
    label = None if row.label is None else {n: _typed(value) for n, value in row.label.items()}
    return {
        "place": visible(row.place),
        "inputs": {n: visible(to_text(row.columns.get(n))) for n in task.signature.input_fields},
        "label": label,
        "skipped": row.skipped,
    }


def _typed(value: Any) -> str:
    return "" if value is None else to_text(value)
