"""`docs/reference/relay-protocol.md`: the messages, constants and history in `lattice.core.relay`."""

from __future__ import annotations

import ast
import inspect
from typing import Any

from lattice.core import relay
from scripts.pages.markdown import code, heading, one_line, table

SOURCE = "src/lattice/core/relay.py"


def page() -> str:
    """The page."""
    tree = ast.parse(inspect.getsource(relay))
    return "\n".join(
        [
            heading("Relay protocol", SOURCE, _intro(tree)),
            _history(),
            _constants(tree),
            "## Messages\n",
            *(_message(node) for node in tree.body if isinstance(node, ast.ClassDef)),
            _fail_codes(),
        ]
    )


def _intro(tree: ast.Module) -> str:
    first, *rest = (ast.get_docstring(tree) or "").split("\n\n")
    body = "\n\n".join(rest)
    more = "Why it is built like this is told in [The relay](../explanation/relay.md)."
    return f"{first}\n\n{body}\n\nThe media type is `{relay.RELAY_MEDIA_TYPE}`. {more}"


def _history() -> str:
    rows = [
        (f"{version}{' (current)' if version == relay.PROTOCOL_VERSION else ''}", date, meaning)
        for version, (date, meaning) in sorted(relay.PROTOCOL_HISTORY.items(), reverse=True)
    ]
    text = "A poll with a version that the gateway does not speak is refused with `protocol_unsupported`."
    return f"## Versions\n\n{text}\n\n" + table(("version", "date", "what it means"), rows)


def _constants(tree: ast.Module) -> str:
    rows = []
    for index, node in enumerate(tree.body):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        name = node.targets[0].id
        value = getattr(relay, name)
        if isinstance(value, int) and name != "PROTOCOL_VERSION":
            rows.append((code(name), _number(name, value), _docstring_after(tree, index)))
    return "## Times and limits\n\n" + table(("name", "value", "meaning"), rows)


def _number(name: str, value: int) -> str:
    if name.endswith("_MS"):
        return f"{value / 1000:g} s" if value >= 1000 else f"{value} ms"
    return f"{value // 1024**2} MiB" if value % 1024**2 == 0 else str(value)


def _docstring_after(tree: ast.Module, index: int) -> str:
    following = tree.body[index + 1] if index + 1 < len(tree.body) else None
    value: Any = following.value if isinstance(following, ast.Expr) else None
    return one_line(str(value.value)) if isinstance(value, ast.Constant) else ""


def _message(node: ast.ClassDef) -> str:
    rows = [
        (
            code(field.target.id),
            code(ast.unparse(field.annotation)),
            code(ast.unparse(field.value)) if field.value else "required",
        )
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    ]
    return f"### `{node.name}`\n\n{ast.get_docstring(node)}\n\n" + table(("member", "type", "default"), rows)


def _fail_codes() -> str:
    codes = "\n".join(f"- [`{name}`](errors.md#{name})" for name in sorted(relay.FAIL_CODES))
    text = "The codes that a runtime may fail work with. Anything else is reported as `runtime_failed`."
    return f"## Codes of `FailRequest`\n\n{text}\n\n{codes}\n"
