"""`lattice chat`: one question, one answer, and how it travelled."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

from lattice.cli.common import DEFAULT, Common
from lattice.cli.output import console, show

if TYPE_CHECKING:
    from lattice.client.results import ChatResult
    from lattice.client.stream import ChatStream

_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
"""A model's answer must not move the cursor or retitle the terminal."""


def chat(
    model: str,
    prompt: str,
    /,
    *,
    system: str | None = None,
    sealing: Literal["end_to_end", "gateway"] | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    common: Common = DEFAULT,
) -> None:
    """Ask a model and print its answer as it is made. A named machine is sealed to end to end by default.

    Parameters
    ----------
    model
        A machine's id, `lattice:personal:<id>`, or a model of `GET /v1/models` such as lattice:smollm2-135m-instruct.
    prompt
        The question; - reads it from standard input.
    system
        Instructions for the model.
    sealing
        Demand a mode. It is never downgraded.
    max_tokens
        The longest answer.
    temperature
        How much the model varies its answers.
    """
    with common.client() as client:
        from lattice.core.models import personal_model

        named = personal_model(model) if model.startswith("lat_") else model
        question = sys.stdin.read() if prompt == "-" else prompt
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": question})
        given = {"max_tokens": max_tokens, "temperature": temperature}
        options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if common.json:
            result = client.chat_complete(named, messages, sealing=sealing, **options)
            show({"text": result.text, **provenance(result)}, True, lambda out: None)
            return
        with client.chat_stream(named, messages, sealing=sealing, **options) as stream:
            for delta in stream:
                sys.stdout.write(delta.text.translate(_CONTROLS) if sys.stdout.isatty() else delta.text)
                sys.stdout.flush()
            sys.stdout.write("\n")
        console(stderr=True).print(footer(stream), style="dim")


def provenance(answer: ChatResult | ChatStream) -> dict[str, Any]:
    """How an answer travelled, for programs."""
    usage = answer.usage
    return {
        "sealing": answer.sealing,
        "runtime": answer.runtime,
        "work_id": answer.work_id,
        "request_id": answer.request_id,
        "usage": None
        if usage is None
        else {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens},
        "receipt": None if answer.receipt is None else answer.receipt.as_dict(),
    }


def footer(answer: ChatResult | ChatStream) -> str:
    """The same in one line, for people."""
    parts = [f"sealed: {answer.sealing}"]
    if answer.runtime:
        parts.append(answer.runtime)
    if answer.usage:
        parts.append(f"{answer.usage.prompt_tokens} + {answer.usage.completion_tokens} tokens")
    if answer.receipt is not None and answer.receipt.verified:
        parts.append("receipt verified")
    return " · ".join(parts)
