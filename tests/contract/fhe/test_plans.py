"""Whole programs in one call: the interpreter's bits on every path, for any program that the check accepts; and plans
whose numbers are not as they must be are refused before anything runs."""

from __future__ import annotations

import weakref
from contextlib import suppress
from random import Random
from typing import Any

import numpy as np
import pytest

from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.hal import interpreter
from lattice.fhe.hal.backend import Backend
from lattice.fhe.hal.operations import Operations
from lattice.fhe.hal.plan import plan_of
from lattice.fhe.hal.program import Program
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.hal.weights import AnyPlaintext, tensor_of
from tests.contract.fhe.test_backends import client as real_client
from tests.support.encrypted import Client, noise, same_bits, tiny_client
from tests.support.programs import INPUTS, accepted, random_weights

native = pytest.importorskip("lattice.fhe._native")


def interpreted(one: Client, backend: Backend, program: Program, inputs: Any, weights: Any) -> list[Ciphertext]:
    """Without a backend's own `run`."""
    return interpreter.interpret(Operations(one.params, one.keys, backend), program, program.checked, inputs, weights)


def material(one: Client) -> tuple[list[Ciphertext], list[AnyPlaintext]]:
    return [one.encrypt(noise(one.params.slots), level=entry.level) for entry in INPUTS], random_weights(one)


@pytest.mark.parametrize("seed", range(6))
def test_random_programs_run_to_the_same_bits(backend: Backend, seed: int) -> None:
    one = tiny_client()
    program = accepted(one.params, seed, 120)
    inputs, weights = material(one)
    wanted = interpreted(one, ReferenceBackend(), program, inputs, weights)
    for got in (
        interpreter.run(backend, program, inputs, one.keys, weights),
        interpreted(one, backend, program, inputs, weights),
    ):
        assert all(same_bits(x, y) for x, y in zip(got, wanted, strict=True))


@pytest.mark.parametrize("seed", [11, 12])
def test_random_programs_over_a_ring_with_lanes(backend: Backend, seed: int) -> None:
    """Vectors are not used for the tiny ring."""
    one = real_client()
    program = accepted(one.params, seed, 40)
    inputs, weights = material(one)
    wanted = interpreted(one, ReferenceBackend(), program, inputs, weights)
    got = interpreter.run(backend, program, inputs, one.keys, weights)
    assert all(same_bits(x, y) for x, y in zip(got, wanted, strict=True))


def plan_and_arguments(seed: int = 3) -> tuple[Any, tuple[Any, Any, Any]]:
    one = tiny_client()
    plan = plan_of(accepted(one.params, seed, 60))
    inputs, weights = material(one)
    keys = [one.keys.tensor(spec.element, spec.level) for spec in plan.keys]
    return plan, ([x.components for x in inputs], [tensor_of(w) for w in weights], keys)


def test_plans_with_damaged_numbers_are_refused_or_harmless() -> None:
    """Any word changed: a ValueError, or a plan that still fits the arrays and stays within them."""
    plan, arguments = plan_and_arguments()
    rng, refused = Random(5), 0
    for trial in range(1500):
        words = plan.words.copy()
        for _ in range(rng.randrange(1, 3)):
            at = rng.randrange(len(words)) if trial % 3 else rng.randrange(min(len(words), 120))
            words[at] = rng.choice(
                [0, 1, 2, 17, 64, 1 << 22, 1 << 40, 2**64 - 1, int(words[at]) + 1, rng.randrange(99)]
            )
        try:
            native.Plan(words).run(*arguments)
        except ValueError:
            refused += 1
    assert refused > 700


def test_plans_cut_short_are_refused() -> None:
    plan, _ = plan_and_arguments()
    for length in range(len(plan.words)):
        with pytest.raises(ValueError, match="plan"):
            native.Plan(plan.words[:length])
    with pytest.raises(ValueError, match="length"):
        native.Plan(np.append(plan.words, np.uint64(0)))


def test_arrays_that_do_not_fit_a_plan_are_refused() -> None:
    plan, (inputs, weights, keys) = plan_and_arguments()
    made = native.Plan(plan.words)
    assert keys
    bad = [
        (inputs[:1], weights, keys),
        (inputs, weights[:-1], keys),
        (inputs, weights, keys[:-1]),
        (inputs[::-1], weights, keys),
        (inputs, weights[::-1], keys),
        (inputs, weights, [np.ascontiguousarray(key[:, :, :-1]) for key in keys]),
        (inputs, weights, [np.ascontiguousarray(key[..., :32]) for key in keys]),
        ([np.ascontiguousarray(x[:1]) for x in inputs], weights, keys),
    ]
    for arguments in bad:
        with pytest.raises(ValueError, match=r"\w"):
            made.run(*arguments)


def test_registers_do_not_outlive_their_last_use() -> None:
    """A thousand runs leave nothing behind."""
    plan, arguments = plan_and_arguments()
    made = native.Plan(plan.words)
    made.run(*arguments)
    before = native.kept_bytes()
    for _ in range(1000):
        made.run(*arguments)
    assert native.kept_bytes() <= before + (1 << 20)


def test_a_plan_is_made_once_for_a_program_and_dies_with_it() -> None:
    from lattice.fhe.hal.native import NativeBackend

    one = tiny_client()
    program = accepted(one.params, 4, 10)
    inputs, weights = material(one)
    backend = NativeBackend()
    interpreter.run(backend, program, inputs, one.keys, weights)
    kept = program.__dict__["_native_plan"]
    interpreter.run(backend, program, inputs, one.keys, weights)
    assert program.__dict__["_native_plan"] is kept
    gone = weakref.ref(program)
    with suppress(UnboundLocalError):
        del program, kept
    assert gone() is None
