"""`compile(model, calibration)`: a trained model in, an encrypted program out, with a report on what it will do.

```python
compiled = compile("model.onnx", samples, labels=labels)
answer = run(compiled, new_samples)         # lattice.fhe.run
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from msgspec.structs import replace as with_fields
from numpy.typing import ArrayLike

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.compiler import accuracy as accuracy_of
from lattice.fhe.compiler.accuracy import Accuracy
from lattice.fhe.compiler.activations import Budget
from lattice.fhe.compiler.calibrate import features as checked_samples
from lattice.fhe.compiler.calibrate import observe
from lattice.fhe.compiler.circuit import Circuit
from lattice.fhe.compiler.client_part import ClientPart
from lattice.fhe.compiler.client_steps import prepare
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.front import Front, fitted
from lattice.fhe.compiler.graph import Graph, Operation, Real
from lattice.fhe.compiler.importers import Imported, load
from lattice.fhe.compiler.levels import cost
from lattice.fhe.compiler.levels.cost import Machine
from lattice.fhe.compiler.levels.options import Goal, Options
from lattice.fhe.compiler.levels.predict import results
from lattice.fhe.compiler.levels.search import Found, search
from lattice.fhe.compiler.levels.trace import trace
from lattice.fhe.compiler.one_function import Candidate, candidate, price
from lattice.fhe.compiler.operations import Linear, Permute, Product, Reshape, Series, Square
from lattice.fhe.compiler.packing import Goal as PackingGoal
from lattice.fhe.compiler.packing import Packer, PackingOptions
from lattice.fhe.compiler.packing.affine import is_affine
from lattice.fhe.compiler.packing.batch import pack_batch
from lattice.fhe.compiler.packing.coefficients import compile_linear
from lattice.fhe.compiler.packing.rows import compile_rows
from lattice.fhe.compiler.packing.similarity import KEY_BYTES, compile_scores, is_search
from lattice.fhe.compiler.passes import simplify
from lattice.fhe.compiler.report_data import StageReport, read_report
from lattice.fhe.compiler.summary import linear_report, report_of

Progress = Callable[[str, float], None]
"""Called with the name of a stage when it starts (0.0) and ends (1.0)."""
TRACED = 32
"""Calibration samples that are traced through circuits; ranges are calibrated on all of them."""
MATCH = 1e-6
"""A circuit that differs from its graph by more than this part of the largest result is refused."""
ERRORS = (0.2, 0.1, 0.05, 0.0125, 0.003, 0.0008)
"""What fits of activations may change in the results, as a part of their spread: the first that keeps accuracy."""
SHARE = 0.9
"""The part of the tolerance that fits may use up; they are judged with noise of the wanted precision."""
CHANGED = 2.5
"""Labels that fits may change, over those that may be lost."""
FINEST = 0.1
"""Precision beside the error of fits."""
DEEPEST = 30
"""No fit goes deeper than the largest ring allows."""
MANY_ROWS = 1024
"""From this batch on a linear model is packed by rows."""


@dataclass
class Stages:
    """Names and times of what was done, as it happens."""

    progress: Progress | None = None
    done: list[StageReport] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """One of them."""
        if self.progress:
            self.progress(name, 0.0)
        start = perf_counter()
        yield
        self.done.append(StageReport(name, round(perf_counter() - start, 4)))
        if self.progress:
            self.progress(name, 1.0)


def compile(
    model: Any,
    calibration: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    held_out: ArrayLike | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
    machine: Callable[[ParameterSet], Machine] = cost.probe,
) -> Compiled:
    """Import, simplify, calibrate and fit, pack and assign levels, judge.

    `calibration` `[samples, features…]` gives ranges. Accuracy is judged on `held_out` (with its `labels`, where there
    are any), or else on the calibration samples, which `labels` then belong to. Errors: `model_unsupported`,
    `model_too_deep`, `model_inaccurate`, `calibration_invalid`.
    """
    wanted, stages = options or Options(), Stages(progress)
    with stages.stage("import"):
        imported = load(model, calibration)
        samples = checked_samples(imported, calibration)
        judged = Judged(samples if held_out is None else checked_samples(imported, held_out), labels)
    with stages.stage("simplify"):
        simple = simplify(imported)
    with stages.stage("calibrate and fit"):
        front = fit(imported, simple, samples, judged, wanted)
    if is_linear(front.graph, wanted):
        return _linear(front, samples, judged, wanted, stages, machine)
    with stages.stage("pack and assign levels"):
        found = _search(front, samples, no_finer(wanted, front), machine)
    with stages.stage("judge accuracy"):
        accuracy = judged.accuracy(front, samples, found.errors.deviation, wanted)
        other = _squarings(simple, front, samples, judged, found, wanted, machine)
        if other is not None:
            return _by_squarings(*other, wanted, stages, machine)
        accuracy_of.require(accuracy, wanted)
    client = client_part(front, found)
    draft = Compiled(found.built.program, found.built.lowered.weights, client)
    return replace(draft, report=report_of(draft, front, found, accuracy, wanted, stages.done).to_dict())


def no_finer(options: Options, front: Front) -> Options:
    """Unless the user said how precise: no more than the fits of activations leave of use. Noise of a tenth of their
    error adds nothing."""
    if options.precision is not None:
        return options
    return replace(options, precision=max(options.noise, min(FINEST * front.approximation.output_error, 1.0)))


class Judged(NamedTuple):
    """Samples on which accuracy is judged, with labels where there are any."""

    samples: Real
    labels: ArrayLike | None

    def accuracy(self, front: Front, calibration: Real, deviation: float, options: Options) -> Accuracy:
        """Of the fitted model with noise of this deviation on its results."""
        reach = reach_of(front, calibration, options)
        return accuracy_of.measure(front.imported, front.model, self.samples, self.labels, deviation, reach)


def fit(imported: Imported, simple: Imported, samples: Real, judged: Judged, options: Options) -> Front:
    """Activations fitted as roughly as the tolerance allows, and the precision that a user asked for: a smaller error
    is asked for until accuracy is kept; and before more levels are spent, the highest degrees that the levels there are
    can have."""
    front: Front | None = None
    wanted = options.precision
    errors = ERRORS if wanted is None else (wanted, *(error for error in ERRORS if error < wanted))
    for error, full in product(errors, (False, True)):
        tried = fitted(imported, simple, samples, Budget(error, min(0.5, 10 * error), min(0.02, error), full=full))
        if front is not None and least_depth(tried.graph) > DEEPEST:
            break
        front = tried
        if front.approximation.output_error < 1e-9:
            break
        spread = float(front.graph.run(prepare(front.model.before, samples[:TRACED])).std())
        found = judged.accuracy(front, samples, options.noise * spread, options)
        if keeps(found, SHARE * options.allowed(found.metric)):
            break
    assert front is not None, "there is at least one error"
    return front


def keeps(accuracy: Accuracy, tolerance: float) -> bool:
    """Whether no more than that is lost, and of labels not many times as many changed for better and worse: on other
    samples more of them may be for the worse."""
    steady = accuracy.metric != "accuracy" or 1 - accuracy.agreement <= CHANGED * tolerance
    return steady and accuracy.lost <= tolerance


# --- one function of a sum ---------------------------------------------------------------------------------


def _squarings(
    simple: Imported,
    front: Front,
    samples: Real,
    judged: Judged,
    found: Found,
    options: Options,
    machine: Callable[[ParameterSet], Machine],
) -> tuple[Candidate, Accuracy] | None:
    """The model by squarings, where it has such a form, is cheaper so, and keeps its accuracy."""
    made = candidate(simple, front, samples, options, machine)
    if made is None:
        return None
    ours, theirs = price(made.key_bytes, made.seconds, options), price(found.key_bytes, found.estimate.seconds, options)
    if found.precise and ours >= theirs:
        return None
    accuracy = judged.accuracy(made.front, samples, made.deviation, options)
    return (made, accuracy) if keeps(accuracy, options.allowed(accuracy.metric)) else None


def _by_squarings(
    made: Candidate, accuracy: Accuracy, options: Options, stages: Stages, machine: Callable[[ParameterSet], Machine]
) -> Compiled:
    """With its report."""
    draft = made.compiled
    totals = with_fields(read_report(draft.report).totals, error=made.deviation)
    draft = replace(draft, report=with_fields(read_report(draft.report), totals=totals).to_dict())
    report = linear_report(draft, made.front, accuracy, options, stages.done, machine(draft.params))
    return replace(draft, report=report.to_dict())


# --- linear models ----------------------------------------------------------------------------------------


def is_linear(graph: Graph, options: Options) -> bool:
    """Whether the packings without evaluation keys take it."""
    few = options.batch is None or options.batch == 1 or options.batch >= MANY_ROWS
    return is_affine(graph) and few and options.log_n is None


def _linear(
    front: Front,
    samples: Real,
    judged: Judged,
    options: Options,
    stages: Stages,
    machine: Callable[[ParameterSet], Machine],
) -> Compiled:
    """One affine map: one prime, and no evaluation key unless it is a search among many rows."""
    model = front.model
    with stages.stage("pack and assign levels"):
        features = prepare(model.before, samples).reshape(len(samples), -1)
        largest = float(np.abs(model.graph.run(features)).max()) * options.margin
        given = {
            "low": features.min(axis=0),
            "high": features.max(axis=0),
            "before": model.before,
            "after": model.after,
            "largest": largest,
        }
        if options.batch is not None and options.batch >= MANY_ROWS:
            made = compile_rows(model.graph, rows=options.batch, **given)
        elif is_search(model.graph):
            budget = options.max_key_bytes or KEY_BYTES
            made = compile_scores(model.graph, **given, max_key_bytes=budget)
        else:
            made = compile_linear(model.graph, **given)
    with stages.stage("judge accuracy"):
        deviation = read_report(made.report).totals.error
        accuracy = judged.accuracy(front, samples, deviation, options)
        accuracy_of.require(accuracy, options)
    low, high = front.calibration.ranges
    shape = model.feature_shape or model.graph.input_shape
    client = replace(made.client, feature_shape=shape, low=low, high=high)
    draft = replace(made, client=client)
    report = linear_report(draft, front, accuracy, options, stages.done, machine(draft.params))
    return replace(draft, report=report.to_dict())


# --- all others -------------------------------------------------------------------------------------------


def _search(front: Front, samples: Real, options: Options, machine: Callable[[ParameterSet], Machine]) -> Found:
    graph, packer = front.graph, Packer(front.graph)
    given = prepare(front.model.before, samples)
    traced = spread(given)
    last = next(node for node in graph.nodes if node.name == graph.output)
    return search(
        lambda slots, key_price: packed(packer, slots, key_price, traced, given, options),
        lambda circuit: in_slots(circuit, traced),
        options,
        machine,
        least_depth=least_depth(graph),
        last_linear=isinstance(last.operation, Linear),
    )


def reach_of(front: Front, samples: Real, options: Options) -> dict[str, float]:
    """How large each value of the fitted graph may become: what calibration saw, times the margin.

    A program's modulus has room for that (and for a factor of 2 more); a polynomial beyond its interval is far past it.
    """
    observed = observe(front.graph, prepare(front.model.before, samples))
    return {name: max(abs(seen.low), abs(seen.high)) * options.margin for name, seen in observed.items()}


def spread(features: Real) -> Real:
    """A few samples from all over, and those with the largest values: what circuits are traced with."""
    flat = features.reshape(len(features), -1)
    if len(flat) <= TRACED:
        return flat
    largest = np.argsort(np.abs(flat).sum(axis=1))[-TRACED // 4 :]
    even = np.linspace(0, len(flat) - 1, TRACED - len(largest)).astype(np.int64)
    chosen: Real = flat[np.unique(np.concatenate([even, largest]))]
    return chosen


def least_depth(graph: Graph) -> int:
    """Levels that the graph takes however it is packed; a last linear layer may take none."""
    depths = {graph.input: 0}
    for node in graph.nodes:
        taken = levels_of(node.operation, last=node.name == graph.output)
        depths[node.name] = max(depths[name] for name in node.inputs) + taken
    return depths[graph.output]


def levels_of(operation: Operation, *, last: bool = False) -> int:
    """Of one operation, at least."""
    if isinstance(operation, Permute | Reshape):
        return 0
    if isinstance(operation, Linear):
        return 0 if last else 1
    if isinstance(operation, Series) and not operation.is_square:
        return max(1, operation.degree.bit_length())
    return int(isinstance(operation, Product | Square | Series))


def packed(
    packer: Packer, slots: int, key_price: float | None, samples: Real, all_samples: Real, options: Options
) -> Circuit:
    """The circuit, once it was seen to compute what the graph computes on `samples`."""
    graph = packer.graph
    if options.batch is not None and options.batch > 1:
        circuit = pack_batch(graph, slots, options.batch, all_samples)
    else:
        goal = PackingGoal.KEYS if options.goal is Goal.KEYS else PackingGoal.LATENCY
        circuit = packer.pack(slots, PackingOptions(goal, key_price))
    tried = samples[: 2 if circuit.batch == 1 else circuit.batch]
    values = trace(circuit, in_slots(circuit, tried))
    found = results(circuit, [values[output] for output in circuit.outputs]).reshape(-1)
    wanted = np.resize(graph.run(tried), found.shape)
    if np.abs(found - wanted).max() > MATCH * max(1.0, float(np.abs(wanted).max())):
        raise LatticeError("packing_failed", f"The circuit of {slots} slots does not compute the model.")
    return circuit


def in_slots(circuit: Circuit, samples: Real) -> list[Real]:
    """`[samples, slots]` for each input; a batch circuit gets the samples one after another, repeated, as one."""
    flat = samples.reshape(len(samples), -1)
    if circuit.batch > 1:
        flat = np.resize(flat, (circuit.batch, flat.shape[1])).reshape(1, -1)
    return [np.where(layout >= 0, flat[:, np.maximum(layout, 0)], 0.0) for layout in circuit.inputs]


def client_part(front: Front, found: Found) -> ClientPart:
    """What the client needs, with the range that calibration saw."""
    model, batch = front.model, found.built.circuit.batch
    entries = max(int(output.entries.max()) for output in found.built.outputs) + 1
    return ClientPart(
        model.feature_shape or model.graph.input_shape,
        batch,
        model.before,
        found.built.inputs,
        found.built.outputs,
        model.after,
        entries // batch,
        *front.calibration.ranges,
    )
