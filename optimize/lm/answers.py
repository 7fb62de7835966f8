"""The answers LMs have given, as plain JSON: nothing in a project's cache can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optimize.errors import StoreFailed
from optimize.lm.dspy_door import Cache, as_fields, as_json, cache_key, is_answer
from optimize.lm.kept import Kept
from optimize.lm.reach import address_in_environment
from optimize.secrets import redacted

FILE = "answers.db"


class AnswerCache(Cache):
    """What DSPy asks for answers it has had. It has DSPy's keys and none of its pickles, and keeps
    nothing in memory.

    Raises StoreFailed where the file cannot be used: a failing cache is no failing LM.
    """

    def __init__(self, path: Path) -> None:
        self.enable_disk_cache, self.enable_memory_cache = True, False
        self.memory_cache: dict[str, Any] = {}
        self.kept = Kept(path)

    def __contains__(self, key: str) -> bool:
        return bool(self.kept.get([key]))

    def cache_key(self, request: dict[str, Any], ignored: list[str] | None = None) -> str:
        """DSPy's, which does not tell the servers apart that the environment names for an LM."""
        model = request.get("model") or request.get("request", {}).get("model", "")
        provider = str(model).partition("/")[0]
        if address := address_in_environment(provider):
            request = {**request, "address": address}
        return str(super().cache_key(request, ignored))

    def get(self, request: dict[str, Any], ignored: list[str] | None = None) -> Any:
        """A record as DSPy keeps it, or a provider's response as its fields; None: unknown."""
        if not (key := cache_key(self, request, ignored)):
            return None
        found = self.kept.get([key])
        if not found:
            return None
        try:
            record = json.loads(found[key])
        except (ValueError, TypeError) as error:
            raise self._damaged(f"no JSON ({error})") from error
        if not is_answer(record):
            raise self._damaged("no answer of an LM")
        return as_fields(record)

    def _damaged(self, what: str) -> StoreFailed:
        return StoreFailed(
            f"{self.kept.path} is damaged: an answer in it is {what}. Move it away: what it knew "
            "will be asked again."
        )

    def put(
        self,
        request: dict[str, Any],
        value: Any,
        ignored: list[str] | None = None,
        enable_memory_cache: bool = True,
    ) -> None:
        if key := cache_key(self, request, ignored):
            self.kept.put({key: redacted(json.dumps(as_json(value), ensure_ascii=False)).encode()})
