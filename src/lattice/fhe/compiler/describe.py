"""What became of each layer of a model, for the report: levels, rotations, time, error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from lattice.fhe.compiler import operations as graph_operations
from lattice.fhe.compiler.graph import Graph, Operation, Shape
from lattice.fhe.compiler.levels import wiring
from lattice.fhe.compiler.levels.search import Found
from lattice.fhe.compiler.levels.wiring import makes
from lattice.fhe.compiler.report_data import LayerReport, TotalsReport
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal.instructions import Instruction
from lattice.fhe.hal.program import Program


class Counts:
    """Of one layer's instructions."""

    def __init__(self) -> None:
        self.rotations = self.diagonals = self.products = 0

    def add(self, instruction: Instruction) -> None:
        """Key switches by automorphisms, plaintext products, ciphertext products."""
        if isinstance(instruction, ops.Matrix):
            self.rotations += _matrix_rotations(instruction)
            self.diagonals += sum(len(terms) for out in instruction.terms for terms in out)
        elif isinstance(instruction, ops.SumSlots):
            self.rotations += sum(map(len, instruction.stages))
        elif isinstance(instruction, ops.SumPlain):
            self.diagonals += sum(map(len, instruction.terms))
        elif isinstance(instruction, ops.SumPeriodic):
            self.diagonals += len(instruction.outs) * len(instruction.inputs)
        elif isinstance(instruction, ops.Rotate | ops.RotateHoisted):
            self.rotations += len(instruction.rotations)
        self.products += isinstance(instruction, ops.Multiply)
        if isinstance(instruction, ops.Chebyshev):
            self.products += max(1, (len(instruction.coefficients) - 1).bit_length())


def layers(graph: Graph, found: Found) -> tuple[LayerReport, ...]:
    """One for each node of the graph that has steps of its own; steps that packing added follow the node they serve."""
    circuit, assignment = found.built.circuit, found.built.assignment
    counts = count(found.built.program, found.built.lowered.layers)
    errors = {name: (error, largest) for name, error, largest in found.errors.layers}
    levels: dict[str, list[int]] = {}
    ciphertexts: dict[str, int] = {}
    for index, (name, step) in enumerate(zip(wiring.names(circuit), circuit.steps, strict=True)):
        out = assignment.step_levels[index]
        taken = 0 if index in assignment.unrescaled else wiring.depth_of(step)
        known = levels.setdefault(name, [out + taken, out])
        levels[name] = [max(known[0], out + taken), min(known[1], out)]
        ciphertexts[name] = max(ciphertexts.get(name, 0), len(makes(step)))
    described = _described(graph)
    return tuple(
        LayerReport(
            name,
            *described.get(name, ("repacking", (), ())),
            level_in=levels[name][0],
            level_out=levels[name][1],
            rotations=counts[name].rotations,
            diagonals=counts[name].diagonals,
            products=counts[name].products,
            ciphertexts=ciphertexts[name],
            time_ms=round(found.estimate.by_layer.get(name, 0.0) * 1e3, 4),
            error=errors[name][0],
            largest=errors[name][1],
        )
        for name in levels
    )


def totals(found: Found) -> TotalsReport:
    """Over the whole program."""
    program = found.built.program
    every = count(program, ("all",) * len(program.instructions))["all"]
    return TotalsReport(
        levels=found.built.assignment.depth,
        rotations=every.rotations,
        diagonals=every.diagonals,
        products=every.products,
        instructions=len(program.instructions),
        peak_ciphertexts=program.checked.peak_ciphertexts,
        time_ms=round(found.estimate.seconds * 1e3, 3),
        error=found.errors.deviation,
    )


def count(program: Program, names: tuple[str, ...]) -> Mapping[str, Counts]:
    """By layer; `names` are of the instructions."""
    counts: dict[str, Counts] = defaultdict(Counts)
    for instruction, name in zip(program.instructions, names, strict=True):
        counts[name].add(instruction)
    return counts


def _matrix_rotations(instruction: ops.Matrix) -> int:
    babies = {(i, b) for out in instruction.terms for terms in out for i, b, _ in terms if instruction.babies[b]}
    giants = [giant for out in instruction.terms for giant, terms in zip(instruction.giants, out, strict=True) if terms]
    return len(babies) + sum(1 for giant in giants if giant)


def _described(graph: Graph) -> dict[str, tuple[str, tuple[str, ...], Shape]]:
    shapes = graph.shapes()
    return {
        node.name: (
            in_words(node.operation, [shapes[name] for name in node.inputs], shapes[node.name]),
            tuple(name for name in node.inputs if name != graph.input),
            shapes[node.name],
        )
        for node in graph.nodes
    }


def in_words(operation: Operation, inputs: list[Shape], output: Shape) -> str:
    """Such as "dense 784 → 128"."""
    if isinstance(operation, graph_operations.Convolution):
        height, width = operation.weight.shape[2:]
        return f"convolution {height}×{width}, {_size(inputs[0])} → {_size(output)}"
    if isinstance(operation, graph_operations.Series):
        return "square" if operation.is_square else f"series of degree {operation.degree}"
    name = type(operation).__name__.lower()
    if isinstance(operation, graph_operations.Linear):
        return f"{name} {_size(inputs[0])} → {_size(output)}"
    return name


def _size(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "1"
