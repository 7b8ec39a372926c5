"""OpenAPI for the hot routes, which are plain ASGI and so unknown to FastAPI."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from lattice.core.relay import RELAY_MEDIA_TYPE
from lattice.sealing.stream import MEDIA_ENVELOPE, MEDIA_REPLY

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_OBJECT = {"schema": {"type": "object", "additionalProperties": True}}


def describe_hot_routes(app: FastAPI) -> None:
    """Make `app`'s document include the inference and relay routes."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = original()
            document["paths"] |= _inference() | _relay()
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def query_parameter(name: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    """A parameter that a handler reads by itself."""
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _inference() -> dict[str, Any]:
    modes = "Plain JSON travels in mode `gateway`; a sealed envelope in mode `end_to_end`, answered in sealed records."
    headers = [
        _header("x-lattice-sealing", "Demand a mode: `gateway` or `end_to_end`. Never downgraded."),
        _header("idempotency-key", "Mode `gateway`: the same key and body get the same answer for 24 hours."),
    ]
    paths = {}
    for path, summary, streamed in (
        ("/v1/chat/completions", "Chat, OpenAI's request and answer", True),
        ("/v1/embeddings", "Embeddings, OpenAI's request and answer", False),
    ):
        answers = {"application/json": _OBJECT, MEDIA_REPLY: _BINARY}
        if streamed:
            answers["text/event-stream"] = {"schema": {"type": "string"}}
        paths[path] = {
            "post": {
                "tags": ["inference"],
                "summary": summary,
                "description": modes,
                "parameters": headers,
                "requestBody": _body({"application/json": _OBJECT, MEDIA_ENVELOPE: _BINARY}),
                "responses": {"200": {"description": "The answer.", "content": answers}},
            }
        }
    return paths


def _relay() -> dict[str, Any]:
    content = {RELAY_MEDIA_TYPE: _BINARY}
    summaries = {
        "poll": "Wait for work, cancellations and drain",
        "frames": "Deliver sealed frames of any number of works",
        "renew": "Keep leases alive",
        "fail": "End an attempt without an answer",
    }
    return {
        f"/v1/relay/{name}": {
            "post": {
                "tags": ["relay"],
                "summary": summary,
                "description": "MessagePack under the runtime credential; docs/reference/relay-protocol.md.",
                "requestBody": _body(content),
                "responses": {"200": {"description": "The gateway's reply.", "content": content}},
            }
        }
        for name, summary in summaries.items()
    }


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": content}


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}
