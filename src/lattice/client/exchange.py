"""HTTP exchanges as plans: generators that say what to send and never send it.

A plan yields a `Call`, a `Read`, a `Close`, a `Pause` or a `Compute`; a driver (one synchronous, one asynchronous, in
drivers.py) performs it and hands back the outcome. So every rule is written once, and both clients are thin.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from typing import Any, TypeAlias, TypeVar

import httpx2
import msgspec

from lattice.client.faults import answer_error, broken, decode_json, unreachable
from lattice.client.retry import RetryPolicy
from lattice.core.errors import LatticeError

T = TypeVar("T")

MAX_ANSWER = 64 * 1024 * 1024


class Call(msgspec.Struct, frozen=True):
    """One HTTP request. `replay_safe`: the gateway deduplicates it, so the identical bytes may be sent again."""

    method: str
    path: str
    content: bytes | None = None
    headers: Mapping[str, str] = {}
    params: Mapping[str, str] = {}
    replay_safe: bool = False
    stream: bool = False
    timeout_s: float | None = None

    def __repr__(self) -> str:
        return f"Call({self.method} {self.path})"


class Body:
    """Collects a body and refuses one that does not end."""

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, chunk: bytes) -> None:
        """Append, or raise `reply_invalid` when the answer is larger than any real one."""
        self._data += chunk
        if len(self._data) > MAX_ANSWER:
            raise LatticeError("reply_invalid", "The answer is larger than this client accepts.")

    @property
    def content(self) -> bytes:
        """Everything so far."""
        return bytes(self._data)


class Answer:
    """A response. `chunks` is the driver's iterator over the body of a streamed one; otherwise `content` has it all."""

    def __init__(self, response: httpx2.Response, content: bytes = b"", chunks: Any = None) -> None:
        self.response = response
        self.content = content
        self.chunks = chunks

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status_code

    @property
    def headers(self) -> httpx2.Headers:
        """The response headers."""
        return self.response.headers

    @property
    def request_id(self) -> str | None:
        """The gateway's id for this request: quote it in a bug report."""
        return self.headers.get("x-request-id")

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; anything else is an answer no gateway gives."""
        value = decode_json(self.content)
        if not isinstance(value, dict):
            raise LatticeError("gateway_unreachable", "The answer is not a JSON object.", request_id=self.request_id)
        return value


class Read(msgspec.Struct, frozen=True):
    """The next bytes of a streamed answer; `b""` when the body has ended."""

    answer: Answer


class Close(msgspec.Struct, frozen=True):
    """Give up the rest of a streamed answer, so that its connection is freed."""

    answer: Answer


class Pause(msgspec.Struct, frozen=True):
    """Wait before the next send."""

    seconds: float


class Compute(msgspec.Struct, frozen=True):
    """Run what takes long, such as making keys. The asynchronous driver does it in a thread."""

    work: Callable[[], Any]


Effect: TypeAlias = Call | Read | Close | Pause | Compute
Plan: TypeAlias = Generator[Effect, Any, T]


def send(call: Call, policy: RetryPolicy) -> Plan[Answer]:
    """Send, repeat where that is safe, and raise a catalogued error for everything that is not a success."""
    sent = 0
    while True:
        sent += 1
        try:
            answer: Answer = yield call
        except httpx2.RequestError as failure:
            wait = policy.after_failure(failure, sent, call.replay_safe)
            if wait is None:
                raise unreachable(failure) from failure
        else:
            if answer.status < 300:
                return answer
            error = answer_error(answer.status, answer.content, answer.headers)
            wait = policy.after_answer(error, sent, call.replay_safe)
            if wait is None:
                raise error
        yield Pause(wait)


def read_all(answer: Answer) -> Plan[bytes]:
    """The rest of a streamed answer, bounded."""
    body = Body()
    while chunk := (yield from read(answer)):
        body.add(chunk)
    return body.content


def read(answer: Answer) -> Plan[bytes]:
    """The next bytes of a streamed answer; a connection that breaks in mid-answer is `gateway_unreachable`."""
    try:
        chunk: bytes = yield Read(answer)
    except httpx2.RequestError as failure:
        raise broken(failure) from failure
    return chunk


def compute(work: Callable[[], T]) -> Plan[T]:
    """The result of something that takes long."""
    found: T = yield Compute(work)
    return found


def query(pairs: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Query parameters without the absent ones."""
    return {name: str(value) for name, value in pairs if value is not None}
