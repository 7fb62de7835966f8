"""DSPy's private or deprecated names are touched here and in dspy_calls alone
(tests/test_architecture.py holds it): when DSPy moves them, as 3.5 will, these have to change.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from io import StringIO
from types import SimpleNamespace
from typing import Any

import dspy
from dspy.adapters import utils
from dspy.clients import execution
from dspy.clients.backend_selection import select_backend
from dspy.clients.cache import Cache
from dspy.clients.call_result import CACHE_FORMAT, attributes
from dspy.clients.legacy_outputs import plain, value
from dspy.clients.lm import _is_openai_reasoning_model
from dspy.clients.model_metadata import model_info
from dspy.utils.callback import BaseCallback

from optimize.errors import WorkbenchError
from optimize.lm import heard
from optimize.lm.addresses import Address
from optimize.lm.post import Letter, Post, Reply, Unanswered, copy_posted
from optimize.lm.thinking import THINKING, room_to_think

__all__ = ["Cache"]
# read when a price or a context is first looked up: the list that is installed, and no download
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
_CARRIED = "optimize"  # our key in DSPy's settings
NUMBERED_CLAUDE = re.compile(r"claude-[a-z]+-(\d{1,2})(?!\d)(?:[-._](\d{1,2})(?!\d))?")
ASK_AGAIN = re.compile(
    r"(?:retry|try again) (?:in|after) (?:(\d+)m)?(\d+(?:\.\d+)?) ?(ms|s)", re.IGNORECASE
)
CUT = "length"  # how DSPy says that an answer ran into max_tokens


class HistorylessLM(dspy.LM):
    """A `dspy.LM` that does not keep its last ten thousand prompts and answers; whoever listens
    hears the answers.

    thinking: tokens for thoughts and answer, where a list says that it thinks. context: tokens
    that a call may read and write, where that is known; asked_for: the user says so.
    """

    thinking = 0
    context: int | None = None
    asked_for = False

    def update_history(self, entry: dict[str, Any]) -> None:
        heard.note(entry["outputs"], self._cut_at(entry))

    def _cut_at(self, entry: dict[str, Any]) -> int:
        """The tokens at which the answer was cut; 0 where it was not."""
        response = entry["response"]
        if finish_reason(response) != CUT:
            return 0
        given = {**self.kwargs, **entry["kwargs"]}
        usage = value(response, "usage")
        told = value(usage, "output_tokens") or value(usage, "completion_tokens")
        most = given.get("max_tokens") or given.get("max_completion_tokens")
        return int(told or room_to_think(self) or most or 1)


@contextmanager
def carrying(value: object) -> Iterator[None]:
    """Hand `value` to every call made within, in DSPy's own threads as well: DSPy gives those its
    settings, but no context variables.
    """
    with dspy.context(**{_CARRIED: value}):
        yield


def carried() -> Any:
    """What `carrying` handed on; None outside of it."""
    return dspy.settings.get(_CARRIED)


def first_prompt(run: Callable[[], object]) -> list[dict[str, Any]]:
    """The messages of the first LM call that `run` would make. No LM is called, nor one that a
    module has of its own.
    """

    def noted(inputs: dict[str, Any]) -> BaseException:
        given = [{"role": "user", "content": inputs.get("prompt")}]
        return _Heard(inputs.get("messages") or given)

    try:
        with _stopping(noted), dspy.context(warn_on_type_mismatch=False):
            run()
    except _Heard as heard:
        return heard.messages
    return []


class _Heard(BaseException):
    """The prompt is known; nothing more is to be run."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages


@contextmanager
def evaluating(note: Callable[[Any, list[Any]], None]) -> Iterator[None]:
    """Tell `note` of every evaluation that DSPy ends within: the program, and (row, answer, score)
    of each row. It is told before the program is changed again.
    """
    programs: dict[str, Any] = {}

    class Heed(BaseCallback):
        def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            programs[call_id] = inputs["program"]

        def on_evaluate_end(
            self, call_id: str, outputs: Any, exception: BaseException | None = None
        ) -> None:
            program = programs.pop(call_id)
            if exception is None:
                note(program, outputs.results)

    with dspy.context(callbacks=[*dspy.settings.callbacks, Heed()]):
        yield


@contextmanager
def refusing(error: BaseException) -> Iterator[None]:
    """Raise `error` as soon as an LM is asked within, be it the one in context or any other."""
    with _stopping(lambda inputs: error):
        yield


