"""scikit-learn models: fitted objects are recognised by their class's name and read by their attributes, so that
scikit-learn itself is not needed here. Nothing is unpickled: the caller has the object already."""

from lattice.fhe.compiler.importers.sklearn.model import is_sklearn, load_sklearn
from lattice.fhe.compiler.importers.sklearn.neighbours import similarity

__all__ = ["is_sklearn", "load_sklearn", "similarity"]
