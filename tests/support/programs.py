"""Random programs that the check accepts, and weights for them."""

from __future__ import annotations

from contextlib import suppress
from random import Random

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal.abstract_run import AbstractRun
from lattice.fhe.hal.instructions import Instruction
from lattice.fhe.hal.program import Input, Program, Weight, scale_text
from lattice.fhe.hal.rules import CiphertextType
from lattice.fhe.hal.weights import AnyPlaintext, encode_diagonals, encode_periodic
from tests.support.encrypted import Client, noise

S = scale_text(2**36)
INPUTS = (Input(6, S), Input(3, S))
WEIGHTS = (
    Weight(6, S),
    Weight(5, S),
    Weight(5, S, count=2, extended=True),
    Weight(3, S, count=3, extended=True),
    Weight(5, S, count=3),
    Weight(5, S, count=4, period=4),
    Weight(3, S, count=2, period=1),
)


def candidate(rng: Random, registers: int) -> Instruction:
    """Any instruction on any registers; most do not fit."""
    a, b, c = (rng.randrange(registers) for _ in range(3))
    out, steps = registers, rng.choice([-1, 0, *range(1, 17), 32])
    return rng.choice(
        [
            ops.LoadInput(out, rng.randrange(3)),
            ops.LoadWeight(out, rng.randrange(8)),
            ops.Add(out, a, b),
            ops.Subtract(out, a, b),
            ops.Negate(out, a),
            ops.AddPlain(out, a, b),
            ops.MultiplyPlain(out, a, b),
            ops.AddConstant(out, a, rng.uniform(-1, 1)),
            ops.MultiplyConstant(out, a, rng.uniform(-1, 1), S),
            ops.Multiply(out, a, b),
            ops.Relinearise(out, a),
            ops.Rescale(out, a),
            ops.Drop(out, a, rng.randrange(7)),
            ops.Rotate(out, a, steps),
            ops.RotateHoisted((out, out + 1), a, (steps, 3)),
            ops.Conjugate(out, a),
            ops.Matrix((out,), (a,), b, (0, 1), (0, steps), ((((0, 0, 0),), ((0, 1, 1), (0, 0, 0))),)),
            ops.Matrix((out, out + 1), (a, c), b, (1, 0), (steps,), ((((1, 0, 0),),), (((0, 1, 1), (1, 0, 1)),))),
            ops.SumPlain((out, out + 1), (a, c), b, (((0, 0), (1, 2)), ((1, rng.randrange(4)),))),
            ops.SumPeriodic((out, out + 1)[: rng.randrange(1, 3)], (a, c)[: rng.randrange(1, 3)], b),
            ops.Chebyshev(out, a, (0.1, 0.5, 0.0, rng.uniform(-1, 1)), S, rng.randrange(4)),
            ops.SumSlots(out, a, ((1,), (2, 4))),
        ]
    )


def accepted(params: ParameterSet, seed: int, tries: int) -> Program:
    """A program of those candidates that fitted."""
    rng = Random(seed)
    body: list[Instruction] = [ops.LoadInput(0, 0), ops.LoadWeight(1, 0), ops.LoadInput(2, 1)]
    run = AbstractRun(Program(params, INPUTS, WEIGHTS, (), (0,)))
    for instruction in body:
        run.step(instruction)
    for _ in range(tries):
        instruction = candidate(rng, len(run.types))
        with suppress(LatticeError):
            run.step(instruction)
            body.append(instruction)
    outputs = tuple(register for register, kind in run.types.items() if isinstance(kind, CiphertextType))
    return Program(params, INPUTS, WEIGHTS, tuple(body), outputs)


def random_weights(client: Client) -> list[AnyPlaintext]:
    """Values for `WEIGHTS`."""
    encoder, slots, out = client.evaluator().encoder, client.params.slots, list[AnyPlaintext]()
    for weight in WEIGHTS:
        scale, level, count = weight.kind.scale, weight.level, weight.count
        if weight.period:
            values = noise(count * weight.period).reshape(count // 2, 2, -1)
            out.append(encode_periodic(encoder, values, level=level, scale=scale))
        elif count:
            values, extended = noise(count * slots).reshape(count, slots), weight.extended
            out.append(encode_diagonals(encoder, values, level=level, scale=scale, extended=extended))
        else:
            out.append(encoder.encode(noise(slots), level=level, scale=scale))
    return out
