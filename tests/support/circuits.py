"""Circuits by hand and at random, for tests of what comes behind packing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.circuit import Circuit, Real, Slots
from lattice.fhe.compiler.client_part import After, ClientPart
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.levels.build import Built, build
from lattice.fhe.compiler.levels.options import Options
from lattice.fhe.compiler.levels.trace import magnitudes, trace


def periodic(count: int, slots: int) -> Slots:
    """Entry s mod count in slot s."""
    return (np.arange(slots) % count).astype(np.int32)


def dense(matrix: Real, slots: int, value: int, out: int, *, bias: Real | None = None, babies: int = 4) -> steps.Matrix:
    """A power-of-two matrix with fewer rows than columns: its input repeats with the columns, its result with the
    rows."""
    rows, columns = matrix.shape
    i = np.arange(slots)
    diagonals, terms = [], []
    giants = tuple(range(0, rows, babies))
    for giant in giants:
        listed = []
        for baby in range(min(babies, rows - giant)):
            listed.append((0, baby, len(diagonals)))
            diagonals.append(np.roll(matrix[i % rows, (i + giant + baby) % columns], giant))
        terms.append(tuple(listed))
    fold = tuple((rows << k,) for k in range((columns // rows).bit_length() - 1))
    tiled = None if bias is None else bias[i % rows][None]
    turns = tuple(range(min(babies, rows)))
    return steps.Matrix(
        (out,), (value,), np.array(diagonals), turns, giants, (tuple(terms),), fold, tiled, layer=f"dense {out}"
    )


def network(rng: np.random.Generator, slots: int, widths: tuple[int, ...]) -> Circuit:
    """Dense layers of these widths (descending powers of two) with squares between."""
    made: list[steps.Step] = []
    for number, (columns, rows) in enumerate(pairwise(widths)):
        value = 2 * number
        weights = rng.normal(size=(rows, columns)) / np.sqrt(columns)
        made.append(dense(weights, slots, value, value + 1, bias=rng.normal(size=rows) / 4))
        if number < len(widths) - 2:
            made.append(steps.Square(value + 2, value + 1, layer=f"square {number}"))
    last = 2 * len(widths) - 3
    return Circuit(slots, 1, (periodic(widths[0], slots),), tuple(made), (last,), (periodic(widths[-1], slots),))


def random_circuit(rng: np.random.Generator, slots: int, length: int, depth: int = 3) -> Circuit:
    """Any steps in any order, values of magnitude about one, at most `depth` products in a row."""
    inputs = int(rng.integers(1, 3))
    depths = [0] * inputs
    made: list[steps.Step] = []
    for _ in range(length):
        step, taken = _random_step(rng, slots, depths, depth)
        made.append(step)
        depths.append(taken)
    outputs = tuple({len(depths) - 1, int(rng.integers(inputs, len(depths)))})
    everywhere = np.arange(slots, dtype=np.int32)
    places = tuple(everywhere + np.int32(k * slots) for k in range(len(outputs)))
    layouts = tuple(everywhere + np.int32(k * slots) for k in range(inputs))
    return Circuit(slots, 1, layouts, tuple(made), outputs, places)


def _random_step(rng: np.random.Generator, slots: int, depths: list[int], limit: int) -> tuple[steps.Step, int]:
    out, a, b = len(depths), *(int(x) for x in rng.integers(0, len(depths), 2))
    low = max(depths[a], depths[b])
    kinds = ["add", "subtract", "rotate"] + ["matrix", "combine", "multiply", "square", "polynomial"] * (low < limit)
    kind = kinds[int(rng.integers(len(kinds)))]
    if kind in ("add", "subtract"):
        # An operand may have to be adjusted, which takes a level of it.
        return (steps.Add if kind == "add" else steps.Subtract)(out, a, b), low + (low < limit)
    if kind == "rotate":
        return steps.Rotate(out, a, int(rng.integers(slots))), depths[a]
    if kind == "multiply":
        return steps.Multiply(out, a, b), low + 1
    if kind == "square":
        return steps.Square(out, a), depths[a] + 1
    if kind == "polynomial":
        return steps.Polynomial(out, a, (0.25, 0.5), (-4.0, 4.0)), depths[a] + 2
    if kind == "combine":
        period = int(2 ** rng.integers(0, slots.bit_length()))
        weights = rng.uniform(-0.5, 0.5, (1, 2, period))
        bias = rng.uniform(-0.5, 0.5, (1, period)) if rng.integers(2) else None
        return steps.Combine((out,), (a, b), weights, ((1,),) if rng.integers(2) else (), bias), low + 2
    diagonals = rng.uniform(-0.25, 0.25, (3, slots))
    terms = (((0, 0, 0), (1, 1, 1)), ((1, 0, 2),))
    return steps.Matrix(
        (out,), (a, b), diagonals, (0, 1), (0, 2), (terms,), ((4,),) if rng.integers(2) else ()
    ), low + 2


def inputs_of(circuit: Circuit, samples: Real) -> list[Real]:
    """`[batch, slots]` for each input."""
    return [np.where(layout >= 0, samples[:, np.maximum(layout, 0)], 0.0) for layout in circuit.inputs]


def results_in_clear(circuit: Circuit, samples: Real, results: int) -> Real:
    """`[batch, results]` by the trace, which is the specification."""
    values = trace(circuit, inputs_of(circuit, samples))
    out = np.zeros((len(samples), results))
    for output, places in zip(circuit.outputs, circuit.places, strict=True):
        held = places >= 0
        out[:, places[held]] = values[output][:, held]
    return out


def built(
    circuit: Circuit, samples: Real, *, scale_bits: int = 26, options: Options | None = None, **how: bool
) -> Built:
    """With magnitudes of these samples."""
    return build(
        circuit, magnitudes(circuit, inputs_of(circuit, samples)), options or Options(), scale_bits=scale_bits, **how
    )


def compiled(made: Built, features: int, results: int, after: tuple[After, ...] = ()) -> Compiled:
    """What a client and an evaluator need of it."""
    client = ClientPart(
        (features,), 1, (), made.inputs, made.outputs, after, results, np.full(features, -1.0), np.full(features, 1.0)
    )
    return Compiled(made.program, made.lowered.weights, client)
