"""`compile(model, calibration)`: a trained model in, an encrypted program out, with a report on what it will do.

```python
compiled = compile("model.onnx", samples, labels=labels)
answer = run(compiled, new_samples)         # lattice.fhe.run
```
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.compiler import accuracy as accuracy_of
from lattice.fhe.compiler import describe
from lattice.fhe.compiler.accuracy import Accuracy
from lattice.fhe.compiler.circuit import Circuit
from lattice.fhe.compiler.client_part import ClientPart
from lattice.fhe.compiler.client_steps import prepare
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.graph import Graph, Operation, Real
from lattice.fhe.compiler.importers.imported import Imported
from lattice.fhe.compiler.importers.load import load
from lattice.fhe.compiler.levels import cost
from lattice.fhe.compiler.levels.cost import Machine
from lattice.fhe.compiler.levels.options import Options
from lattice.fhe.compiler.levels.predict import results
from lattice.fhe.compiler.levels.search import Found, search
from lattice.fhe.compiler.levels.trace import trace
from lattice.fhe.compiler.operations import Linear, Permute, Product, Reshape, Series, Square
from lattice.fhe.compiler.packing import pack
from lattice.fhe.compiler.passes import simplify
from lattice.fhe.compiler.report_data import AccuracyReport, Report, StageReport
from lattice.fhe.compiler.report_facts import completed
from lattice.fhe.hal.choose import choose

Progress = Callable[[str, float], None]
"""Called with the name of a stage when it starts (0.0) and ends (1.0)."""
TRACED = 32
"""Calibration samples that are traced through circuits; ranges are calibrated on all of them."""
MATCH = 1e-6
"""A circuit that differs from its graph by more than this part of the largest result is refused."""


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
    """Import, simplify, calibrate, fit, pack, assign levels, choose parameters, predict, judge.

    `calibration` `[samples, features…]` gives ranges. Accuracy is judged on `held_out` (with its `labels`, where there
    are any), or else on the calibration samples, which `labels` then belong to.
    """
    wanted, stages = options or Options(), Stages(progress)
    with stages.stage("import"):
        imported = load(model, calibration)
        samples = checked_samples(imported, calibration)
        judged = samples if held_out is None else checked_samples(imported, held_out)
    with stages.stage("simplify"):
        simple = simplify(imported)
    with stages.stage("calibrate"):
        features = prepare(simple.before, samples)
        graph = simple.graph
    with stages.stage("pack and assign levels"):
        traced = spread(features)
        found = search(
            lambda slots: packed(graph, slots, traced),
            lambda circuit: in_slots(circuit, traced),
            wanted,
            machine,
            least_depth=least_depth(graph),
        )
    with stages.stage("judge accuracy"):
        judged_features = prepare(imported.before, judged)
        after = simple.after
        accuracy = accuracy_of.measure(simple.graph, graph, after, judged_features, labels, found.errors.deviation)
        accuracy_of.require(accuracy, wanted)
    client = client_part(simple, found, samples)
    report = report_of(simple, graph, found, accuracy, wanted, stages)
    compiled = Compiled(found.built.program, found.built.lowered.weights, client, report.to_dict())
    return Compiled(compiled.program, compiled.weights, client, completed(compiled).to_dict())


def checked_samples(imported: Imported, samples: ArrayLike) -> Real:
    """`[count, *feature_shape]` of finite numbers."""
    try:
        array = np.asarray(samples, dtype=np.float64)
    except (TypeError, ValueError):
        raise LatticeError("calibration_invalid", "The calibration samples are not an array of numbers.") from None
    shape = imported.feature_shape or imported.graph.input_shape
    if array.ndim and len(array) and array[0].size == int(np.prod(shape)):
        array = array.reshape(len(array), *shape)
    else:
        message = f"Samples of shape {array.shape} are not a batch of samples of shape {shape}."
        raise LatticeError("calibration_invalid", message)
    if not np.isfinite(array).all():
        raise LatticeError("calibration_invalid", "A calibration sample holds a value that is not finite.")
    return array


def spread(features: Real) -> Real:
    """A few samples from all over, and those with the largest values: what circuits are traced with."""
    flat = features.reshape(len(features), -1)
    if len(flat) <= TRACED:
        return flat
    largest = np.argsort(np.abs(flat).sum(axis=1))[-TRACED // 4 :]
    even = np.linspace(0, len(flat) - 1, TRACED - len(largest)).astype(np.int64)
    return flat[np.unique(np.concatenate([even, largest]))]


def least_depth(graph: Graph) -> int:
    """Levels that the graph takes however it is packed; a last linear layer may take none."""
    depths = {graph.input: 0}
    for node in graph.nodes:
        taken = levels_of(node.operation) if node.name != graph.output else levels_of(node.operation, last=True)
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


def packed(graph: Graph, slots: int, samples: Real) -> Circuit:
    """The circuit, once it was seen to compute what the graph computes."""
    circuit = pack(graph, slots)
    values = trace(circuit, in_slots(circuit, samples[:2]))
    found = results(circuit, [values[output] for output in circuit.outputs])
    wanted = graph.run(samples[:2]).reshape(len(found), -1)
    if found.shape != wanted.shape or np.abs(found - wanted).max() > MATCH * max(1.0, float(np.abs(wanted).max())):
        raise LatticeError("packing_failed", f"The circuit of {slots} slots does not compute the model.")
    return circuit


def in_slots(circuit: Circuit, samples: Real) -> list[Real]:
    """`[samples, slots]` for each input; a batch circuit gets the samples one after another, repeated."""
    batch = circuit.batch
    if batch == 1:
        flat = samples.reshape(len(samples), -1)
    else:
        repeated = np.resize(samples, (batch, *samples.shape[1:]))
        flat = repeated.reshape(1, -1)
    return [np.where(layout >= 0, flat[:, np.maximum(layout, 0)], 0.0) for layout in circuit.inputs]


def client_part(model: Imported, found: Found, samples: Real) -> ClientPart:
    """What the client needs, with the range that calibration saw."""
    flat = samples.reshape(len(samples), -1)
    batch = found.built.circuit.batch
    entries = max(int(output.entries.max()) for output in found.built.outputs) + 1
    shape = model.feature_shape or model.graph.input_shape
    return ClientPart(
        shape,
        batch,
        model.before,
        found.built.inputs,
        found.built.outputs,
        model.after,
        entries // batch,
        flat.min(axis=0),
        flat.max(axis=0),
    )


def report_of(
    model: Imported, graph: Graph, found: Found, accuracy: Accuracy, options: Options, stages: Stages
) -> Report:
    """Everything that the program itself does not say."""
    backend = choose()
    warnings = []
    if not found.precise:
        warnings.append("The predicted error is larger than the precision that was asked for.")
    if accuracy.lost > options.tolerance:
        warnings.append("The simulated accuracy misses the tolerance.")
    if options.max_key_bytes is not None and found.key_bytes > options.max_key_bytes:
        warnings.append(f"The keys take {found.key_bytes} bytes, more than the {options.max_key_bytes} asked for.")
    return Report(
        model=graph.name,
        goal=str(options.goal),
        backend=f"{backend.name} {backend.isa}",
        layers=describe.layers(graph, found),
        totals=describe.totals(found),
        accuracy=AccuracyReport(
            accuracy.samples,
            accuracy.metric,
            accuracy.clear,
            accuracy.simulated,
            agreement=accuracy.agreement,
            max_error=accuracy.max_error,
        ),
        stages=tuple(stages.done),
        peak_memory_bytes=peak_memory(),
        warnings=tuple(warnings),
    )


def peak_memory() -> int:
    """Of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
