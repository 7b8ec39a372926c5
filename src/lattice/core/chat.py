"""The few members of an OpenAI-style request that Lattice itself reads; every other member passes through untouched."""

from __future__ import annotations

from typing import Any

import msgspec

from lattice.core.errors import LatticeError


class StreamOptions(msgspec.Struct, frozen=True):
    """`stream_options` of a chat request."""

    include_usage: bool | None = None


class RequestShape(msgspec.Struct, frozen=True):
    """What routing and metering need from a body: never its messages."""

    model: str
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stream_options: StreamOptions | None = None

    @property
    def max_output_tokens(self) -> int | None:
        """The caller's own ceiling, under either of OpenAI's names, the stricter where both are given."""
        given = [x for x in (self.max_completion_tokens, self.max_tokens) if x is not None]
        return min(given) if given else None

    @property
    def choices(self) -> int:
        """How many answers are asked for."""
        return 1 if self.n is None else self.n


_decoder = msgspec.json.Decoder(RequestShape)
_any_decoder = msgspec.json.Decoder()


def parse_shape(body: bytes) -> RequestShape:
    """Read the shape of a request body, or raise `invalid_request` naming the member; never echoes the body."""
    try:
        shape = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise LatticeError("invalid_request", f"The body is not valid: {error}.") from None
    except RecursionError:
        raise LatticeError("invalid_request", "The body is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise LatticeError("invalid_request", "The body is not valid JSON.") from None
    if shape.max_output_tokens is not None and shape.max_output_tokens < 1:
        raise LatticeError("invalid_request", "`max_tokens` must be at least 1.")
    if not 1 <= shape.choices <= 128:
        raise LatticeError("invalid_request", "`n` must be from 1 to 128.")
    return shape


def parse_object(body: bytes) -> dict[str, Any]:
    """Decode a whole JSON object, with the same errors as `parse_shape`."""
    try:
        value = _any_decoder.decode(body)
    except RecursionError:
        raise LatticeError("invalid_request", "The body is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise LatticeError("invalid_request", "The body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise LatticeError("invalid_request", "The body must be a JSON object.")
    return value


class Usage(msgspec.Struct, frozen=True):
    """Token counts of one answer, OpenAI's names."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Both counts together."""
        return self.prompt_tokens + self.completion_tokens
