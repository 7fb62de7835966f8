"""Texts as vectors of their meaning, by an embedder: a GGUF file in this process, or an
OpenAI-compatible endpoint. Each text is embedded once a project.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from optimize.catalogue import EMBEDDERS
from optimize.config import RunConfig, is_local, load_config
from optimize.errors import WorkbenchError
from optimize.lm import embedded, weights
from optimize.lm.dspy_door import token_prices
from optimize.lm.metered import note_embedded
from optimize.lm.reach import check_reachable_embedder
from optimize.lm.room import Room, estimated, local_room
from optimize.lm.vectors import VectorStore
from optimize.secrets import keep_secret, redacted
from optimize.turns import my_turn

BATCH, BATCH_TOKENS = 64, 250_000  # texts and tokens in one request, unless an endpoint takes fewer
TOO_MUCH = (400, 413, 422)  # how endpoints say that it was too much for one request
SECONDS = 60.0  # for one request, of which the client makes up to RETRIES + 1
RETRIES = 3
HOSTED_TOKENS = 8_000  # of a text; providers take 8,192
_store = VectorStore()
_many = threading.Lock()  # whoever embeds many texts at once; whoever comes second finds them


def keep_in(path: Path) -> None:
    """From now on vectors are kept in this file. Raises WorkbenchError where that cannot be."""
    global _store
    _store = VectorStore(path)


@dataclass(frozen=True)
class Embedder:
    """name: one of the catalogue, gguf:PATH, or openai/MODEL. api_base: an address other than
    OpenAI's. key: for that address.
    """

    name: str
    api_base: str | None = None
    key: SecretStr | None = field(default=None, compare=False, repr=False)

    def __deepcopy__(self, memo: object) -> Embedder:
        return self

    @property
    def local(self) -> bool:
        return self.name in EMBEDDERS or is_local(self.name)

    @property
    def knobs(self) -> dict[str, Any]:
        """What a saved program says of it; never a key."""
        return {"name": self.name, "api_base": self.api_base}

    def vectors(self, texts: Sequence[str]) -> Any:
        """(len(texts), size) float32, each row of length 1: a product is a cosine.

        Raises WorkbenchError where the embedder cannot be asked.
        """
        import numpy as np

        found = _store.get(self._place, texts)
        if missing := list(dict.fromkeys(text for text in texts if text not in found)):
            found |= self._together(missing) if len(missing) > 1 else self._new(missing)
        return np.stack([found[text] for text in texts])

    @property
    def _place(self) -> str:
        """What its vectors depend on."""
        return _weights_hash(self._path()) if self.local else f"{self.api_base} {self.name}"

    def _together(self, texts: Sequence[str]) -> dict[str, Any]:
        with _many:
            found = _store.get(self._place, texts)
            return found | self._new([text for text in texts if text not in found])

    def _new(self, texts: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        room, most, left = _client(self)[2], BATCH, list(texts)
        while left:
            some = _batch(left, room, most)
            try:
                new = dict(zip(some, self._asked(some), strict=True))
            except _TooMuch:
                most = len(some) // 2
                continue
            _store.put(self._place, new)
            found |= new
            left = left[len(some) :]
        return found

    def _asked(self, texts: Sequence[str]) -> list[Any]:
        import numpy as np
        import openai

        client, model, room = _client(self)
        short = [_clipped(text, room) for text in texts]
        try:
            with my_turn() if self.local else nullcontext():
                reply = client.embeddings.create(model=model, input=short, encoding_format="float")
        except openai.OpenAIError as error:
            if len(texts) > 1 and getattr(error, "status_code", 0) in TOO_MUCH:
                raise _TooMuch from error
            raise WorkbenchError(
                f"The embedder {self.name!r} did not answer: {type(error).__name__}: "
                f"{redacted(str(error).strip())[:300]}"
            ) from error
        vectors = [np.asarray(d.embedding, dtype=np.float32) for d in reply.data]
        if len(vectors) != len(texts):
            raise WorkbenchError(
                f"The embedder {self.name!r} gave {len(vectors)} vectors for {len(texts)} texts."
            )
        tokens = reply.usage.prompt_tokens if reply.usage else 0
        note_embedded(len(texts), self._cost(tokens))
        return [v / max(float(np.linalg.norm(v)), 1e-12) for v in vectors]

    @property
    def priced(self) -> bool:
        return self._cost(0) is not None

    def _cost(self, tokens: int) -> float | None:
        """US dollars; None where the price is not known."""
        if self.local:
            return 0.0
        price = None if self.api_base else token_prices(*self.name.split("/", 1))
        return None if price is None else tokens * price[0]

    def _path(self) -> Path:
        if self.name in EMBEDDERS:
            return weights.find_embedder(self.name)
        return Path(self.name.removeprefix("gguf:")).expanduser().resolve()


def embedder_of(config: RunConfig) -> Embedder | None:
    """The embedder that is configured, checked as far as that takes no request."""
    if not config.embedder:
        return None
    found = Embedder(config.embedder, config.embedder_api_base, config.api_key)
    if found.local:
        embedded.check_embedder(found._path())
    else:
        check_reachable_embedder(config)
    return found


def saved_embedder(root: Path, name: str, api_base: str | None) -> Embedder:
    """The one that a saved program names. An address gets the project's key only if the project is
    configured for it: a file from elsewhere may name any.
    """
    config = load_config(root)
    own = config.api_key if api_base and api_base == config.embedder_api_base else None
    return Embedder(name, api_base, own)


@cache
def _weights_hash(path: Path) -> str:
    return weights.sha256(path)


@cache
def _client(embedder: Embedder) -> tuple[Any, str, Room]:
    """Who asks, the model's name there, and how much it reads."""
    import openai

    limits: dict[str, Any] = {"timeout": SECONDS, "max_retries": RETRIES}
    if embedder.local:
        path = embedder._path()
        endpoint = embedded.serve(path)
        client = openai.OpenAI(base_url=endpoint.url, api_key=endpoint.key, **limits)
        return client, path.stem, local_room(endpoint, embedded.context_of(path))
    base = embedder.api_base  # another address than OpenAI's never gets its key
    own = embedder.key.get_secret_value() if embedder.key else "none"
    key = own if base else os.environ.get("OPENAI_API_KEY", "none")
    keep_secret(key)
    client = openai.OpenAI(base_url=base, api_key=key, **limits)
    return client, embedder.name.split("/", 1)[1], Room(HOSTED_TOKENS, estimated)


class _TooMuch(Exception):
    """An endpoint takes fewer texts, or less text, in one request."""


def _batch(texts: Sequence[str], room: Room, most: int) -> Sequence[str]:
    """So many of the first texts as a request may hold; one at least."""
    if most * room.tokens > BATCH_TOKENS:
        tokens = list(accumulate(min(room.tokens, estimated(text)) for text in texts[:most]))
        most = max(1, bisect_right(tokens, BATCH_TOKENS))
    return texts[:most]


def _clipped(text: str, room: Room) -> str:
    """The text's beginning, as far as the embedder reads; an empty one is a space, as endpoints
    refuse it."""
    while not room.fits(text, 1):
        text = text[: int(len(text) * 0.8)]
    return text or " "
