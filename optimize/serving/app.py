"""The routes of a service: the task's own fields in, the task's own fields out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Optional

import dspy
from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo
from starlette.exceptions import HTTPException

from optimize import __version__, usercode
from optimize.data.fields import field_type, is_optional
from optimize.errors import UserCodeError, WorkbenchError
from optimize.files import plain
from optimize.lm.metered import one_example
from optimize.serving.following import Following
from optimize.serving.guard import Refused
from optimize.serving.metrics import Metrics
from optimize.task import Task

log = logging.getLogger(__name__)

LOOK = 5.0  # seconds between two looks at who is the champion
MOST_ROWS = 1000  # of a batch
LM_WAIT = 5  # seconds that a client is told to wait where the LM's endpoint is asked too much


@dataclass
class Service:
    """A champion that is asked in threads. threads: rows asked at once; a batch takes half of
    them, so that a single request finds room beside it.
    """

    following: Following
    metrics: Metrics
    threads: int
    look: float = LOOK

    def __post_init__(self) -> None:
        self.single = CapacityLimiter(self.threads)
        self.batch = CapacityLimiter(max(1, self.threads // 2))
        self._told()

    async def answer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs as JSON has them. Raises Refused where there are none."""
        return await to_thread.run_sync(self._answered, dict(inputs), limiter=self.single)

    async def answers(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """For each row its `answer` or its `error`."""

        async def one(inputs: Mapping[str, Any]) -> dict[str, Any]:
            async with self.batch:
                try:
                    return {"answer": await self.answer(inputs)}
                except Refused as refused:
                    return refused.body

        return list(await asyncio.gather(*map(one, rows)))

    def _answered(self, inputs: dict[str, Any]) -> dict[str, Any]:
        program, outcome = self.following.now.program, "answer"
        with one_example() as spent:
            try:
                found = program(**inputs)
                return {name: plain(found[name]) for name in program.task.signature.output_fields}
            except (Exception, UserCodeError) as error:  # around one example
                refused = _refused(error)
                outcome = refused.kind
                raise refused from None
            finally:
                self.metrics.row(outcome, spent.usage())

    async def follow(self) -> None:
        """Look now and then whether there is a new champion, and never end."""
        while True:
            await asyncio.sleep(self.look)
            try:
                if await to_thread.run_sync(self.following.look):
                    self._told()
            except (Exception, UserCodeError) as error:  # what fails for a while must not end it
                self.metrics.reloads_failed.inc()
                log.error("The champion was not loaded anew: %s", usercode.told(error))

    def _told(self) -> None:
        now = self.following.now
        self.metrics.champion(now.version, now.run)
        log.warning("Version %s (run %s) answers.", now.version, now.run[:8])


def _refused(error: BaseException) -> Refused:
    """What a client is told of an error, of which the log has more."""
    unread = isinstance(error, dspy.AdapterParseError)  # its text is the answer's
    log.error("Not answered: %s", type(error).__name__ if unread else usercode.told(error))
    if unread:
        return Refused(502, "unread", "The LM's answer could not be read as the task's outputs.")
    if isinstance(error, dspy.LMRateLimitError):
        return Refused(503, "lm_busy", "The LM's endpoint is asked too much.", wait=LM_WAIT)
    if isinstance(error, usercode.LM_FAILURES):
        return Refused(502, "lm", f"The LM did not answer: {type(error).__name__}.")
    if isinstance(error, UserCodeError):
        return Refused(500, "task", "The task's own code failed on this input.")
    if isinstance(error, WorkbenchError):
        return Refused(502, "program", "The program could not be run; the log says why.")
    return Refused(500, "bug", "Something went wrong; the log says what.")


def application(service: Service, task: Task) -> FastAPI:
    """The service over HTTP, described with the task's own fields at /openapi.json."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(service.follow())
        yield
        following.cancel()

    app = FastAPI(
        title=task.name,
        description=str(task.signature.instructions),
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its page would fetch scripts from elsewhere
        redoc_url=None,
    )
    inputs, outputs = _models(task)
    names = list(task.signature.input_fields)

    async def predict(asked: Any) -> Response:
        return JSONResponse(await service.answer({n: getattr(asked, n) for n in names}))

    async def predict_batch(asked: Any) -> Response:
        rows = [{n: getattr(row, n) for n in names} for row in asked]
        return JSONResponse({"answers": await service.answers(rows)})

    # the types are made here, where a string annotation would not find them
    predict.__annotations__["asked"] = inputs
    rows = Annotated[list[inputs], Field(min_length=1, max_length=MOST_ROWS)]  # type: ignore[valid-type]
    predict_batch.__annotations__["asked"] = rows
    one: Any = Optional[outputs]  # noqa: UP045 (made at run time)
    row = create_model("RowAnswer", answer=(one, None), error=(Error | None, None))
    many = create_model("BatchAnswers", answers=(list[row], ...))  # type: ignore[valid-type]
    failures: dict[int | str, dict[str, Any]] = {
        code: {"model": Failure} for code in (401, 413, 422, 429, 500, 502, 503)
    }
    for path, handler, model in (
        ("/predict", predict, outputs),
        ("/predict/batch", predict_batch, many),
    ):
        app.post(path, response_model=model, responses=failures)(handler)
    _looking(app, service, task)
    _errors(app)
    return app


def _looking(app: FastAPI, service: Service, task: Task) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        now = service.following.now
        return {"status": "ok", "task": task.name, "version": now.version, "run": now.run}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _errors(app: FastAPI) -> None:
    """Whatever goes wrong is told as JSON."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return JSONResponse(error.body, error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        broken = first["type"] == "json_invalid"
        where = ".".join(str(part) for part in first["loc"][1:] if not broken) or "body"
        return JSONResponse(Refused(422, "invalid", f"{where}: {first['msg']}").body, 422)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        told = Refused(error.status_code, "request", str(error.detail))
        return JSONResponse(told.body, told.status, error.headers)

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        told = _refused(error)
        return JSONResponse(told.body, told.status)


class Error(BaseModel):
    """kind: one word for programs; message: for people."""

    kind: str
    message: str


class Failure(BaseModel):
    error: Error


def _models(task: Task) -> tuple[type[BaseModel], type[BaseModel]]:
    """The task's inputs and its outputs."""
    strict, signature = ConfigDict(extra="forbid"), task.signature
    return (
        create_model("Inputs", __config__=strict, **_fields(signature.input_fields)),
        create_model("Outputs", __config__=strict, **_fields(signature.output_fields)),
    )


def _fields(fields: Mapping[str, FieldInfo]) -> dict[str, Any]:
    found = {}
    for name, field in fields.items():
        extra = field.json_schema_extra
        told = str(extra.get("desc", "")) if isinstance(extra, dict) else ""
        described = None if told == f"${{{name}}}" else told or None
        default = None if is_optional(field) else ...
        found[name] = (field_type(field), Field(default, description=described))
    return found
