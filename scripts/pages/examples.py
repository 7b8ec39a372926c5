"""What the gateway really answers, for the REST page: calls made in order on a fresh database."""

from __future__ import annotations

import json
import re

import httpx2

_SHORTEN = (
    (re.compile(r"\b(acc|key|lat|ent|req|gw)_[0-9a-hjkmnp-tv-z]{26}\b"), r"\1_…"),
    (re.compile(r"\b(sk_lat|lbt)_[A-Za-z0-9_-]+"), r"\1_…"),
)


async def example_answers(http: httpx2.AsyncClient, owner: str, account: str) -> list[tuple[str, str]]:
    """`(call, JSON)` of routes whose answers readers want to see. The gateway holds only what these make."""
    headers = {"authorization": f"Bearer {owner}"}
    calls = [
        ("POST", "/v1/personal-runtimes", {"name": "laptop"}),
        ("POST", "/v1/credits/grants", {"account": account, "amount_micro": 1_000_000, "reason": "welcome"}),
        ("GET", "/v1/key", None),
        ("GET", "/v1/credits", None),
        ("GET", "/v1/ledger/entries", None),
        ("GET", "/v1/models", None),
        ("GET", "/healthz", None),
    ]
    answers = []
    for method, path, body in calls:
        answer = await http.request(method, path, json=body, headers=headers)
        if answer.status_code < 300:
            shown = f" {json.dumps(body)}" if body is not None else ""
            answers.append((_shorten(f"{method} {path}{shown}"), _shorten(_pretty(answer))))
    return answers


def _pretty(answer: httpx2.Response) -> str:
    return json.dumps(answer.json(), indent=2, ensure_ascii=False)


def _shorten(text: str) -> str:
    for pattern, shown in _SHORTEN:
        text = pattern.sub(shown, text)
    return text
