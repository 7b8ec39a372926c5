"""The operations of a graph. Linear ones can be asked for their matrix, which is all that packing looks at.

After the passes a graph has `Dense`, `Matrix`, `Convolution`, `AveragePool`, `Affine`, `Permute`, `Reshape` (all
`Linear`), `Sum`, `Difference`, `Product`, `Square` and `Series`. `Activation`, `Composite` and `Power` come before
calibration; `activations` turns them into `Series`.
"""

from lattice.fhe.compiler.operations.activation import FUNCTIONS, Activation, Composite, Power, Series, Square
from lattice.fhe.compiler.operations.affine import Affine
from lattice.fhe.compiler.operations.convolution import Convolution
from lattice.fhe.compiler.operations.dense import Dense, Matrix
from lattice.fhe.compiler.operations.layout import Permute, Reshape
from lattice.fhe.compiler.operations.pair import Difference, Product, Sum
from lattice.fhe.compiler.operations.pool import AveragePool
from lattice.fhe.compiler.operations.sparse import Indices, Linear, Sparse

__all__ = [
    "FUNCTIONS",
    "Activation",
    "Affine",
    "AveragePool",
    "Composite",
    "Convolution",
    "Dense",
    "Difference",
    "Indices",
    "Linear",
    "Matrix",
    "Permute",
    "Power",
    "Product",
    "Reshape",
    "Series",
    "Sparse",
    "Square",
    "Sum",
]
