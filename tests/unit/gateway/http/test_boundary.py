"""The boundary: request ids, and a catalogued answer to whatever goes wrong, in the shape that the route uses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from lattice.core.clock import ManualClock
from lattice.core.errors import LatticeError, catalogue
from lattice.gateway.http.boundary import Boundary, as_lattice_error, error_body, error_headers
from lattice.gateway.http.exchange import ClientGone
from lattice.gateway.metrics import Metrics


class Answer:
    """What came out of the boundary."""

    def __init__(self, sent: list[Message]) -> None:
        self.sent = sent
        start = sent[0] if sent else {"status": 0, "headers": []}
        self.status: int = start["status"]
        self.headers = dict(start["headers"])
        self.body = b"".join(message.get("body", b"") for message in sent[1:])

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


async def run(error: BaseException | None, path: str = "/v1/key", *, started: bool = False) -> tuple[Answer, Metrics]:
    """A request whose route raises."""
    sent: list[Message] = []
    metrics = Metrics()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if started or error is None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        if error is not None:
            raise error
        await send({"type": "http.response.body", "body": b"fine"})

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    await Boundary(app, ManualClock(), metrics)(scope, receive, send)
    return Answer(sent), metrics


def counted(metrics: Metrics, route: str, status: str) -> float | None:
    return metrics.registry.get_sample_value("lattice_requests_total", {"route": route, "status": status})


async def test_every_answer_gets_a_request_id() -> None:
    answer, metrics = await run(None)
    assert answer.headers[b"x-request-id"].startswith(b"req_")
    assert answer.headers[b"a"] == b"b"
    assert counted(metrics, "other", "200") == 1


async def test_our_own_routes_answer_flat() -> None:
    answer, _ = await run(LatticeError("insufficient_scopes", details={"needs": "x"}))
    assert answer.status == 403
    assert (answer.json["error"], answer.json["needs"]) == ("insufficient_scopes", "x")
    assert answer.json["request_id"].encode() == answer.headers[b"x-request-id"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/models", "/v1/models/m"])
async def test_openai_s_routes_answer_nested(path: str) -> None:
    answer, _ = await run(LatticeError("credits_exhausted"), path)
    assert answer.json["error"]["code"] == "credits_exhausted"
    assert answer.json["error"]["type"] == "insufficient_quota"
    assert answer.json["error"]["param"] is None


async def test_a_mistake_of_ours_says_nothing_of_its_cause() -> None:
    """An exception's text may quote the request."""
    answer, metrics = await run(ValueError("canary"), "/v1/chat/completions")
    assert (answer.status, answer.json["error"]["code"]) == (500, "internal")
    assert b"canary" not in answer.body
    assert counted(metrics, "chat/completions", "500") == 1


async def test_an_error_after_the_answer_began_is_not_sent_into_it() -> None:
    """The connection is closed instead, unfinished, so that no client takes the beginning for the whole."""
    answer, _ = await run(ValueError("canary"), started=True)
    assert len(answer.sent) == 1


async def test_a_caller_that_is_gone_gets_nothing_and_is_counted() -> None:
    answer, metrics = await run(ClientGone())
    assert answer.sent == []
    assert counted(metrics, "other", "499") == 1


@pytest.mark.parametrize("code", ["body_too_large", "request_timeout"])
async def test_a_request_that_was_not_read_to_its_end_closes_the_connection(code: str) -> None:
    answer, _ = await run(LatticeError(code))
    assert answer.headers[b"connection"] == b"close"


async def test_a_405_names_the_methods() -> None:
    answer, _ = await run(HTTPException(405, headers={"Allow": "POST"}))
    assert (answer.status, answer.json["error"], answer.headers[b"allow"]) == (405, "method_not_allowed", b"POST")


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "not_found"), (405, "method_not_allowed"), (413, "body_too_large"), (400, "invalid_request")],
)
def test_foreign_http_errors_are_sorted_into_the_catalogue(status: int, code: str) -> None:
    assert as_lattice_error(HTTPException(status)).code == code


@pytest.mark.parametrize("code", catalogue())
def test_every_code_says_whether_a_retry_is_safe(code: str) -> None:
    """OpenAI's SDKs retry 408, 409, 429 and 5xx by themselves unless the header forbids it."""
    headers = dict(error_headers(LatticeError(code)))
    assert headers[b"x-should-retry"] == (b"true" if catalogue()[code].retry else b"false")
    assert b"retry-after" not in headers


@pytest.mark.parametrize(("milliseconds", "seconds"), [(1, b"1"), (1_000, b"1"), (1_001, b"2"), (0, b"1")])
def test_retry_after_is_in_whole_seconds_rounded_up(milliseconds: int, seconds: bytes) -> None:
    error = LatticeError("queue_full", retry_after_ms=milliseconds)
    assert dict(error_headers(error))[b"retry-after"] == seconds
    assert error_body(error, "/v1/key")["retryAfterMs"] == milliseconds


async def test_what_is_not_http_passes_by() -> None:
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError

    await Boundary(app, ManualClock(), Metrics())({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]
