"""From a name to an LM: one of the catalogue, `gguf:PATH`, or any DSPy model string, every call
through one meter.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import dspy

from optimize.catalogue import EMBEDDED, MODELS, in_catalogue
from optimize.config import RunConfig, is_local, state_dir
from optimize.errors import WorkbenchError, did_you_mean
from optimize.gguf_header import read_header
from optimize.lm import answers, embedded, embedder, reach, vectors, weights
from optimize.lm.addresses import Address, addresses, is_group
from optimize.lm.answers import AnswerCache
from optimize.lm.dspy_door import (
    HistorylessLM,
    output_tokens,
    retirement,
    token_prices,
    tuned_from,
    unknown_provider,
)
from optimize.lm.endpoint import declare_endpoint, endpoint_name, hosted, warm
from optimize.lm.meter import Meter
from optimize.lm.metered import MeteredLM, count_others
from optimize.lm.paid import SUBSCRIBED
from optimize.lm.pool import declare_pool
from optimize.lm.room import hosted_tokens, note_local, written_within
from optimize.lm.served import context_served
from optimize.lm.thinking import remembered
from optimize.secrets import keep_environment_secret, keep_secret

log = logging.getLogger(__name__)

# room for a teacher's instruction or advice: a small LM in this process rambles to the limit; of a
# hosted one, which stops by itself, SIMBA's and GEPA's are often longer than a thousand
PROPOSAL_TOKENS, HOSTED_PROPOSAL_TOKENS = 300, 4_000


def configure(root: Path, meter: Meter | None = None) -> None:
    """Point DSPy at this project's answer cache and keep it quiet. Call once, from the main thread.

    meter: counts and caps the LMs that a metric or a program makes itself as well.
    Raises StoreFailed where the cache cannot be used.
    """
    count_others(meter)
    embedder.keep_in(state_dir(root) / vectors.FILE)
    # a truncated answer is scored, not shouted about
    logging.getLogger("dspy.clients.lm").setLevel(logging.ERROR)
    dspy.cache = AnswerCache(state_dir(root) / answers.FILE)


def task_lm(config: RunConfig, meter: Meter, max_tokens: int) -> MeteredLM:
    found = resolve(config.lm, config.api_base, config, meter, max_tokens)
    return warm(found, config.temperature) if config.temperature else found


def telling(lm: MeteredLM) -> MeteredLM:
    """The LM, asked for its tokens' log-probabilities too, where it is known to tell them; its
    answers stay the same.
    """
    known = lm.local or (
        not lm.any_schema and "logprobs" in lm.supported_params and not lm.supports_reasoning
    )
    return lm.copy(logprobs=True) if known else lm


def teacher_lm(config: RunConfig, meter: Meter, max_tokens: int) -> MeteredLM:
    """The teacher, or the task LM itself, with room for an answer of so many tokens; `proposing` is
    what writes instructions.
    """
    name, base = config.lms[-1]
    found = resolve(name, base, config, meter, max(PROPOSAL_TOKENS, max_tokens))
    found.role = "teacher"
    return found


def proposing(teacher: MeteredLM, heat: float | None = None) -> MeteredLM:
    """The teacher with room to write an instruction or advice, as far as it can write so much; one
    that thinks has more. heat: the temperature, but for one that sets its own.
    """
    options: dict[str, Any] = {}
    if not (teacher.local or getattr(teacher, "thinking", False)):
        context = getattr(teacher, "context", None)
        room = min(_room(teacher.model), context // 2 if context else HOSTED_PROPOSAL_TOKENS)
        options["max_tokens"] = max(room, teacher.kwargs["max_tokens"])
    return teacher.copy(**options) if heat is None else warm(teacher, heat, **options)


def proposal_tokens(name: str, api_base: str | None) -> int:
    """Tokens that a proposal of this LM may take, its thoughts included."""
    if is_local(name) or "/" not in name:
        return PROPOSAL_TOKENS
    room = HOSTED_PROPOSAL_TOKENS if api_base else _room(name)
    return max(room, answer_tokens(name, api_base, PROPOSAL_TOKENS))


def _room(model: str) -> int:
    provider, _, bare = model.partition("/")
    return min(HOSTED_PROPOSAL_TOKENS, output_tokens(provider, bare) or HOSTED_PROPOSAL_TOKENS)


def resolve(
    name: str, api_base: str | None, config: RunConfig, meter: Meter, max_tokens: int
) -> MeteredLM:
    """The LM of that name.

    Raises WorkbenchError for a missing file or a name DSPy does not take.
    """
    if path := gguf_path(name):
        return local_lm(path, None, meter, max_tokens, context=config.context)
    keep_environment_secret()
    check_name(name, api_base)
    asked = config.context if (name, api_base) == (config.lm, config.api_base) else None
    options: dict[str, Any] = {
        "context": asked,
        "temperature": 0.0,
        "max_tokens": max_tokens,
        "timeout": config.timeout,
    }
    if api_base:
        # another address never gets OpenAI's key
        key = config.api_key.get_secret_value() if config.api_key else "none"
        model = name.split("/", 1)[1]
        places = [replace(place, key=place.key or key) for place in addresses(api_base)]
        options["context"] = asked or context_served(places, model)
        reached = _declared(model, api_base, places)
        # a gateway's reasoning model, known by its name, has the same limits as at its provider
        found = hosted(MeteredLM, reached, meter=meter, any_schema=True, api_key=key, **options)
    else:
        found = hosted(MeteredLM, name, meter=meter, **options)
    found.asked_for = asked is not None
    return found


def _declared(model: str, api_base: str, places: list[Address]) -> str:
    """The model string that reaches these addresses."""
    for place in places:
        keep_secret(place.key)
    reached = declare_endpoint(model, places[0].url, _together(model, api_base))
    if is_group(api_base):
        declare_pool(reached, places)
    return reached


def _together(model: str, api_base: str) -> str | None:
    """What tells a group from others: the LM's name alone. Its addresses come and go, and what one
    has answered, the others would have. None for one address, which tells by itself.
    """
    return f"group {model}" if is_group(api_base) else None


def check_name(name: str, api_base: str | None) -> None:
    """Raises WorkbenchError for what cannot be the name of an LM, or names no provider."""
    if is_local(name):
        return
    if not all(name.partition("/")):
        raise WorkbenchError(
            f"No LM {name!r}.{did_you_mean(name, (EMBEDDED, *MODELS))} Use "
            f"{', '.join((EMBEDDED, *MODELS))}, 'gguf:PATH' or a DSPy model "
            "string such as 'openai/gpt-4.1-mini'."
        )
    provider = name.split("/", 1)[0]
    if api_base or provider in {*reach.KEYS, *SUBSCRIBED}:
        return
    if known := unknown_provider(name):
        raise WorkbenchError(
            f"LM {name!r}: there is no provider {provider!r}.{did_you_mean(provider, known)} A "
            "server of your own: --lm openai/MODEL --api-base URL. No call was made."
        )


def price(name: str, api_base: str | None) -> tuple[float, float] | None:
    """US dollars a token in and out; None where it is not known, which is not zero."""
    if is_local(name):
        return 0.0, 0.0
    if api_base or "/" not in name:
        return None
    return token_prices(*name.split("/", 1))


def retires(name: str, api_base: str | None = None) -> date | None:
    """The day on which an LM, or a tuned one's base, is switched off; None: it is not known."""
    if is_local(name) or api_base or "/" not in name:
        return None
    provider, model = name.split("/", 1)
    if not (base := tuned_from(model)):
        return retirement(provider, model)
    return retirement(provider, f"ft:{base}") or retirement(provider, base)


