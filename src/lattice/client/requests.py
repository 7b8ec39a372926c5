"""Turning the arguments of a call into a request body, and deciding how it may travel. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lattice.client.results import SealingMode
from lattice.client.sealed import Task
from lattice.core.chat import RequestShape, parse_shape
from lattice.core.errors import LatticeError
from lattice.core.models import PersonalTarget, parse_model

PATHS: dict[Task, str] = {"chat": "/chat/completions", "embeddings": "/embeddings"}


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One inference request. `runtime_id` is set where the work must be sealed to that machine."""

    task: Task
    shape: RequestShape
    body: bytes
    demanded: SealingMode | None = None
    runtime_id: str | None = None
    idempotency_key: str | None = None
    timeout_s: float | None = None

    @property
    def path(self) -> str:
        """The route."""
        return PATHS[self.task]

    @property
    def streamed(self) -> bool:
        """Whether the answer is a stream of chunks."""
        return bool(self.shape.stream) and self.task == "chat"

    def __repr__(self) -> str:
        return f"Ask({self.task}, {self.shape.model!r})"


def chat_body(model: str, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any], stream: bool) -> bytes:
    """An OpenAI chat body. Every option passes through as it is; only `stream` is ours to set."""
    if "stream" in options:
        raise LatticeError("invalid_request", "`stream` is chosen by the method: `chat_stream` streams.")
    body = {"model": model, "messages": messages, **options}
    return _encode({**body, "stream": True} if stream else body)


def embeddings_body(model: str, inputs: Any, options: Mapping[str, Any]) -> bytes:
    """An OpenAI embeddings body."""
    return _encode({"model": model, "input": inputs, **options})


def make_ask(
    task: Task,
    body: bytes,
    *,
    sealing: SealingMode | None = None,
    idempotency_key: str | None = None,
    timeout_s: float | None = None,
) -> Ask:
    """Judge a body and choose its mode: a named machine is sealed to end to end unless the caller says `gateway`."""
    if sealing not in (None, "end_to_end", "gateway"):
        raise LatticeError("sealing_mode_unavailable", "The mode must be `end_to_end` or `gateway`.")
    shape = parse_shape(body)
    target = parse_model(shape.model)
    machine = target.runtime_id if isinstance(target, PersonalTarget) else None
    if sealing == "end_to_end" and machine is None:
        raise LatticeError(
            "sealing_mode_unavailable", "Only a named machine (`lattice:personal:…`) can be sealed to end to end."
        )
    sealed = machine is not None and sealing != "gateway"
    return Ask(
        task=task,
        shape=shape,
        body=body,
        demanded="end_to_end" if sealed else sealing,
        runtime_id=machine if sealed else None,
        idempotency_key=idempotency_key,
        timeout_s=timeout_s,
    )


def _encode(body: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise LatticeError(
            "invalid_request", f"An argument cannot be written as JSON ({type(error).__name__})."
        ) from None
