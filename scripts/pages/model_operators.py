"""`docs/reference/model-operators.md`: what the model compiler takes, from its own catalogue."""

from __future__ import annotations

from lattice.fhe.compiler.catalogue import FRAMEWORKS, OPERATORS, Row, Support
from scripts.pages.markdown import code, heading, table

SOURCE = "src/lattice/fhe/compiler/catalogue.py"

_INTRO = """
Every operator that the compiler of encrypted models knows. The importers read this very table, and a model is refused,
with everything unsupported in it listed at once, rather than compiled without a part. `lattice models check` says the
same of one model.
"""

_MEANINGS = {
    Support.ENCRYPTED: "Computed under encryption.",
    Support.FOLDED: "Merged into the layers beside it when compiling; costs nothing at run time.",
    Support.BEFORE: "Done by the client on the features, in the clear, before it encrypts.",
    Support.AFTER: "Done by the client on the results, in the clear, after it decrypts.",
    Support.NO: "Refused.",
}


def page() -> str:
    """The page."""
    parts = [heading("Model operators", SOURCE, _INTRO)]
    parts.append("\n## How an operator may be supported\n\n")
    parts.append(table(("where", "meaning"), [(str(support), meaning) for support, meaning in _MEANINGS.items()]))
    for framework, title in FRAMEWORKS.items():
        rows = [row for row in OPERATORS if row.framework == framework]
        parts.append(f"\n## {title}\n\n")
        parts.append(_supported([row for row in rows if row.support is not Support.NO]))
        parts.append("\nNot supported:\n\n")
        parts.append(_refused([row for row in rows if row.support is Support.NO]))
    return "".join(parts)


def _supported(rows: list[Row]) -> str:
    order = list(Support)
    rows = sorted(rows, key=lambda row: (order.index(row.support), row.name))
    return table(("operator", "where", "limits"), [(code(row.name), str(row.support), row.limits) for row in rows])


def _refused(rows: list[Row]) -> str:
    return table(("operator", "what to use instead"), [(code(row.name), row.instead) for row in sorted(rows)])