def prompt_tokens(config: RunConfig, max_tokens: int) -> int:
    """Tokens that a prompt for the task LM may hold, as far as its name and --context tell. No LM
    is loaded.
    """
    if is_local(config.lm) and (path := gguf_path(config.lm)):
        return embedded.context_of(path, config.context) - max_tokens
    if config.context:
        asked = answer_tokens(
            config.lm, config.api_base, max_tokens + written_within(config.context)
        )
        return max(1, config.context - asked)
    return hosted_tokens(config.lm)


def answer_tokens(name: str, api_base: str | None, asked: int) -> int:
    """Tokens that an answer of this LM may take, its thoughts included, where so many are asked
    for.
    """
    if is_local(name) or "/" not in name:
        return asked
    given = _unasked(name, api_base, asked).kwargs
    return int(given.get("max_completion_tokens") or given["max_tokens"])


def asked_with(
    name: str, api_base: str | None, tokens: int, temperature: float
) -> dict[str, int | float]:
    """The options that an answer of so many tokens is asked for with, as this LM takes them: with
    room for its thoughts, and no temperature where it sets its own.
    """
    if is_local(name) or "/" not in name:
        return {"max_tokens": tokens, "temperature": temperature}
    given = _unasked(name, api_base, tokens).kwargs
    own = given.get("temperature") is None
    found: dict[str, int | float] = {} if own else {"temperature": temperature}
    return found | {n: given[n] for n in ("max_tokens", "max_completion_tokens") if given.get(n)}