@contextmanager
def _stopping(error_of: Callable[[dict[str, Any]], BaseException]) -> Iterator[None]:
    """Raise what is made of an LM call's inputs in its place."""

    class Stop(BaseCallback):
        def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
            raise error_of(inputs)

    with dspy.context(lm=dspy.BaseLM("never asked"), callbacks=[Stop()]):
        yield


def engine_by_post(chosen: Any, post: Post) -> Any:
    """The engine that DSPy has chosen for a call, with its request and provider, but answering with
    what has come by post.

    Raises Unanswered where nothing has yet: the post knows what is asked then.
    """
    engine, request, provider = chosen
    if request is None or not hasattr(engine, "_target"):  # LiteLLM's, which shows no request
        raise WorkbenchError("This LM is not reached in a way that batches are known for.")
    dialect, routed = engine._target(request)
    sent = dialect.build_request(routed, stream=False)
    reply = post.reply(Letter(sent.url, dict(sent.headers), sent.body, copy_posted()))
    if reply is None:
        raise Unanswered
    return _Replied(dialect, routed, reply), request, provider


def engine_at(engine: Any, provider: str | None, address: Address | None) -> Any:
    """The engine that DSPy has chosen for a call, but with that address and its key; the same one
    for None. Each has connections of its own, and is made once.

    Raises WorkbenchError for an engine that has no address of ours.
    """
    if address is None:
        return engine
    if not hasattr(engine, "config") or provider is None:  # LiteLLM's
        raise WorkbenchError("An LM at several addresses takes no settings but DSPy's own.")
    with _making:
        known = vars(engine).setdefault(_CARRIED, {})
        if address not in known:
            keys = {provider: address.key} if address.key else engine.config.api_keys
            config = replace(engine.config, base_urls={provider: address.url}, api_keys=keys)
            known[address] = type(engine)(config, model_type=engine.model_type)
        return known[address]


_making = threading.Lock()


@dataclass(frozen=True)
class _Replied:
    """An engine with one answer. dialect: reads it, as it reads one that was sent for."""

    dialect: Any
    routed: Any
    reply: Reply

    def complete(self, request: Any) -> Any:
        status, body = self.reply.status, self.reply.body
        text = body.decode(errors="replace")
        if status >= 400:
            raise self.dialect.normalize_error(status, text)
        read = {"json": lambda: json.loads(body), "text": lambda: text}
        response = SimpleNamespace(status=status, headers=[], body=body, **read)
        return self.dialect.parse_response(self.routed, response)


class OwnFallback:
    """Mixed into an adapter: `fallback` is what it asks in again after an unreadable answer."""

    def fallback(self) -> dspy.JSONAdapter:
        raise NotImplementedError

    def _make_json_adapter_fallback(self) -> dspy.JSONAdapter:
        return self.fallback()


def unknown_provider(name: str) -> list[str]:
    """The providers there are, where nobody knows the one of a model string; empty where somebody
    does. LiteLLM, which knows the most, is slow to import, and asked last.
    """
    if select_backend(dspy.LM(name)).native:
        return []
    import litellm

    own = {str(one["provider"]) for one in litellm.custom_provider_map}
    known = {str(getattr(one, "value", one)) for one in litellm.provider_list} | own
    if name.partition("/")[0] in known:
        return []
    # some are on no list; it prints where it finds none
    with suppress(litellm.exceptions.BadRequestError), redirect_stdout(StringIO()):
        litellm.get_llm_provider(name)
        return []
    return sorted(known)


def price_result(lm: Any, result: Any, response: Any, provider: Any, request: Any) -> None:
    """Note on a result what it has cost, as DSPy does with the answers that it keeps."""
    execution._price_result(lm, result, response, provider, request)


def seconds_asked(error: Exception) -> float:
    """Seconds after which the server wants to be asked again; 0 where it does not say. Google says
    so in the error's text alone, OpenAI sometimes.
    """
    if told := execution.finite_seconds(getattr(error, "retry_after", None)):
        return float(told)
    found = ASK_AGAIN.search(str(error))
    if not found:
        return 0.0
    return 60 * float(found[1] or 0) + float(found[2]) / (1000 if found[3] == "ms" else 1)


def cache_key(cache: Cache, request: dict[str, Any], ignored: list[str] | None) -> str:
    """Where a cache keeps the answer to a request; empty for one that is no JSON, whose answer is
    kept nowhere.
    """
    try:
        return str(cache.cache_key(request, ignored))
    except TypeError:
        return ""


def as_json(response: Any) -> Any:
    """A record of DSPy's answer cache, or a provider's response, as JSON has it."""
    return plain(response)


