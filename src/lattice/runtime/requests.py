"""What changes in a caller's request before the engine gets it; every other member passes through untouched."""

from __future__ import annotations

from typing import Any

CEILINGS = ("max_tokens", "max_completion_tokens", "n_predict")
"""Every name under which engines take an output ceiling (`n_predict` is llama.cpp's and would override the others)."""


def wants_usage(body: dict[str, Any]) -> bool:
    """Whether the caller asked for a usage event at the end of the stream."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def prepare_chat(body: dict[str, Any], model: str, max_output_tokens: int, stream: bool) -> None:
    """Name the local model, hold the ceiling, and make a stream report its usage. Changes `body`."""
    body["model"] = model
    cap_output(body, max_output_tokens)
    if stream:
        body["stream"] = True
        options = body.get("stream_options")
        body["stream_options"] = (
            {**options, "include_usage": True} if isinstance(options, dict) else {"include_usage": True}
        )
    elif body.get("stream"):
        body["stream"] = False
        body.pop("stream_options", None)


def cap_output(body: dict[str, Any], ceiling: int) -> None:
    """Lower every ceiling that is given to `ceiling`, and set `max_tokens`, which every engine honours."""
    for member in CEILINGS:
        given = body.get(member)
        if member in body or member == "max_tokens":
            fits = isinstance(given, int) and not isinstance(given, bool) and 0 < given <= ceiling
            body[member] = given if fits else ceiling
    given_limit = body.get("max_completion_tokens")
    if isinstance(given_limit, int):
        body["max_tokens"] = min(body["max_tokens"], given_limit)