def thinks(name: str, api_base: str | None) -> bool:
    """Whether this LM thinks before it answers without being asked to: as far as its name tells, or
    its answers have told.
    """
    if is_local(name) or "/" not in name:
        return False
    return bool(getattr(_unasked(name, api_base, 1), "thinking", 0))


def _unasked(name: str, api_base: str | None, tokens: int) -> HistorylessLM:
    model = name.split("/", 1)[1]
    reached, known = name, remembered(name)
    if api_base:
        reached = f"endpoint/{model}"
        url = addresses(api_base)[0].url
        known = remembered(endpoint_name(model, url, _together(model, api_base)))
    return hosted(HistorylessLM, reached, thinks=known, temperature=0.0, max_tokens=tokens)


def gguf_path(name: str) -> Path | None:
    """The weights file of an LM that runs in the process; None for a hosted LM. Fetches the
    embedded one if missing.
    """
    if in_catalogue(name):
        return weights.find(name, log.warning)
    return (
        Path(name.removeprefix("gguf:")).expanduser().resolve()
        if name.startswith("gguf:")
        else None
    )


def local_lm(
    path: Path,
    adapter: Path | None,
    meter: Meter,
    max_tokens: int,
    temperature: float = 0.0,
    context: int | None = None,
) -> MeteredLM:
    """The LM of a GGUF file in this process, tuned by `adapter` if one is given. context: tokens a
    call may read and write.
    """
    endpoint = embedded.serve(path, adapter, context)
    reached = declare_endpoint(path.stem, endpoint.url, _identity(path, adapter))
    note_local(reached, endpoint, embedded.context_of(path, context) - max_tokens)
    options = {"temperature": temperature, "max_tokens": max_tokens}
    return MeteredLM(
        reached, meter=meter, local=True, any_schema=True, api_key=endpoint.key, **options
    )


def adapted_lm(config: RunConfig, meter: Meter, tuned: str, tokens: int) -> MeteredLM:
    """The configured task LM, tuned: by an adapter file, in weights of its own, or under a
    provider's name for it.

    Raises WorkbenchError where the file, or the base weights, are gone.
    """
    if not tuned.endswith(".gguf"):
        return task_lm(config.model_copy(update={"lm": f"openai/{tuned}"}), meter, tokens)
    base, adapter = gguf_path(config.lm), Path(tuned)
    if base is None or not adapter.is_file():
        raise WorkbenchError(
            f"The program was tuned; its adapter {adapter} or the base weights are gone."
        )
    file, lora = (base, adapter) if read_header(adapter).adapts else (adapter, None)
    return local_lm(file, lora, meter, tokens, config.temperature, config.context)


@cache  # the process serves a file as it was at first use, and reading it again takes a while
def _identity(path: Path, adapter: Path | None) -> str:
    """What a local LM's answers depend on: its weights, not the address of the server."""
    return weights.identity(path) + (weights.sha256(adapter) if adapter else "")


def ask(config: RunConfig, question: str) -> str:
    """The task LM's plain answer to one question. Raises WorkbenchError when the call fails."""
    reach.check_reachable(config)
    lm = task_lm(config, Meter(2), PROPOSAL_TOKENS)  # one that thinks may be asked twice
    try:
        return lm.say(question)
    except Exception as error:
        raise WorkbenchError(
            f"LM {config.lm!r} did not answer: {type(error).__name__}: {str(error).strip()[:300]}"
        ) from error
