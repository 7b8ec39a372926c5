"""Prometheus metrics. Labels are routes, codes and states: never ids, keys, models named by callers or content."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

_ROUTES = ("chat/completions", "embeddings", "models", "relay/poll", "relay/frames", "relay/renew", "relay/fail")


class Metrics:
    """One registry per gateway, so that many can run in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "lattice_requests_total", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "lattice_request_seconds", "Time to answer.", ["route"], buckets=_BUCKETS, registry=self.registry
        )
        self._works = Counter("lattice_works_total", "Works ended.", ["outcome"], registry=self.registry)
        self._tokens = Counter("lattice_tokens_total", "Tokens settled.", ["direction"], registry=self.registry)
        self._charged = Counter("lattice_charged_micro_total", "Micro-credits charged.", registry=self.registry)
        self.dispatched = Counter(
            "lattice_works_dispatched_total", "Works handed to a runtime.", registry=self.registry
        )
        self.runtimes = Gauge("lattice_runtimes_reachable", "Runtimes that poll this gateway.", registry=self.registry)
        self.in_flight = Gauge("lattice_works_in_flight", "Works admitted and not ended.", registry=self.registry)
        self._bound_requests: dict[tuple[str, int], Counter] = {}
        self._bound_seconds = {route: self._seconds.labels(route) for route in (*_ROUTES, "other")}

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        route = path.removeprefix("/v1/")
        if route not in _ROUTES:
            route = "other"
        counter = self._bound_requests.get((route, status))
        if counter is None:
            counter = self._bound_requests[route, status] = self._requests.labels(route, str(status))
        counter.inc()
        self._bound_seconds[route].observe(seconds)

    def ended(self, outcome: str, prompt: int = 0, completion: int = 0, charged: int = 0) -> None:
        """Count one work's end."""
        self._works.labels(outcome).inc()
        if prompt or completion:
            self._tokens.labels("input").inc(prompt)
            self._tokens.labels("output").inc(completion)
        if charged:
            self._charged.inc(charged)

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)
