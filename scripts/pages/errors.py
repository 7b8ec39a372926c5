"""`docs/reference/errors.md`: the error catalogue, in the file's own groups."""

from __future__ import annotations

import json
import re

from lattice.core.errors import LatticeError, catalogue
from scripts.pages.markdown import heading, table
from scripts.pages.places import ROOT

SOURCE = "spec/errors.toml"

_GROUP = re.compile(r"^# --- (.+?) -+$|^\[(\w+)\]$", re.MULTILINE)
_OPENAI_CLASSES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}

_INTRO = """
Every failure has a stable code. HTTP bodies, SDK exceptions, command-line messages and this page come from one table.
Branch on the code; the message is for people and may change.

Lattice's own routes answer like this:

```json
{flat}
```

The OpenAI-compatible routes answer in OpenAI's shape, with the same code in `error.code`, so that its SDKs raise
their own classes:

```json
{nested}
```

Inside a stream an error is an event, `data: {{"error": …}}`, and `data: [DONE]` never follows it.

*Retry* says whether repeating the identical request is safe and may succeed. It is sent as `x-should-retry`, which
OpenAI's SDKs obey. Where a wait is known it is sent as `Retry-After` (seconds) and `retryAfterMs`. Some errors carry
more members: `needs` (the missing scope), `candidates` (a reason for each machine), `key_config` (the work key to
seal to), `supported` (protocol versions).

A running gateway serves this table at `/docs/errors`, which is where `doc` points.
"""


def page() -> str:
    """The page."""
    error = LatticeError("personal_lattice_not_found", request_id="req_…")
    intro = _INTRO.format(flat=_json(error.body()), nested=_json(error.openai_body()))
    parts = [heading("Errors", SOURCE, intro)]
    for title, codes in _groups():
        parts.append(f"\n## {title[0].upper()}{title[1:]}\n")
        parts += [_entry(code) for code in codes]
    return "".join(parts)


def _entry(name: str) -> str:
    spec = catalogue()[name]
    fallback = "InternalServerError" if spec.status >= 500 else "APIStatusError"
    openai_class = _OPENAI_CLASSES.get(spec.status, fallback)
    facts = table(
        ("status", "`error.type`", "OpenAI SDK", "retry"),
        [(str(spec.status), f"`{spec.type}`", f"`{openai_class}`", "yes" if spec.retry else "no")],
    )
    return f"\n### `{name}`\n\n{spec.meaning}\n\n**What to do:** {spec.remedy}\n\n{facts}"


def _groups() -> list[tuple[str, list[str]]]:
    groups: list[tuple[str, list[str]]] = []
    for title, code in _GROUP.findall((ROOT / SOURCE).read_text("utf-8")):
        if title:
            groups.append((title, []))
        else:
            groups[-1][1].append(code)
    return groups


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
