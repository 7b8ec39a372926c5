"""An evaluation that is cancelled stops between two instructions; one that is not has the bits that it always had."""

from __future__ import annotations

import threading

import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.cancel import Cancel
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal import interpreter
from lattice.fhe.hal.backend import Backend
from lattice.fhe.hal.program import Input, Program, scale_text
from lattice.fhe.hal.reference import ReferenceBackend
from tests.contract.fhe.test_backends import client as real_client
from tests.support.encrypted import Client, noise, same_bits

LONG = 200_000
"""Rotations; minutes of work on any backend."""


def rotations(one: Client, count: int) -> Program:
    steps = (ops.LoadInput(0, 0), *(ops.Rotate(number + 1, number, 1) for number in range(count)))
    top = one.params.max_level
    return Program(one.params, (Input(top, scale_text(one.params.scale)),), (), steps, (count,))


def test_bits_do_not_depend_on_a_token_that_nobody_uses(backend: Backend) -> None:
    one = real_client()
    program, given = rotations(one, 5), [one.encrypt(noise(one.params.slots))]
    (wanted,) = interpreter.run(backend, program, given, one.keys)
    (found,) = interpreter.run(backend, program, given, one.keys, cancel=Cancel())
    assert same_bits(found, wanted)


def test_a_token_that_was_cancelled_before_runs_nothing(backend: Backend) -> None:
    one, cancel = real_client(), Cancel()
    cancel.cancel()
    with pytest.raises(LatticeError) as caught:
        interpreter.run(backend, rotations(one, 5), [one.encrypt(noise(one.params.slots))], one.keys, cancel=cancel)
    assert (caught.value.code, caught.value.details) == ("work_cancelled", {"executed": 0})


@pytest.mark.timeout(120)
def test_a_long_program_is_cancelled_well_before_its_end(backend: Backend) -> None:
    """By count of what was executed, however fast the machine is."""
    one, cancel = real_client(), Cancel()
    program, given = rotations(one, LONG), [one.encrypt(noise(one.params.slots))]
    program.checked  # noqa: B018  what can be done before is done before
    ended: list[LatticeError] = []

    def work() -> None:
        try:
            interpreter.run(backend, program, given, one.keys, cancel=cancel)
        except LatticeError as error:
            ended.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    cancel.cancel()
    thread.join()
    assert [error.code for error in ended] == ["work_cancelled"]
    assert ended[0].details["executed"] < LONG // 10


def test_the_interpreter_stops_at_the_very_next_instruction() -> None:
    one, cancel = real_client(), Cancel()
    done = []

    class Third(ReferenceBackend):
        """Somebody cancels during the third rotation."""

        def gadget_product(self, *given, **named):  # type: ignore[no-untyped-def]
            done.append(None)
            if len(done) == 3:
                cancel.cancel()
            return super().gadget_product(*given, **named)

    with pytest.raises(LatticeError) as caught:
        interpreter.run(Third(), rotations(one, 50), [one.encrypt(noise(one.params.slots))], one.keys, cancel=cancel)
    assert (len(done), caught.value.details) == (3, {"executed": 4})  # the load, and three rotations
