"""`docs/reference/rest.md`: the routes of a gateway that was opened for the purpose, with what each asks of a key.

Nothing is written down twice: the routes come from the running application, and the scope of each is what the gateway
itself says in `needs` to a key that lacks it.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2

from lattice.core.clock import ManualClock
from lattice.core.ids import Prefix, new_id
from lattice.gateway.app import make_app, open_gateway
from lattice.gateway.identity.keys import NewKey, create_key
from lattice.gateway.identity.scopes import Scope
from lattice.gateway.settings import GatewaySettings
from scripts.pages.examples import example_answers
from scripts.pages.markdown import code, heading, one_line, table

SOURCE = "the routes of src/lattice/gateway"

HOT = {
    "/v1/chat/completions": ("inference", "OpenAI's chat completions, streamed or not; sealed work too."),
    "/v1/embeddings": ("inference", "OpenAI's embeddings; sealed work too."),
    "/v1/relay/poll": ("relay", "Hold a poll until there is work; see the relay protocol."),
    "/v1/relay/frames": ("relay", "Bring reply frames."),
    "/v1/relay/renew": ("relay", "Keep leases alive."),
    "/v1/relay/fail": ("relay", "End an attempt without an answer."),
}
"""The routes on the hot path. They stand outside the framework that makes OpenAPI, so their purpose is said here."""

_SAMPLES: dict[str, Any] = {"integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}}
_NO_KEY = "none"
_ANY_KEY = "any key"
_RUNTIME = "runtime credential"
_TOKEN = "access token"  # noqa: S105


class Route(NamedTuple):
    """One route as the page shows it."""

    group: str
    method: str
    path: str
    needs: str
    purpose: str
    inputs: list[tuple[str, str, str, str]]


def page() -> str:
    """The page."""
    routes, answers = asyncio.run(_explore())
    parts = [heading("REST", SOURCE, _INTRO), _headers()]
    for group in dict.fromkeys(route.group for route in routes):
        members = [route for route in routes if route.group == group]
        rows = [(code(f"{r.method} {r.path}"), r.needs, r.purpose) for r in members]
        parts.append(f"\n## {group[0].upper()}{group[1:]}\n\n" + table(("route", "credential", "purpose"), rows))
        parts += [_inputs(route) for route in members if route.inputs]
    parts.append("\n## Example answers\n\nIds and secrets are shortened; times are of a clock that stands still.\n")
    parts += [f"\n`{call}`\n\n```json\n{body}\n```\n" for call, body in answers]
    return "".join(parts)


def _headers() -> str:
    asked = table(("header", "on", "meaning"), _REQUEST_HEADERS)
    given = table(("header", "meaning"), _ANSWER_HEADERS)
    return f"\n## Headers of requests\n\n{asked}\n## Headers of answers\n\n{given}"


def _inputs(route: Route) -> str:
    return f"\n`{route.method} {route.path}` takes:\n\n" + table(("name", "in", "type", "meaning"), route.inputs)


async def _explore() -> tuple[list[Route], list[tuple[str, str]]]:
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as folder:
        gateway, owner = await open_gateway(GatewaySettings(data_dir=Path(folder)), clock)
        try:
            weak = NewKey(
                account_id=owner.account_id if owner else "", name="weak", scopes=frozenset({str(Scope.MARKETPLACE)})
            )
            _, secret = await gateway.store.write(create_key, gateway.pepper, weak, clock.now_ms())
            app = make_app(gateway)
            _require_purposes(app)
            transport = httpx2.ASGITransport(app=app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as http:
                schema = (await http.get("/openapi.json")).json()
                routes = [await _probe(http, secret, *found) for found in _found(schema)]
                answers = await example_answers(http, owner.secret if owner else "", owner.account_id if owner else "")
        finally:
            await gateway.encrypted.close()
            await gateway.store.close()
    return routes, answers


def _require_purposes(app: Any) -> None:
    served = set(app._app.hot) - app._app.shared  # the others are in the schema
    if served != set(HOT):
        raise SystemExit(f"scripts/pages/rest.py must say what {sorted(served ^ set(HOT))} is for")


def _found(schema: dict[str, Any]) -> Iterator[tuple[str, str, str, str, dict[str, Any], dict[str, Any]]]:
    components = schema.get("components", {}).get("schemas", {})
    for path, (group, purpose) in HOT.items():
        yield group, "POST", path, purpose, {}, components
    for path, methods in schema["paths"].items():
        if path in HOT:
            continue
        for method, operation in methods.items():
            group = (operation.get("tags") or ["other"])[0]
            yield group, method.upper(), path, operation.get("description", ""), operation, components


async def _probe(
    http: httpx2.AsyncClient,
    weak: str,
    group: str,
    method: str,
    path: str,
    purpose: str,
    operation: dict[str, Any],
    components: dict[str, Any],
) -> Route:
    inputs = list(_described(operation, components))
    return Route(group, method, path, await _needs(http, weak, method, path, inputs), one_line(purpose), inputs)


async def _needs(
    http: httpx2.AsyncClient, weak: str, method: str, path: str, inputs: list[tuple[str, str, str, str]]
) -> str:
    if path.startswith("/v1/relay/"):
        return _RUNTIME
    url = re.sub(r"\{\w+(:path)?\}", new_id(Prefix.RUNTIME, 0), path)
    body = {name: _sample(kind) for name, place, kind, _ in inputs if place == "body, required"}
    sent = body if method in ("POST", "PUT", "PATCH") else None
    anonymous = await http.request(method, url, json=sent)
    if anonymous.status_code != 401 or _code(anonymous) != "invalid_credential":
        return _NO_KEY
    refused = await http.request(method, url, json=sent, headers={"authorization": f"Bearer {weak}"})
    if refused.status_code == 401:
        return _TOKEN
    if refused.status_code != 403:
        return _ANY_KEY
    needs = " or ".join(code(scope) for scope in _error(refused)["needs"].split(" or "))
    return f"{needs}, or {_TOKEN}" if path.startswith("/v1/uploads") else needs


def _sample(kind: str) -> Any:
    return next((value for name, value in _SAMPLES.items() if kind.startswith(name)), "x")


def _error(answer: httpx2.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    inner = body.get("error")
    return inner if isinstance(inner, dict) else body


def _code(answer: httpx2.Response) -> str:
    found = _error(answer)
    return str(found.get("code") or found.get("error"))


def _described(operation: dict[str, Any], components: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for parameter in operation.get("parameters", ()):
        if parameter["in"] != "path":
            yield parameter["name"], parameter["in"], _kind(parameter["schema"]), parameter.get("description", "")
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    model = components.get(content.get("$ref", "").rpartition("/")[2], {})
    for name, member in model.get("properties", {}).items():
        place = "body, required" if name in model.get("required", ()) else "body"
        yield name, place, _kind(member), member.get("description", "")


def _kind(schema: dict[str, Any]) -> str:
    options = [o for o in schema.get("anyOf", [schema]) if o.get("type") != "null"]
    kinds = []
    for option in options:
        kind = option.get("type", "any")
        if kind == "array":
            kind = f"array of {option.get('items', {}).get('type', 'any')}"
        limits = [f"{sign} {option[name]:.0f}" for name, sign in _LIMITS.items() if name in option]
        kinds.append(", ".join([kind, *limits]))
    return " or ".join(kinds)


_LIMITS = {
    "minimum": "≥",
    "maximum": "≤",
    "exclusiveMinimum": ">",
    "minLength": "length ≥",
    "maxLength": "length ≤",
}

_INTRO = """
All bodies are JSON in UTF-8, except where a media type is named. Times are milliseconds since the Unix epoch, in
members that end in `_ms`. Money is a whole number of micro-credits, in members that end in `_micro`; a credit is
1,000,000 of them. Binary values are unpadded base64url. Lists are `{"data": […], "next_cursor": "…" or null}`; pass
the cursor back as `?cursor=`, and `?limit=` for the size of a page. Failures are in [Errors](errors.md).

