"""What the clients return. No repr shows a prompt or an answer."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from lattice.core.chat import Usage
from lattice.sealing.receipt import Receipt, SignedReceipt

SealingMode: TypeAlias = Literal["end_to_end", "gateway", "none"]


class VerifiedReceipt(msgspec.Struct, frozen=True):
    """A receipt whose signature, hashes and usage were checked here; an unchecked one is never handed out."""

    receipt: Receipt
    signed: SignedReceipt
    verified: bool = True

    @property
    def usage(self) -> Usage:
        """The tokens that the machine signed for."""
        return self.receipt.usage

    def as_dict(self) -> dict[str, Any]:
        """The receipt as JSON-ready values, with the check's outcome."""
        fields: dict[str, Any] = msgspec.to_builtins(self.receipt)
        return {**fields, "verified": self.verified}


class Provenance(msgspec.Struct, kw_only=True):
    """Who answered, how it was sealed, and what was counted. Of a stream, complete only after its end."""

    sealing: SealingMode = "none"
    runtime: str | None = None
    work_id: str | None = None
    request_id: str | None = None
    usage: Usage | None = None
    receipt: VerifiedReceipt | None = None


class _Answered:
    """The members that every kind of result shares."""

    def __init__(self, raw: dict[str, Any], provenance: Provenance) -> None:
        self.raw = raw
        self._provenance = provenance

    @property
    def sealing(self) -> SealingMode:
        """The mode in which this request travelled."""
        return self._provenance.sealing

    @property
    def runtime(self) -> str | None:
        """The id of the machine that answered."""
        return self._provenance.runtime

    @property
    def work_id(self) -> str | None:
        """The id of the unit of work."""
        return self._provenance.work_id

    @property
    def request_id(self) -> str | None:
        """The gateway's id of the request: quote it in a bug report."""
        return self._provenance.request_id

    @property
    def usage(self) -> Usage | None:
        """The counted tokens."""
        return self._provenance.usage

    @property
    def receipt(self) -> VerifiedReceipt | None:
        """The machine's receipt, verified; only the mode `end_to_end` has one."""
        return self._provenance.receipt

    @property
    def model(self) -> str | None:
        """The model that the answer names."""
        value = self.raw.get("model")
        return value if isinstance(value, str) else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(work_id={self.work_id!r}, runtime={self.runtime!r}, sealing={self.sealing!r})"


class ChatResult(_Answered):
    """A whole answer. `raw` is the OpenAI-shaped object as the engine made it."""

    @property
    def message(self) -> dict[str, Any]:
        """The first choice's message, as a request's `messages` takes it."""
        message = _first_choice(self.raw).get("message")
        return message if isinstance(message, dict) else {}

    @property
    def text(self) -> str:
        """The first choice's text; empty when it is only tool calls."""
        content = self.message.get("content")
        return content if isinstance(content, str) else ""

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tool calls that the model asks for."""
        return self.message.get("tool_calls") or []

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped."""
        return _first_choice(self.raw).get("finish_reason")


class EmbeddingsResult(_Answered):
    """Vectors, in the order of the input."""

    @property
    def vectors(self) -> list[list[float]]:
        """One vector for each input (a base64 string where `encoding_format` asked for that)."""
        return [item["embedding"] for item in self.raw.get("data", [])]


class Delta(msgspec.Struct, frozen=True):
    """One chunk of a stream. `raw` is the OpenAI-shaped chunk."""

    raw: dict[str, Any]

    @property
    def text(self) -> str:
        """What this chunk adds to the first choice's text."""
        content = self._delta.get("content")
        return content if isinstance(content, str) else ""

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """Pieces of tool calls in this chunk."""
        return self._delta.get("tool_calls") or []

    @property
    def finish_reason(self) -> str | None:
        """Why the model stopped, on the chunk that says so."""
        return _first_choice(self.raw).get("finish_reason")

    @property
    def _delta(self) -> dict[str, Any]:
        delta = _first_choice(self.raw).get("delta")
        return delta if isinstance(delta, dict) else {}

    def __repr__(self) -> str:
        return f"Delta(finish_reason={self.finish_reason!r})"


class Page(msgspec.Struct, frozen=True):
    """One page of a list; `next_cursor` is None on the last one."""

    data: list[dict[str, Any]]
    next_cursor: str | None = None


def usage_of(raw: dict[str, Any]) -> Usage | None:
    """The usage that an answer or a chunk reports."""
    usage = raw.get("usage")
    if not isinstance(usage, dict):
        return None
    counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    return Usage(*(c if isinstance(c, int) else 0 for c in counts))


def _first_choice(raw: dict[str, Any]) -> dict[str, Any]:
    choices = raw.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else {}
    return first if isinstance(first, dict) else {}
