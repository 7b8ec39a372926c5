"""Digits are cut by bits, and a key for a level serves every level below."""

from __future__ import annotations

from math import prod

import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.digits import cut
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.presets import preset
from tests.support.fhe import deep, tiny

CASES = [deep(), tiny(), preset("mlp-8192"), preset("lenet-16384"), preset("deep-16384"), preset("deep-32768")]


@pytest.mark.parametrize("params", CASES, ids=lambda p: f"2^{p.log_n}")
def test_every_digit_is_sixteen_times_smaller_than_p_or_one_prime(params: ParameterSet) -> None:
    for level in range(params.max_level + 1):
        plan = params.digit_plan(level)
        ranges = plan.digits
        assert [start for start, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
        assert ranges[-1][1] == len(plan.q_moduli)
        for start, end in ranges:
            assert end - start == 1 or prod(plan.q_moduli[start:end]) * 16 <= prod(plan.special)


@pytest.mark.parametrize("params", CASES, ids=lambda p: f"2^{p.log_n}")
def test_cutting_a_key_gives_the_digits_of_the_lower_level(params: ParameterSet) -> None:
    for key_level in range(params.max_level + 1):
        for level in range(key_level + 1):
            context = params.key_switch_context(level, key_level)
            assert context == params.key_switch_context(level, level)
            assert hash(context) == hash(params.key_switch_context(level, level))
            assert context.moduli == params.q_moduli(level) + params.special


def test_the_design_example_does_not_join_fifty_and_twenty_six_bits() -> None:
    p = preset("mlp-8192")
    assert p.digit_plan(4).digits == ((0, 1), (1, 3), (3, 5))


def test_the_gadget_is_p_on_the_digit_and_zero_elsewhere() -> None:
    plan = deep().digit_plan(4)
    q, special = prod(plan.q_moduli), prod(plan.special)
    for digit, (start, end) in enumerate(plan.digits):
        d = prod(plan.q_moduli[start:end])
        g = (q // d) * pow(q // d, -1, d)
        assert plan.gadget(digit) == tuple(special * g % m for m in plan.moduli)


def test_a_key_of_a_higher_level_lends_its_limbs() -> None:
    context = deep().key_switch_context(1, 4)
    assert context.key_limbs(7) == [0, 1, 6]
    assert context.digit_moduli(0) == deep().q_moduli(1)[:1]


def test_no_key_reaches_above_its_level() -> None:
    with pytest.raises(LatticeError, match="made for level 1 and the ciphertext is at level 3"):
        deep().key_switch_context(3, 1)
    with pytest.raises(LatticeError, match="without special primes"):
        preset("linear-2048").digit_plan(0)


def test_nothing_to_cut() -> None:
    assert cut((), (3,)) == ()
