"""Passes: graphs in, equivalent and smaller graphs out. Nothing is approximated here."""

from lattice.fhe.compiler.passes.series import lowered
from lattice.fhe.compiler.passes.simplify import simplify
from lattice.fhe.compiler.passes.validate import validate

__all__ = ["lowered", "simplify", "validate"]
