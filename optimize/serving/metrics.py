"""What a service counts, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from optimize.lm.usage import Usage

SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PATHS = ("/predict", "/predict/batch", "/health", "/metrics", "/openapi.json")


class Metrics:
    """Counters of one service, in a registry of its own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._kept = one = CollectorRegistry()
        self._requests = Counter(
            "optimize_requests", "answered, by path and status", ("path", "status"), registry=one
        )
        self._seconds = Histogram(
            "optimize_request_seconds",
            "from request to answer",
            ("path",),
            buckets=SECONDS,
            registry=one,
        )
        self.in_flight = Gauge("optimize_in_flight", "requests to predict at once", registry=one)
        self._rows = Counter(
            "optimize_rows", "rows asked, by what became of them", ("outcome",), registry=one
        )
        self._calls = Counter("optimize_lm_calls", "requests sent to the LM", registry=one)
        self._tokens = Counter("optimize_lm_tokens", "of the LM", ("direction",), registry=one)
        self._usd = Counter("optimize_lm_usd", "dollars, as far as prices are known", registry=one)
        self._champion = Gauge(
            "optimize_champion", "1 for the version that answers", ("version", "run"), registry=one
        )
        self.reloads_failed = Counter(
            "optimize_reloads_failed", "new champions that could not be loaded", registry=one
        )

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request was answered; a path that is not ours is not told from others."""
        known = path if path in PATHS else "other"
        self._requests.labels(known, str(status)).inc()
        self._seconds.labels(known).observe(seconds)

    def row(self, outcome: str, usage: Usage) -> None:
        """A row was asked. outcome: "answer", or the kind of its error."""
        self._rows.labels(outcome).inc()
        self._calls.inc(usage.calls)
        self._tokens.labels("in").inc(usage.tokens_in)
        self._tokens.labels("out").inc(usage.tokens_out)
        self._usd.inc(usage.cost_usd or 0.0)

    def champion(self, version: str, run: str) -> None:
        self._champion.clear()
        self._champion.labels(version, run).set(1)

    def text(self) -> bytes:
        return generate_latest(self._kept)
