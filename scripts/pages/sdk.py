"""`docs/reference/python-sdk.md`: the public classes of the SDK, out of their own source."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType

from lattice.client import compute, management, records, results, stream, transport
from lattice.client.encrypted import databases, keys, provider, query
from lattice.client.encrypted import results as encrypted
from lattice.core import errors
from scripts.pages.markdown import heading, one_line

SHOWN: tuple[tuple[ModuleType, tuple[str, ...]], ...] = (
    (compute, ("ComputeClient",)),
    (management, ("ManagementClient",)),
    (provider, ("Provider", "Tokens", "Workers")),
    (query, ("QueryClient",)),
    (keys, ("DeviceKeys",)),
    (databases, ("Databases",)),
    (encrypted, ("EncryptedQuery", "EncryptedResult")),
    (transport, ("SealedTransport", "AsyncSealedTransport")),
    (results, ("ChatResult", "EmbeddingsResult", "Delta", "VerifiedReceipt", "Provenance")),
    (stream, ("ChatStream",)),
    (records, ("PersonalRuntime", "Trust")),
    (errors, ("LatticeError",)),
)

_INTRO = """
`from lattice import ComputeClient, QueryClient, SealedTransport, LatticeError`. `AsyncComputeClient`,
`AsyncQueryClient` and `AsyncSealedTransport` have the same methods for asyncio. Everything raises `LatticeError`, whose
`code` is in [Errors](errors.md).

Snippets that use all this: [end to end](../how-to/end-to-end-with-openai-sdk.md), [keys](../how-to/keys-and-limits.md),
[retries](../how-to/retry-safely.md).
"""


def page() -> str:
    """The page."""
    parts = [heading("Python SDK", "the docstrings of src/lattice/client", _INTRO)]
    for module, names in SHOWN:
        classes = {
            node.name: node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)
        }
        parts += [_class(module, classes, classes[name]) for name in names]
    return "\n".join(parts)


def _class(module: ModuleType, classes: dict[str, ast.ClassDef], node: ast.ClassDef) -> str:
    lines = [f"## `{node.name}`\n", f"In `{module.__name__}`. {_doc(node)}\n"]
    lines += [f"- {line}" for line in _members(classes, node)]
    return "\n".join(lines) + "\n"


def _members(classes: dict[str, ast.ClassDef], node: ast.ClassDef) -> Iterator[str]:
    for base in node.bases:  # what a class shares with its siblings is told with each
        if isinstance(base, ast.Name) and base.id in classes and base.id.startswith("_"):
            yield from _members(classes, classes[base.id])
    for member in node.body:
        if isinstance(member, ast.FunctionDef):
            if member.name == "__init__":
                yield f"`{node.name}({_arguments(member)})`"
            elif not member.name.startswith("_"):
                yield f"`{_title(member)}`: {_doc(member)}"
        elif isinstance(member, ast.AnnAssign) and not ast.unparse(member.target).startswith("_"):
            yield f"`{ast.unparse(member.target)}`: `{ast.unparse(member.annotation)}`"
        elif isinstance(member, ast.Assign) and node.name == "Trust":
            yield f"`{ast.unparse(member.value).strip(chr(39))}`"


def _title(node: ast.FunctionDef) -> str:
    if any(isinstance(decorator, ast.Name) and decorator.id == "property" for decorator in node.decorator_list):
        return node.name
    result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{node.name}({_arguments(node)}){result}"


def _arguments(node: ast.FunctionDef) -> str:
    text = ast.unparse(node.args)
    return text.removeprefix("self").removeprefix(", ")


def _doc(node: ast.ClassDef | ast.FunctionDef) -> str:
    return one_line(ast.get_docstring(node) or "")
