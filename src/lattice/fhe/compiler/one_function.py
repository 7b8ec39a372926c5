"""A model that is one function of a weighted sum, by squarings: tried beside the general packing, taken if cheaper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.compiler.activations import Approximation, Budget
from lattice.fhe.compiler.chebyshev import measured
from lattice.fhe.compiler.client_part import ToUnit
from lattice.fhe.compiler.client_steps import prepare
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.fitting import described
from lattice.fhe.compiler.front import Front
from lattice.fhe.compiler.graph import Graph, Real
from lattice.fhe.compiler.importers import Imported
from lattice.fhe.compiler.levels import noise, sizes
from lattice.fhe.compiler.levels.cost import Machine, estimate
from lattice.fhe.compiler.levels.options import Goal, Options
from lattice.fhe.compiler.packing import squares
from lattice.fhe.compiler.packing.linear_scales import to_unit
from lattice.fhe.compiler.packing.squares import Layout, Single

SIMULATED = 64
"""Samples on which errors are predicted."""
DEVIATIONS = 2.0
"""Of the noise, for which the fit of a result leaves room."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A program by squarings, and what it comes to."""

    front: Front
    """The model with the polynomial that the program computes."""
    compiled: Compiled
    seconds: float
    key_bytes: int
    deviation: float
    """Predicted, of a result."""


def candidate(
    simple: Imported, front: Front, samples: Real, options: Options, machine: Callable[[ParameterSet], Machine]
) -> Candidate | None:
    """The cheapest such program that is as precise as was asked for; None where the model is not of this form."""
    form = squares.single(simple.graph) if _may(options) else None
    count = squares.room(form) if form is not None else 0
    if form is None or not count:
        return None
    note = next(note for note in front.approximation.fitted if note.node == form.node.name)
    features = prepare(simple.before, samples).reshape(len(samples), -1)
    unit = to_unit(features.min(axis=0), features.max(axis=0))
    first = form.first.of_unit_features(np.array(unit.middle), np.array(unit.exponents, dtype=np.float64))
    seen = note.seen_low, note.seen_high
    fitted = squares.summed(form.node.operation.forward, (note.low, note.high), seen, count, squares.error_of(first))
    own = _front(simple, front, samples, form, fitted)
    found = []
    for radix in squares.RADICES:
        try:
            found.append(_made(Layout(first, form.last, fitted), own, features, unit, options, machine, radix))
        except LatticeError as fault:
            if fault.code not in ("model_unsupported", "parameters_insecure", "invalid_parameters"):
                raise
    fine = [one for one in found if _is_fine(one, form, options)]
    return min(fine, key=lambda one: price(one.key_bytes, one.seconds, options), default=None)


def price(key_bytes: int, seconds: float, options: Options) -> tuple[bool, float]:
    """Within the key budget before not, then the goal."""
    over = options.max_key_bytes is not None and key_bytes > options.max_key_bytes
    return over, float(key_bytes) if over or options.goal is Goal.KEYS else seconds


def _may(options: Options) -> bool:
    one = options.batch is None or options.batch == 1
    return one and options.goal is not Goal.THROUGHPUT and options.log_n is None and options.scale_bits is None


def _front(simple: Imported, front: Front, samples: Real, form: Single, fitted: squares.Summed) -> Front:
    """The model with the function replaced by the polynomial that the squarings make."""
    node, packed = form.node, prepare(simple.before, samples)
    nodes = tuple(replace(one, operation=fitted.series) if one is node else one for one in simple.graph.nodes)
    graph = replace(simple.graph, nodes=nodes)
    seen = front.calibration.observed[node.inputs[0]]
    before = next(note for note in front.approximation.fitted if note.node == node.name)
    note = described(node, seen, measured(fitted.series, node.operation.forward, seen.kept), before.is_result)
    exact = simple.graph.run(packed)
    difference = graph.run(packed) - exact
    error = float(np.sqrt(np.mean(difference * difference))) / (float(np.std(exact)) or 1.0)
    approximation = Approximation(graph, (note,), error, front.approximation.warnings)
    return replace(front, model=replace(simple, graph=graph), approximation=approximation)


def _made(
    layout: Layout,
    front: Front,
    features: Real,
    unit: ToUnit,
    options: Options,
    machine: Callable[[ParameterSet], Machine],
    radix: int,
) -> Candidate:
    model = front.model
    low, high = front.calibration.ranges
    made = squares.compile_squares(
        layout,
        shape=model.feature_shape or model.graph.input_shape,
        low=low,
        high=high,
        before=(*model.before, unit),
        after=model.after,
        largest=float(np.abs(model.graph.run(features)).max()) * options.margin,
        radix=radix,
        security=options.security,
    )
    program = made.program
    time = estimate(program, ("all",) * len(program.instructions), machine(made.params)).seconds
    keys = sizes.evaluation_keys(made.params, program.checked.keys)
    return Candidate(front, made, time, keys, _deviation(made, layout, front.model.graph, features))


def _deviation(made: Compiled, layout: Layout, graph: Graph, features: Real) -> float:
    """Root of the mean square error of results against the polynomial in the clear."""
    some = features[:: -(-len(features) // SIMULATED)]
    unit = made.client.before[-1].apply(some)
    slots = np.where(layout.entries >= 0, unit[:, np.maximum(layout.entries, 0)], 0.0)
    (output,) = noise.simulate(made.program, made.weights, [slots]).outputs
    error = output.mean(axis=1) - graph.run(some).reshape(-1)
    return float(np.sqrt((error * error).mean()))


def _is_fine(one: Candidate, form: Single, options: Options) -> bool:
    """Keys within their budget; noise within the precision asked for; of results, fit and noise together within what is
    allowed."""
    if options.max_key_bytes is not None and one.key_bytes > options.max_key_bytes:
        return False
    (note,) = one.front.approximation.fitted
    spread = float(one.front.calibration.observed[one.front.model.graph.output].rms) or 1.0
    if options.precision is not None:
        return max(one.deviation / spread, one.front.approximation.output_error) <= options.precision
    noise_part = one.deviation / (float(np.abs(form.last.weights).max()) or 1.0)
    if note.is_result:
        return note.seen_error + DEVIATIONS * noise_part <= Budget().result_error * note.reach
    return one.deviation <= max(options.noise, one.front.approximation.output_error / 2) * spread


__all__ = ["Candidate", "candidate", "price"]
