"""What changes in an engine's answer on its way out: the model's name, and a usage event that nobody asked for."""

from __future__ import annotations

from typing import Any

import msgspec

from lattice.core.chat import Usage
from lattice.core.errors import LatticeError
from lattice.runtime.engines.sse import event_data
from lattice.sealing.trailer import MAX_TOKENS


class _Delta(msgspec.Struct):
    content: Any = None
    tool_calls: Any = None
    function_call: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Any = None
    completion_tokens: Any = None


class _Answer(msgspec.Struct):
    model: Any = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode
_decode_any = msgspec.json.Decoder().decode


def _count_of(value: Any) -> int:
    return min(value, MAX_TOKENS) if type(value) is int and value > 0 else 0


def _usage(usage: _Usage | None) -> Usage:
    if usage is None:
        return Usage()
    return Usage(_count_of(usage.prompt_tokens), _count_of(usage.completion_tokens))


def _parse(data: bytes) -> _Answer:
    try:
        return _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise LatticeError("runtime_failed", "The engine's answer is not of OpenAI's shape.") from None


class ModelName:
    """Puts the public model id where the engine wrote its own, and leaves every other byte as it was."""

    def __init__(self, public: str) -> None:
        self._public = public
        self._encoded = msgspec.json.encode(public)
        self._seen: Any = None
        self._patterns: tuple[bytes, ...] = ()

    def rewrite(self, data: bytes, found: Any) -> bytes:
        """`data` with its top-level `model` (which was read as `found`) renamed; absent stays absent."""
        if found is None or found == self._public:
            return data
        if found != self._seen:
            self._seen = found
            written = msgspec.json.encode(found)
            self._patterns = (b'"model":' + written, b'"model": ' + written)
        for pattern in self._patterns:
            # A quote inside a JSON string is escaped, so this can only be a member; one hit is the top-level one.
            if data.count(pattern) == 1:
                return data.replace(pattern, b'"model":' + self._encoded)
        whole = _decode_any(data)
        whole["model"] = self._public
        return msgspec.json.encode(whole)


class StreamRewriter:
    """Follows one streamed answer: payload bytes out, tokens counted, usage and finish reason remembered."""

    def __init__(self, model: str, keep_usage: bool) -> None:
        self._name = ModelName(model)
        self._keep_usage = keep_usage
        self._counted = 0
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.done = False

    @property
    def tokens(self) -> int:
        """Completion tokens so far, never falling: deltas counted, until the engine's own usage says more."""
        return max(self._counted, self.usage.completion_tokens if self.usage else 0)

    @property
    def complete(self) -> bool:
        """Whether the engine ended properly and did not just stop."""
        return self.done or self.finish_reason is not None

    def feed(self, events: list[bytes]) -> bytes:
        """The payload for these events, empty when nothing of them is for the caller."""
        if len(events) == 1:
            return self._event(events[0])
        return b"".join([self._event(event) for event in events])

    def final_usage(self) -> Usage:
        """The usage to bill: the engine's, or the count where it gave none."""
        return self.usage or Usage(completion_tokens=self._counted)

    def _event(self, event: bytes) -> bytes:
        data = event_data(event)
        if data is None or self.done:
            return b""
        if data == b"[DONE]":
            self.done = True
            return b""
        answer = _parse(data)
        if answer.error is not None:
            raise LatticeError("runtime_failed", "The engine reported an error inside its stream.")
        for choice in answer.choices or ():
            self._count(choice)
        if answer.usage is not None:
            self.usage = _usage(answer.usage)
            if not answer.choices and not self._keep_usage:
                return b""
        renamed = self._name.rewrite(data, answer.model)
        return event if renamed is data else b"data: " + renamed + b"\n\n"

    def _count(self, choice: _Choice) -> None:
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason
        delta = choice.delta
        if delta is not None and (
            delta.content
            or delta.tool_calls
            or delta.reasoning_content
            or delta.reasoning
            or delta.function_call
            or delta.refusal
        ):
            self._counted += 1


class WholeReply(msgspec.Struct, frozen=True):
    """A rewritten answer that was not streamed."""

    payload: bytes
    usage: Usage
    finish_reason: str | None


def rewrite_whole(body: bytes, model: str) -> WholeReply:
    """Rename the model in a whole answer and read its usage."""
    answer = _parse(body)
    reasons = [choice.finish_reason for choice in answer.choices or ()]
    payload = ModelName(model).rewrite(body, answer.model)
    return WholeReply(payload, _usage(answer.usage), reasons[0] if reasons else None)


def error_payload(status: int, body: bytes) -> bytes:
    """The engine's refusal in OpenAI's error shape, as it was where it already has it."""
    try:
        error = _decode_any(body)["error"]
        if isinstance(error, dict) and "message" in error:
            return body
        text = error if isinstance(error, str) else ""
    except (msgspec.DecodeError, RecursionError, TypeError, KeyError, UnicodeDecodeError):
        text = ""
    message = text or f"The engine refused the request with HTTP status {status}."
    shape = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return msgspec.json.encode({"error": shape})
