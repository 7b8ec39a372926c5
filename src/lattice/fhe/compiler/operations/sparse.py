"""A linear layer as a list of entries: the one form that packing reads, and how two of them multiply."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.compiler.graph import Real, Shape
from lattice.fhe.compiler.operations.sizes import bounded, refusal

Indices = NDArray[np.int64]
EXPANSION = 1 << 22
"""Products that `after` holds at once."""


class Sparse(NamedTuple):
    """out[rows[k]] += values[k]·in[columns[k]] + bias: a linear layer on flattened tensors, entries distinct."""

    rows: Indices
    columns: Indices
    values: Real
    bias: Real
    """`[outputs]`"""
    inputs: int

    @property
    def outputs(self) -> int:
        """How many outputs."""
        return len(self.bias)

    @property
    def entries(self) -> int:
        """How many entries."""
        return len(self.values)

    @classmethod
    def of(cls, weight: Real, bias: Real) -> Sparse:
        """From a full matrix `[out, in]`; exact zeros are left out."""
        rows, columns = np.nonzero(weight)
        return cls(rows.astype(np.int64), columns.astype(np.int64), weight[rows, columns], bias, weight.shape[1])

    @classmethod
    def gather(cls, columns: Indices, inputs: int) -> Sparse:
        """out[r] = in[columns[r]], and 0 where the column is negative."""
        rows = np.nonzero(columns >= 0)[0].astype(np.int64)
        return cls(rows, columns[rows].astype(np.int64), np.ones(len(rows)), np.zeros(len(columns)), inputs)

    @classmethod
    def scaling(cls, scale: Real, shift: Real) -> Sparse:
        """out[r] = scale[r]·in[r] + shift[r]."""
        index = np.arange(len(scale), dtype=np.int64)
        return cls(index, index, scale.astype(np.float64), shift.astype(np.float64), len(scale))

    def dense(self) -> Real:
        """The full matrix `[out, in]`."""
        bounded(self.outputs * self.inputs, "A matrix")
        full = np.zeros((self.outputs, self.inputs))
        full[self.rows, self.columns] = self.values
        return full

    def sorted(self) -> Sparse:
        """By row, then column."""
        order = np.argsort(self.rows * self.inputs + self.columns, kind="stable")
        return self._replace(rows=self.rows[order], columns=self.columns[order], values=self.values[order])

    def scaled(self, factor: float, shift: float = 0.0) -> Sparse:
        """factor·(what this gives) + shift."""
        return self._replace(values=self.values * factor, bias=self.bias * factor + shift)

    def plus(self, other: Sparse) -> Sparse:
        """The sum of two layers of one shape."""
        if (self.outputs, self.inputs) != (other.outputs, other.inputs):
            raise refusal("Two layers of different shapes are added.")
        rows = np.concatenate([self.rows, other.rows])
        columns = np.concatenate([self.columns, other.columns])
        keys, inverse = np.unique(rows * self.inputs + columns, return_inverse=True)
        values = np.bincount(inverse, np.concatenate([self.values, other.values]), len(keys))
        kept = values != 0
        bias = self.bias + other.bias
        return Sparse(keys[kept] // self.inputs, keys[kept] % self.inputs, values[kept], bias, self.inputs)

    def apply(self, x: Real) -> Real:
        """On `[batch, inputs]`: a full matrix where it is dense enough, row sums otherwise."""
        if self.entries * 8 >= self.outputs * self.inputs:
            return x @ self.dense().T + self.bias
        out = np.broadcast_to(self.bias, (len(x), self.outputs)).copy()
        ordered = self.sorted()
        starts = np.flatnonzero(np.diff(ordered.rows, prepend=-1))
        if len(starts):
            # Entries lie in front, so that the sums run over whole contiguous batches.
            step = max(1, EXPANSION // ordered.entries)
            for start in range(0, len(x), step):
                part = x[start : start + step].T
                terms = part[ordered.columns] * ordered.values[:, None]
                out[start : start + step, ordered.rows[starts]] += np.add.reduceat(terms, starts, axis=0).T
        return out

    def products(self, inner: Sparse) -> int:
        """How many products `after` forms: a bound on the entries of the result."""
        return int(np.bincount(inner.rows, minlength=inner.outputs)[self.columns].sum())

    def after(self, inner: Sparse) -> Sparse:
        """This layer applied to what `inner` gives: one layer."""
        if inner.outputs != self.inputs:
            raise refusal(f"A layer of {self.inputs} inputs follows one of {inner.outputs} outputs.")
        through = np.bincount(self.rows, self.values * inner.bias[self.columns], self.outputs)
        parts = [_merged(part, inner) for part in _pieces(self.sorted(), inner)]
        rows, columns, values = (
            (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            if parts
            else (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        )
        return Sparse(rows, columns, values, self.bias + through, inner.inputs)


@runtime_checkable
class Linear(Protocol):
    """An operation that is a matrix and a bias."""

    def shape(self, *inputs: Shape) -> Shape:
        """The output's shape."""
        ...

    def forward(self, *inputs: Real) -> Real:
        """The step in the clear."""
        ...

    def matrix(self, shape: Shape) -> Sparse:
        """For one input of this shape, flattened in C order."""
        ...


def _pieces(outer: Sparse, inner: Sparse) -> Iterator[Sparse]:
    """The outer layer cut between rows so that each piece forms about `EXPANSION` products."""
    each = np.bincount(inner.rows, minlength=inner.outputs)[outer.columns]
    total = np.cumsum(each)
    start = 0
    while start < outer.entries:
        done = int(total[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + EXPANSION, side="right")))
        stop = int(np.searchsorted(outer.rows, outer.rows[stop - 1], side="right"))
        part = slice(start, stop)
        yield outer._replace(rows=outer.rows[part], columns=outer.columns[part], values=outer.values[part])
        start = stop


def _merged(outer: Sparse, inner: Sparse) -> tuple[Indices, Indices, Real]:
    """Every product of two entries, summed where row and column agree; cancelled ones are left out."""
    ordered = inner.sorted()
    count = np.bincount(ordered.rows, minlength=ordered.outputs)
    first = np.cumsum(count) - count
    each = count[outer.columns]
    source = np.repeat(np.arange(outer.entries), each)
    offset = np.arange(len(source)) - np.repeat(np.cumsum(each) - each, each)
    target = first[outer.columns][source] + offset
    keys = outer.rows[source] * inner.inputs + ordered.columns[target]
    unique, inverse = np.unique(keys, return_inverse=True)
    values = np.bincount(inverse, outer.values[source] * ordered.values[target], len(unique))
    kept = values != 0
    unique, values = unique[kept], values[kept]
    return unique // inner.inputs, unique % inner.inputs, values
