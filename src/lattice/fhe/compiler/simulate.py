"""Running a circuit on plain slot vectors in float64: the specification of every step, and the noise to expect.

`run` takes samples and gives results, as the client would send and read them; `evaluate` shows every value, for tests
and for the levels pass, which may hand in a standard deviation for each step's error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.circuit import Circuit, Real, Slots, Stages, Step

Values = dict[int, Real]


def run(circuit: Circuit, samples: Real, *, noise: Sequence[float] = (), seed: int = 0) -> Real:
    """Results `[samples, results]` of `[samples, features]`, `circuit.batch` of them at a time, padded with zeros."""
    features = np.asarray(samples, dtype=np.float64).reshape(len(samples), -1)
    results = []
    for start in range(0, len(features), circuit.batch):
        part = features[start : start + circuit.batch]
        padded = np.zeros((circuit.batch, features.shape[1]))
        padded[: len(part)] = part
        values = evaluate(circuit, pack_inputs(circuit, padded), noise=noise, seed=seed + start)
        results.append(read_outputs(circuit, [values[out] for out in circuit.outputs])[: len(part)])
    return np.concatenate(results)


def pack_inputs(circuit: Circuit, features: Real) -> list[Real]:
    """What the client puts into the slots of each input, for `[batch, features]`."""
    return [fill(layout, features.ravel()) for layout in circuit.inputs]


def fill(layout: Slots, entries: Real) -> Real:
    """The entries that a layout names, zeros elsewhere."""
    return np.where(layout >= 0, entries[np.maximum(layout, 0)], 0.0)


def read_outputs(circuit: Circuit, outputs: Sequence[Real]) -> Real:
    """`[batch, results]`: the mean over the slots where a result lies; one that lies nowhere is an invalid circuit."""
    places, values = np.concatenate(circuit.places), np.concatenate(outputs)
    read = places >= 0
    count = np.bincount(places[read])
    if not len(count) or not count.all() or len(count) % circuit.batch:
        raise LatticeError("circuit_invalid", "A result of the circuit lies in no slot of its outputs.")
    return (np.bincount(places[read], values[read]) / count).reshape(circuit.batch, -1)


def evaluate(circuit: Circuit, inputs: Sequence[Real], *, noise: Sequence[float] = (), seed: int = 0) -> Values:
    """Every value by number. `noise[k]` is the standard deviation of what step k adds to its results, in slots."""
    if len(inputs) != len(circuit.inputs):
        raise LatticeError("circuit_invalid", f"The circuit takes {len(circuit.inputs)} inputs, not {len(inputs)}.")
    values: Values = {at: np.asarray(value, dtype=np.float64) for at, value in enumerate(inputs)}
    random = np.random.default_rng(seed)
    for at, step in enumerate(circuit.steps):
        for name, value in _results(step, values):
            if name in values:
                raise LatticeError("circuit_invalid", f"Value {name} of the circuit is made twice.")
            noisy = noise[at] if at < len(noise) else 0.0
            values[name] = value + random.normal(0.0, noisy, circuit.slots) if noisy else value
    return values


def fold(x: Real, stages: Stages) -> Real:
    """Stage after stage, x plus its rotations."""
    for stage in stages:
        x = x + sum(np.roll(x, -step) for step in stage)
    return x


def _results(step: Step, values: Mapping[int, Real]) -> Iterator[tuple[int, Real]]:
    match step:
        case steps.Matrix():
            yield from _matrix(step, values)
        case steps.Combine():
            yield from _combine(step, values)
        case steps.Rotate(out=out, a=a, steps=turn):
            yield out, np.roll(values[a], -turn)
        case steps.Polynomial(out=out, a=a):
            yield out, _polynomial(step, values[a])
        case steps.Square(out=out, a=a):
            yield out, values[a] * values[a]
        case steps.Add(out=out, a=a, b=b) | steps.Subtract(out=out, a=a, b=b) | steps.Multiply(out=out, a=a, b=b):
            yield out, _PAIRS[type(step)](values[a], values[b])
        case _:
            raise LatticeError("circuit_invalid", f"A circuit has no step {type(step).__name__}.")


_PAIRS: dict[type[Step], Callable[[Real, Real], NDArray[np.float64]]] = {
    steps.Add: np.add,
    steps.Subtract: np.subtract,
    steps.Multiply: np.multiply,
}


def _matrix(step: steps.Matrix, values: Mapping[int, Real]) -> Iterator[tuple[int, Real]]:
    turned: dict[tuple[int, int], Real] = {}
    for at, (out, terms) in enumerate(zip(step.outs, step.terms, strict=True)):
        total = np.zeros(step.diagonals.shape[1])
        for giant, products in zip(step.giants, terms, strict=True):
            inner = np.zeros_like(total)
            for i, baby, diagonal in products:
                if (i, baby) not in turned:
                    turned[i, baby] = np.roll(values[step.inputs[i]], -step.babies[baby])
                inner += step.diagonals[diagonal] * turned[i, baby]
            total += np.roll(inner, -giant)
        folded = fold(total, step.fold)
        yield out, folded if step.bias is None else folded + step.bias[at]


def _combine(step: steps.Combine, values: Mapping[int, Real]) -> Iterator[tuple[int, Real]]:
    inputs = np.stack([values[i] for i in step.inputs])
    period = step.weights.shape[2]
    slots = inputs.reshape(len(inputs), -1, period)
    for at, out in enumerate(step.outs):
        folded = fold((step.weights[at][:, None] * slots).sum(axis=0).ravel(), step.fold)
        yield out, folded if step.bias is None else folded + np.tile(step.bias[at], slots.shape[1])


def _polynomial(step: steps.Polynomial, x: Real) -> Real:
    low, high = step.interval
    t = (2 * x - low - high) / (high - low)
    return np.asarray(np.polynomial.chebyshev.chebval(t, step.coefficients), dtype=np.float64)
