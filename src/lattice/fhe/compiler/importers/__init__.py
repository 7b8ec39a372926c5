"""Importers: a trained model of another framework in, `Imported` (graph, client steps) out. Nothing of it is run."""

from lattice.fhe.compiler.importers.imported import Imported
from lattice.fhe.compiler.importers.load import load

__all__ = ["Imported", "load"]
