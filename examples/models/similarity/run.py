"""Finds the images most like a query without seeing the query: `python -m examples.models.similarity.run --samples 3`.

The database is 50,000 vectors of 128 numbers, in the clear at the server; it returns every score, encrypted, and the
client keeps the best. There is nothing to train: the vectors are principal components, and the digit of the nearest
image is the answer, right for 97 of 100 images.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from examples.models.data import similarity
from examples.models.example import Example, Real, main
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lattice.fhe.compiler.compiled import Compiled


class Search(Example):
    """An example whose model is its data."""

    def clear(self, samples: Real, scores: bool = False) -> Real:
        """Cosines with every row."""
        return samples @ self.data().train.T

    def labels(self, values: Real, threshold: float | None = None) -> NDArray[np.int64]:
        """The digit of the nearest row."""
        return self.data().train_labels[values.argmax(axis=1)]

    def compile(self, **options: Any) -> "Compiled":
        """Every score comes back; `best` would let the client keep the largest only."""
        from lattice.fhe.compiler.packing.similarity import compile_similarity

        return compile_similarity(self.data().train, metric="cosine", **{"best": None, **options})


EXAMPLE = Search(Path(__file__).parent, similarity.load)

if __name__ == "__main__":
    main(EXAMPLE)