A credential goes into `Authorization: Bearer …`, or into `x-api-key`. The tables say which scope it must have; *any
key* means that every live key may call the route; *access token* is an end user's `eut_…`. The scopes were read off
the gateway's own refusals.

The gateway serves its OpenAPI 3.1 document at `/openapi.json`. The inference and relay routes are not in it: they run
outside the framework that makes it. Their bodies are OpenAI's, and the [relay protocol](relay-protocol.md).
"""

_REQUEST_HEADERS = (
    ("`authorization`, `x-api-key`", "every route", "The credential."),
    (
        "`idempotency-key`",
        "plain inference; every POST that creates something",
        "1 to 255 printable characters. See [Retry safely](../how-to/retry-safely.md).",
    ),
    (
        "`x-lattice-sealing`",
        "inference",
        "`gateway` or `end_to_end`: demand a mode. It is refused where it can't be had, never lowered.",
    ),
    (
        "`content-type: application/vnd.lattice.sealed-work`",
        "inference",
        "The body is a sealed envelope ([its layout](../../spec/sealed-work.md)).",
    ),
)

_ANSWER_HEADERS = (
    ("`x-request-id`", "The request's id. Quote it in a report."),
    ("`x-lattice-runtime`", "The machine that answered."),
    ("`x-lattice-sealing`", "`gateway` or `end_to_end`: the mode in which this request travelled."),
    ("`x-lattice-work`", "The id of the unit of work, which receipts, usage and ledger entries name too."),
    ("`x-lattice-query`", "The id of the encrypted query whose result this is."),
    ("`x-lattice-version`", "The version of the model that computed it."),
    ("`x-lattice-receipt`", "The receipt of the worker that evaluated the encrypted query, signed; base64url."),
    ("`server-timing`", "Where an encrypted query's time went, in milliseconds: `body`, `queue`, `worker`, `total`."),
    ("`x-lattice-max-output-tokens`", "The output ceiling that was enforced."),
    ("`x-lattice-gateway-ms`", "Milliseconds that the gateway itself took, without the machine's time."),
    ("`x-lattice-replayed`", "`true`: a kept answer to a repeated request; nothing ran."),
    ("`x-should-retry`", "On errors: whether repeating the identical request is safe and may succeed."),
    ("`retry-after`", "On errors: seconds to wait, where that is known."),
)
