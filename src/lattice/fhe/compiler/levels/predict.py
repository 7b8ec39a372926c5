"""Predicted error of results and of layers: the noisy run against the circuit in the clear."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lattice.fhe.compiler.circuit import Circuit, Real
from lattice.fhe.compiler.levels import noise, wiring
from lattice.fhe.compiler.levels.build import Built
from lattice.fhe.compiler.levels.trace import trace
from lattice.fhe.compiler.levels.wiring import makes

TAIL = 6.5
"""Deviations that no result exceeds, but for one in 10^10."""
VALUES = 1 << 16
"""Slots of samples that are simulated, and so at least eight samples."""


class Errors(NamedTuple):
    """Of the decrypted results, in their own unit."""

    deviation: float
    """Root of the mean square over results and samples."""
    worst: float
    """The same for the worst result of the worst sample's magnitude: of one result over the samples."""
    bound: float
    """No error is expected beyond it."""
    spread: float
    """The standard deviation of the results themselves."""
    layers: tuple[tuple[str, float, float], ...]
    """(layer, deviation of its values, largest value)."""


def predict(built: Built, inputs: list[Real], *, seed: int = 0) -> Errors:
    """From samples `[samples, slots]` for each input; a few are enough."""
    circuit, lowered = built.circuit, built.lowered
    inputs = [values[: max(8, VALUES // circuit.slots)] for values in inputs]
    clear = trace(circuit, inputs)
    noisy = noise.simulate(built.program, lowered.weights, inputs, lowered.registers, seed=seed)
    wanted = results(circuit, [clear[value] for value in circuit.outputs])
    found = results(circuit, noisy.outputs)
    errors = found - wanted
    by_result = np.sqrt((errors**2).mean(axis=0))
    worst = float(by_result.max())
    bound = max(TAIL * worst, 2.0 * float(np.abs(errors).max()))
    return Errors(
        float(np.sqrt((errors**2).mean())),
        worst,
        bound,
        float(wanted.std()) or float(np.abs(wanted).max()),
        _layers(circuit, clear, noisy.registers),
    )


def results(circuit: Circuit, outputs: list[Real]) -> Real:
    """`[samples, batch·results]`, each the mean of its slots, as a client reads them."""
    places = np.concatenate(circuit.places)
    values = np.concatenate(outputs, axis=-1)[:, places >= 0]
    held = places[places >= 0]
    count = np.bincount(held)
    sums = np.stack([np.bincount(held, row, len(count)) for row in values])
    return np.asarray(sums / np.maximum(count, 1))


def _layers(circuit: Circuit, clear: list[Real], noisy: list[Real]) -> tuple[tuple[str, float, float], ...]:
    """The last value of each layer, in order."""
    found: dict[str, tuple[float, float]] = {}
    for name, step in zip(wiring.names(circuit), circuit.steps, strict=True):
        value = makes(step)[-1]
        error = float(np.sqrt(((noisy[value] - clear[value]) ** 2).mean()))
        found[name] = error, float(np.abs(clear[value]).max())
    return tuple((name, *figures) for name, figures in found.items())
