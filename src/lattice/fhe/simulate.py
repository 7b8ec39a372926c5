"""A compiled model without encryption, in float64: exactly (`clear`), or with the noise to expect (`simulate`).

Both run the program's own instructions on what the client would encrypt and read results as the client would, so they
also serve where only the compiled file is at hand and not the model that it was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.answers import Answer, answer_of, checked_samples, results_of, slots_of
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.compiler.circuit import Real
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.levels.noise import Noisy, NoisyOperations, NoisyPlain, Variances
from lattice.fhe.hal import interpreter, rules
from lattice.fhe.hal.program import Program, Weight

ENTRIES_AT_ONCE = 1 << 19
"""Slots of all queries that are simulated together, for each value: 4 MiB."""
Progress = Callable[[int, int], None]
"""Samples done, samples in all."""


def clear(compiled: Compiled, samples: ArrayLike, *, progress: Progress | None = None) -> Answer:
    """What the compiled model computes, exactly: activations are the fitted polynomials, and there is no noise."""
    return _run(_Clear(compiled.params), compiled, samples, progress)


def simulate(compiled: Compiled, samples: ArrayLike, *, seed: int = 0, progress: Progress | None = None) -> Answer:
    """What decryption would give, the noise of every instruction drawn at random."""
    on = (_CoefficientNoise if _in_coefficients(compiled.program) else _SlotNoise)(compiled.params, seed)
    return _run(on, compiled, samples, progress)


def _in_coefficients(program: Program) -> bool:
    return any(entry.encoding is Encoding.COEFFICIENTS for entry in program.inputs)


def _run(on: NoisyOperations, compiled: Compiled, samples: ArrayLike, progress: Progress | None) -> Answer:
    part, program = compiled.client, compiled.program
    if compiled.database is not None:
        raise LatticeError("input_invalid", "This model searches in rows that their owner encrypts: not in it.")
    array = checked_samples(part, samples)
    weights = [on.weight(kind, values) for kind, values in zip(program.weights, compiled.weights, strict=True)]
    step = part.batch * max(1, ENTRIES_AT_ONCE // program.params.n)
    results = []
    for start in range(0, len(array), step):
        results.append(_queries(on, compiled, weights, array[start : start + step]))
        if progress:
            progress(min(start + step, len(array)), len(array))
    return answer_of(part, np.concatenate(results))


def _queries(on: NoisyOperations, compiled: Compiled, weights: Sequence[NoisyPlain], samples: Real) -> Real:
    """Results of several queries, side by side in the first axis."""
    part, program = compiled.client, compiled.program
    queries = [slots_of(part, samples[at : at + part.batch]) for at in range(0, len(samples), part.batch)]
    sent = [
        on.encrypted(declared.kind, np.stack([query[number] for query in queries]))
        for number, declared in enumerate(program.inputs)
    ]
    run = cast(Callable[..., list[Noisy]], interpreter.interpret)
    outputs = [on.blinded(out).values for out in run(on, program, program.checked, sent, weights)]
    results = [results_of(part, [values[query] for values in outputs]) for query in range(len(queries))]
    return np.concatenate(results)[: len(samples)]


class _SlotNoise(NoisyOperations):
    """Knows that in coefficients a product is one of polynomials modulo X^N + 1."""

    def multiply_plain(self, x: Noisy, plain: NoisyPlain) -> Noisy:
        kind = rules.multiply_plain(self.params, x.kind, plain.kind)
        values = plain.values.reshape(-1)
        if x.kind.encoding is plain.kind.encoding is Encoding.COEFFICIENTS:
            return Noisy(kind, _negacyclic(x.values, values))
        return Noisy(kind, x.values * values)


class _CoefficientNoise(_SlotNoise):
    """Values are coefficients themselves, so that the noise of one is not a sum over all."""

    def __init__(self, params: Any, seed: int = 0) -> None:
        super().__init__(params, seed)
        self.variances = _CoefficientVariances(params)

    def weight(self, declared: Weight, values: NDArray[np.floating[Any]]) -> NoisyPlain:
        spread = sqrt(1.0 / 12.0) / float(declared.kind.scale)
        return NoisyPlain(declared.kind, values + self.random.normal(size=values.shape) * spread)


class _CoefficientVariances(Variances):
    def in_slots(self, variance: float) -> float:
        return sqrt(variance)


class _Clear(_SlotNoise):
    """No noise at all."""

    def _noise(self, x: Real, variance: float, scale: Any) -> Real:
        return x

    def weight(self, declared: Weight, values: NDArray[np.floating[Any]]) -> NoisyPlain:
        return NoisyPlain(declared.kind, np.asarray(values, dtype=np.float64))


def _negacyclic(x: Real, y: Real) -> Real:
    """x·y modulo X^N + 1 along the last axis: twisting by a root of −1 makes it cyclic."""
    n = x.shape[-1]
    twist = np.exp(1j * np.pi * np.arange(n) / n)
    product: Real = np.real(np.fft.ifft(np.fft.fft(x * twist) * np.fft.fft(y * twist)) * twist.conj())
    return product
