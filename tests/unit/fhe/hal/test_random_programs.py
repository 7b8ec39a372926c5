"""Whatever the check accepts runs, to exactly the types that it predicted; whatever it refuses, it refuses by name."""

from __future__ import annotations

from contextlib import suppress
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal import interpreter
from lattice.fhe.hal.abstract_run import AbstractRun
from lattice.fhe.hal.instructions import Instruction
from lattice.fhe.hal.program import Input, Program, Weight, scale_text
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.hal.rules import CiphertextType, bits
from lattice.fhe.hal.weights import AnyPlaintext, encode_diagonals, encode_periodic
from tests.support.encrypted import Client, noise, tiny_client

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
    out, steps = registers, rng.randrange(-1, 34)
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


def accepted(seed: int, tries: int) -> Program:
    """A program of those candidates that fitted."""
    params, rng = tiny_client().params, Random(seed)
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
    encoder, out = client.evaluator().encoder, list[AnyPlaintext]()
    for weight in WEIGHTS:
        scale, level, count = weight.kind.scale, weight.level, weight.count
        if weight.period:
            values = noise(count * weight.period).reshape(count // 2, 2, -1)
            out.append(encode_periodic(encoder, values, level=level, scale=scale))
        elif count:
            values, extended = noise(count * 32).reshape(count, 32), weight.extended
            out.append(encode_diagonals(encoder, values, level=level, scale=scale, extended=extended))
        else:
            out.append(encoder.encode(noise(32), level=level, scale=scale))
    return out


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), tries=st.integers(0, 120))
def test_what_is_accepted_runs_to_the_predicted_types(seed: int, tries: int) -> None:
    client, program = tiny_client(), accepted(seed, tries)
    weights = random_weights(client)
    inputs = [client.encrypt(noise(32), level=entry.level) for entry in INPUTS]
    outputs = interpreter.run(ReferenceBackend(), program, inputs, client.keys, weights)
    for got, wanted in zip(outputs, program.checked.outputs, strict=True):
        assert type_of(got) == wanted
        limbs = client.params.q_moduli(got.level)
        assert got.components.shape == (wanted.components, len(limbs), 64)
        assert (got.components < np.array(limbs, dtype=np.uint64)[:, None]).all(), "reduced"
        assert 0 <= bits(got.scale) < sum(map(np.log2, limbs))


def type_of(x: Ciphertext) -> CiphertextType:
    return CiphertextType(x.level, x.scale, len(x.components), x.encoding)
