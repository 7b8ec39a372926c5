"""Functions of one number: exact ones (`Square`, `Power`), fitted ones (`Series`) and those still to be fitted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lattice.fhe.compiler.graph import Graph, Real, Shape
from lattice.fhe.compiler.operations.sizes import refusal

_erf = np.frompyfunc(math.erf, 1, 1)


def _error_function(x: Real) -> Real:
    return np.asarray(_erf(x), dtype=np.float64)


def _sigmoid(x: Real) -> Real:
    # tanh never overflows, e^−x does.
    return 0.5 + 0.5 * np.tanh(x / 2)


def _softplus(x: Real) -> Real:
    return np.logaddexp(0.0, x)


def _elu(x: Real, alpha: float) -> Real:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _gelu_tanh(x: Real) -> Real:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))), dtype=np.float64)


FUNCTIONS: dict[str, Callable[..., Real]] = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x, alpha: np.where(x > 0, x, alpha * x),
    "gelu": lambda x: 0.5 * x * (1 + _error_function(x / math.sqrt(2))),
    "gelu_tanh": _gelu_tanh,
    "sigmoid": _sigmoid,
    "hard_sigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "tanh": np.tanh,
    "softplus": _softplus,
    "softsign": lambda x: x / (1 + np.abs(x)),
    "silu": lambda x: x * _sigmoid(x),
    "hard_swish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "mish": lambda x: x * np.tanh(_softplus(x)),
    "elu": _elu,
    "selu": lambda x, alpha, gamma: gamma * _elu(x, alpha),
    "celu": lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)),
    "clip": lambda x, low, high: np.clip(x, low, high),
    "exp": np.exp,
    "erf": _error_function,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "reciprocal": lambda x: 1 / x,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
}
"""Every function that can be fitted, by name; what follows x are its parameters."""


@dataclass(frozen=True, eq=False)
class _Entrywise:
    """One tensor in, one of the same shape out."""

    def shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        return shape


@dataclass(frozen=True, eq=False)
class Activation(_Entrywise):
    """A function not fitted yet; calibration finds its range and `activations` makes a `Series` of it."""

    function: str
    parameters: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise refusal(f"There is no activation {self.function!r}; there are {', '.join(FUNCTIONS)}.")

    def forward(self, *inputs: Real) -> Real:
        (x,) = inputs
        with np.errstate(all="ignore"):  # calibration refuses what is not finite, by the node's name
            return np.asarray(FUNCTIONS[self.function](x, *self.parameters), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Composite(_Entrywise):
    """A function of one number that a model writes in several steps: `steps` computes it on a tensor without axes."""

    steps: Graph
    degree: int | None = None
    """Where the steps make a polynomial, its degree: then the fit is exact."""

    def forward(self, *inputs: Real) -> Real:
        (x,) = inputs
        return np.asarray(self.steps.trace(x.ravel())[self.steps.output], dtype=np.float64).reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Power(_Entrywise):
    """x to a whole, positive power: exact, made of squares and products or of an exact series."""

    exponent: int

    def __post_init__(self) -> None:
        if self.exponent < 1:
            raise refusal(f"A power must have a positive whole exponent, not {self.exponent}.")

    def forward(self, *inputs: Real) -> Real:
        (x,) = inputs
        return x**self.exponent


@dataclass(frozen=True, eq=False)
class Square(_Entrywise):
    """x², exactly: one level."""

    is_square = True

    def forward(self, *inputs: Real) -> Real:
        (x,) = inputs
        return x * x


@dataclass(frozen=True, eq=False)
class Series(_Entrywise):
    """Σ_k coefficients[k]·T_k(t), t = (2x − lo − hi)/(hi − lo): a fitted activation or an exact power."""

    coefficients: tuple[float, ...]
    interval: tuple[float, float] = (-1.0, 1.0)

    @property
    def is_square(self) -> bool:
        """Whether this is exactly x²: (T_0 + T_2)/2 on [−1, 1]."""
        return self.coefficients == (0.5, 0.0, 0.5) and self.interval == (-1.0, 1.0)

    @property
    def degree(self) -> int:
        """The highest power."""
        return len(self.coefficients) - 1

    def forward(self, *inputs: Real) -> Real:
        (x,) = inputs
        low, high = self.interval
        t = (2 * x - low - high) / (high - low)
        return np.asarray(np.polynomial.chebyshev.chebval(t, self.coefficients), dtype=np.float64)
