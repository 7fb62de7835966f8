"""Requests to a batch API, with what fails for a while tried again. The only module that imports
httpx.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from optimize.errors import LmRefused, WorkbenchError
from optimize.secrets import redacted
from optimize.stopping import wait

TRIES = 8  # of a request, before the provider is said not to answer
FIRST_PAUSE, LAST_PAUSE = 1.0, 60.0  # seconds between two tries, twice as long each time
SECONDS = 300.0  # for a request; a file of some hundred megabytes takes a while
LATER = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # status of what may pass
ONGOING = "Nothing is lost: the same command goes on from there."


class Api:
    """One provider's address, below which paths are, and the headers that let one in."""

    def __init__(self, base: str, headers: Mapping[str, str]) -> None:
        import httpx

        own = ("content-type", "content-length", "accept", "host")
        kept = {name: value for name, value in headers.items() if name.lower() not in own}
        self.base, self._client = base, httpx.Client(headers=kept, timeout=SECONDS)

    def call(self, method: str, path: str, *, tries: int = TRIES, **sent: Any) -> Any:
        """The JSON that is answered. Raises WorkbenchError in the provider's words."""
        import httpx

        pause, problem = FIRST_PAUSE, ""
        for left in reversed(range(tries)):
            try:
                found = self._client.request(method, self._url(path), **sent)
                if found.status_code < 400:
                    return found.json()
                problem = f"it answered {found.status_code}: {_said(found)}"
                _check(found, problem)
            except (httpx.HTTPError, ValueError) as error:  # or a page that is no JSON
                problem = redacted(f"{type(error).__name__}: {error}")
            if left:
                wait(pause)
                pause = min(LAST_PAUSE, 2 * pause)
        raise Silent(f"The provider's batch API does not answer ({problem}). {ONGOING}")

    def lines(self, path: str) -> Iterator[str]:
        """Each line of a file that may be large. Raises Silent where it breaks off."""
        import httpx

        try:
            with self._client.stream("GET", self._url(path)) as found:
                if found.status_code >= 400:
                    found.read()
                    problem = f"it answered {found.status_code}: {_said(found)}"
                    _check(found, problem)
                    raise Silent(f"The results of the batch cannot be read ({problem}). {ONGOING}")
                yield from (line for line in found.iter_lines() if line.strip())
        except httpx.HTTPError as error:
            told = redacted(f"{type(error).__name__}: {error}")
            raise Silent(f"The results of the batch broke off ({told}). {ONGOING}") from error

    def _url(self, path: str) -> str:
        return path if path.startswith(("http://", "https://")) else f"{self.base}{path}"


class Gone(WorkbenchError):
    """The provider, or this account there, knows nothing of it."""


class Silent(WorkbenchError):
    """A provider that does not answer now."""


def _check(found: Any, problem: str) -> None:
    """Raises what no further try would mend."""
    if found.status_code in (401, 403):
        raise LmRefused(f"The provider's batch API refuses the key or the account: {problem}")
    if found.status_code not in LATER:
        kind = Gone if found.status_code == 404 else WorkbenchError
        raise kind(f"The provider's batch API refuses a request: {problem}")


def _said(found: Any) -> str:
    try:
        body = found.json()
        error = body.get("error", body)
        return redacted(str(error.get("message", error)))[:300]
    except (ValueError, AttributeError):
        return redacted(found.text)[:300]
