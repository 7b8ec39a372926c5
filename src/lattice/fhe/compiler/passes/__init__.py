"""Passes: graphs in, equivalent and smaller graphs out. Nothing is approximated here."""

from lattice.fhe.compiler.passes.simplify import simplify
from lattice.fhe.compiler.passes.validate import validate

__all__ = ["simplify", "validate"]
