"""Parameters are values, and insecure ones do not exist."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from math import log2, prod

import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import InsecureTestParameters, Parameters, parameters, refuse_insecure
from lattice.fhe.ckks.presets import PRESETS, preset, table
from lattice.fhe.ckks.security import MAX_LOG_QP, Security, log2_product, require_secure
from tests.support.fhe import deep, tiny


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_within_the_bound(name: str) -> None:
    p = preset(name)
    assert prod(p.primes()) <= 2 ** MAX_LOG_QP[Security.CLASSICAL][p.log_n]
    assert all(q < 1 << 50 and q % (2 * p.n) == 1 for q in p.primes())
    assert len(set(p.primes())) == len(p.primes())
    assert name in table()


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(LatticeError, match="mlp-8192"):
        preset("mlp")


def test_the_table_is_that_of_the_guidelines() -> None:
    assert list(MAX_LOG_QP[Security.CLASSICAL].values()) == [26, 53, 106, 214, 430, 868, 1747]
    assert list(MAX_LOG_QP[Security.QUANTUM].values()) == [20, 40, 80, 161, 322, 644, 1289]


def test_one_bit_too_many_is_refused_with_the_numbers() -> None:
    parameters(log_n=13, base_bits=50, level_bits=[41, 41, 41], special_bits=[41])
    with pytest.raises(LatticeError, match=r"log2\(QP\) is 215\.00 at N = 2\^13.*at most 214") as caught:
        parameters(log_n=13, base_bits=50, level_bits=[41, 41, 41], special_bits=[42])
    assert caught.value.code == "parameters_insecure"
    assert caught.value.details["max_log_qp"] == 214


def test_quantum_attackers_allow_less() -> None:
    parameters(log_n=13, base_bits=50, level_bits=[41], special_bits=[50], security="quantum")
    with pytest.raises(LatticeError, match="quantum attackers allow at most 161"):
        parameters(log_n=13, base_bits=50, level_bits=[41, 41], special_bits=[50], security="quantum")


@pytest.mark.parametrize("change", [{"secret": "sparse"}, {"error_eta": 20}, {"error_eta": 1}])
def test_other_distributions_have_no_bound(change: dict[str, object]) -> None:
    with pytest.raises(LatticeError) as caught:
        Parameters.from_dict({**deep().to_dict(), **change})
    assert caught.value.code == "parameters_insecure"


def test_the_exact_product_decides_not_a_rounded_logarithm() -> None:
    class Fake:
        log_n, secret, error_eta = 11, "ternary", 21

        def __init__(self, product: int) -> None:
            self.product = product

        def primes(self) -> tuple[int, ...]:
            return (self.product,)

    require_secure(Fake(1 << 53))
    with pytest.raises(LatticeError):
        require_secure(Fake((1 << 53) + 1))


def test_levels_are_groups_of_primes() -> None:
    p = deep()
    assert [len(p.q_moduli(level)) for level in range(5)] == [1, 2, 3, 5, 6]
    assert p.dropped(3) == p.levels[2]
    assert len(p.dropped(3)) == 2
    assert p.q_moduli(2) + p.dropped(3) == p.q_moduli(3)
    assert p.log_q(0) == pytest.approx(log2(p.base[0]))
    assert p.log_qp == pytest.approx(sum(log2(q) for q in p.primes()))


def test_level_zero_has_nothing_to_drop() -> None:
    with pytest.raises(LatticeError) as caught:
        deep().dropped(0)
    assert caught.value.code == "level_exhausted"
    with pytest.raises(LatticeError) as caught:
        deep().q_moduli(5)
    assert caught.value.code == "level_mismatch"


def test_parameters_are_frozen_hashable_and_named_by_their_content() -> None:
    p = deep()
    again = Parameters.from_dict(p.to_dict())
    assert (again, hash(again), again.id) == (p, hash(p), p.id)
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.log_n = 3  # type: ignore[misc]
    assert dataclasses.replace(p, scale=Fraction(1 << 20)).id != p.id


@pytest.mark.parametrize(
    "change",
    [
        {"log_n": 9},
        {"log_n": 17},
        {"base": []},
        {"levels": [[]]},
        {"base": [15]},
        {"base": [(1 << 50) + 4 * 8192 + 1]},
        {"scale": [0, 1]},
        {"scale": [1, 0]},
        {"scale": "12"},
        {"surprise": 1},
        {"special": list(deep().base)},
        {"security": "none"},
    ],
)
def test_malformed_parameters_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(LatticeError) as caught:
        Parameters.from_dict({**deep().to_dict(), **change})
    assert caught.value.code == "invalid_parameters"


def test_test_parameters_say_what_they_are_and_stay_inside() -> None:
    p = tiny()
    assert isinstance(p, InsecureTestParameters)
    assert p.insecure
    assert "InsecureTestParameters" in repr(p)
    with pytest.raises(LatticeError, match="never leave the process"):
        refuse_insecure(p)
    refuse_insecure(deep())


def test_the_logarithm_of_a_product() -> None:
    assert log2_product([1 << 1747]) == 1747
    assert log2_product([3, 5]) == pytest.approx(log2(15))
