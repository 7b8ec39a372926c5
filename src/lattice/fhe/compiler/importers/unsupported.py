"""Everything in a model that cannot be compiled, gathered so that it is reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import catalogue

SHOWN = 8
"""Names of nodes that a message shows of one operator."""


@dataclass
class Finding:
    """One operator that fails for one reason, and where it occurs."""

    operator: str
    reason: str
    instead: str
    nodes: list[str] = field(default_factory=list)

    @property
    def data(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "operator": self.operator,
            "nodes": self.nodes[:100],
            "count": len(self.nodes),
            "reason": self.reason,
            "instead": self.instead,
        }

    def __str__(self) -> str:
        names = ", ".join(self.nodes[:SHOWN]) + (", …" if len(self.nodes) > SHOWN else "")
        instead = f" Instead: {self.instead}" if self.instead else ""
        return f"{self.operator} ({len(self.nodes)}×: {names}): {self.reason}{instead}"


class Findings:
    """A list that grows while a model is read and is raised at the end."""

    def __init__(self, framework: str) -> None:
        self.framework = framework
        self.all: list[Finding] = []

    def add(self, operator: str, node: str, reason: str | None = None) -> None:
        """Note that this node cannot be compiled; without a reason, that the operator never can."""
        row = catalogue.find(self.framework, operator)
        if reason is None:
            reason = "it has no encrypted form." if row else "the compiler does not know this operator."
        instead = row.instead if row else ""
        for finding in self.all:
            if (finding.operator, finding.reason) == (operator, reason):
                finding.nodes.append(node)
                return
        self.all.append(Finding(operator, reason, instead, [node]))

    def raise_any(self, operators: Mapping[str, int]) -> None:
        """Raise `model_unsupported` with every finding, if there is one, and the counts of all operators."""
        if self.all:
            count = sum(len(finding.nodes) for finding in self.all)
            head = f"{count} node{'s' if count > 1 else ''} of the model cannot be compiled."
            message = "\n".join([head, *(f"- {finding}" for finding in self.all)])
            details = {"unsupported": [finding.data for finding in self.all], "operators": dict(operators)}
            raise LatticeError("model_unsupported", message, details=details)