def as_fields(record: Any) -> Any:
    """What `as_json` gave, as DSPy reads it; a provider's response has fields for attributes."""
    return record if "_dspy_format" in record else attributes(record)


def is_answer(record: Any) -> bool:
    """Whether `as_json` may have given this: a damaged or foreign record must not look as if the LM
    had said nothing.
    """
    if not isinstance(record, dict):
        return False
    if "_dspy_format" not in record:  # a provider's response
        return bool(record.get("choices") or record.get("output"))
    whole = {"responses", "outputs", "cost", "response_model"} <= record.keys()
    return whole and record["_dspy_format"] == CACHE_FORMAT and bool(record["outputs"])


def allows_none(annotation: Any) -> bool:
    """Whether a field of this type may be null, as DSPy reads types."""
    return bool(utils.annotation_allows_none(annotation))


def read_value(value: object, annotation: Any) -> Any:
    """An answer's text as the type of its field, the way DSPy's own formats read it."""
    return utils.parse_value(value, annotation)


def whole_answer(signature: type[dspy.Signature], fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of an answer, those that may be left out with their default or null. Raises
    KeyError for another one that is missing.
    """
    whole = utils.apply_output_field_defaults(signature, fields)
    return {name: whole[name] for name in signature.output_fields}


def uncompiled(program: dspy.Module) -> None:
    """Let an optimizer take a module that another one has compiled."""
    program._compiled = False


def finish_reason(response: Any) -> str:
    """Why an answer ended, as DSPy says it or LiteLLM, through which it asks some providers."""
    return str(value(response, "finish_reason") or value(_choice(response), "finish_reason") or "")


def refusal(response: Any) -> str:
    """What the LM said in place of an answer, where it refused one; empty where it did not."""
    parts = getattr(getattr(response, "message", None), "parts", ())
    own = "".join(part.text for part in parts if part.type == "refusal")
    told = own or value(value(_choice(response), "message"), "refusal")
    if not told and finish_reason(response) == "content_filter":
        return "(held back by the provider's filter)"
    return str(told or "")


def _choice(response: Any) -> Any:
    """LiteLLM's first one."""
    choices = value(response, "choices")
    return choices[0] if choices else None


def tuned_from(model: str) -> str:
    """The model that one called ft:BASE:… was tuned from; empty for others."""
    return model.split(":")[1] if model.startswith("ft:") else ""


@cache
def token_prices(provider: str, model: str) -> tuple[float, float] | None:
    """US dollars a token in and out, from the list that comes with DSPy, which has a tuned model
    under the name of its base; None where it has none.
    """
    base = tuned_from(model)
    found = model_info(provider, f"ft:{base}" if base else model)
    prices = found.get("input_cost_per_token"), found.get("output_cost_per_token")
    return None if None in prices else prices


def input_tokens(provider: str, model: str) -> int | None:
    """Tokens that the model reads at most, from the same list; None where it has none."""
    known = model_info(provider, model).get("max_input_tokens")
    return int(known) if known else None


def output_tokens(provider: str, model: str) -> int | None:
    """Tokens that the model writes at most, from the same list; None where it has none."""
    known = model_info(provider, model).get("max_output_tokens")
    return int(known) if known else None


@cache
def thinking_tokens(provider: str, model: str) -> int:
    """Tokens for the thoughts and the answer of a model that thinks unless told not to, by the same
    list; 0 for others: Anthropic's do so only when asked to.
    """
    known = model_info(provider, model)
    if "claude" in model or not known.get("supports_reasoning"):
        return 0
    return min(THINKING, int(known.get("max_output_tokens") or THINKING))


def reasons(model: str) -> bool:
    """Whether DSPy takes the name for one of OpenAI's reasoning models, which set their own
    temperature and know the room for an answer as max_completion_tokens.
    """
    return bool(_is_openai_reasoning_model(model))


@cache
def takes_temperature(provider: str, model: str) -> bool:
    """Whether the model takes another temperature than 1: by the same list, and whoever serves it,
    Anthropic's have refused one since version 4.7.
    """
    found = NUMBERED_CLAUDE.search(model)
    version = (int(found[1]), int(found[2] or 0)) if found else (0, 0)
    return version < (4, 7) and (
        model_info(provider, model).get("supports_sampling_params") is not False
    )


def retirement(provider: str, model: str) -> date | None:
    """The day on which the provider retires it, from the same list; None where it has none."""
    with suppress(ValueError):
        return date.fromisoformat(str(model_info(provider, model).get("deprecation_date")))
    return None
