"""Mismatches are typed errors with the numbers in them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import (
    Ciphertext,
    Encoding,
    Plaintext,
    check_addable,
    check_shape,
    show_scale,
)
from tests.support.fhe import deep, tiny

P = tiny()
CT = Ciphertext(P.id, 1, Fraction(1 << 26), np.zeros((2, 2, P.n), dtype=np.uint64))


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"params_id": "par_other"}, "parameters_mismatch", "par_other"),
        ({"level": 2}, "level_mismatch", "at level 1, the other at 2"),
        ({"scale": Fraction(1 << 25)}, "scale_mismatch", r"2\^26\.0+, the other 2\^25\.0+ \(ratio 2\)"),
        ({"encoding": Encoding.COEFFICIENTS}, "scale_mismatch", "slots, the other as coefficients"),
    ],
)
def test_what_does_not_match_is_named(change: dict[str, object], code: str, words: str) -> None:
    check_addable(CT, CT)
    with pytest.raises(LatticeError, match=words) as caught:
        check_addable(CT, replace(CT, **change))  # type: ignore[arg-type]
    assert caught.value.code == code


def test_shapes_belong_to_levels() -> None:
    check_shape(CT, P)
    check_shape(replace(CT, components=np.zeros((3, 2, P.n), dtype=np.uint64)), P)
    check_shape(Plaintext(P.id, 0, Fraction(1), np.zeros((1, P.n), dtype=np.uint64)), P)
    for bad in ((4, 2, P.n), (2, 3, P.n), (2, P.n)):
        with pytest.raises(LatticeError, match="not one of level 1"):
            check_shape(replace(CT, components=np.zeros(bad, dtype=np.uint64)), P)
    with pytest.raises(LatticeError, match="has parameters"):
        check_shape(CT, deep())


def test_scales_are_shown_as_powers_of_two() -> None:
    assert show_scale(Fraction(1 << 40)) == "2^40.000000"
    assert show_scale(Fraction(1, 3)) == "2^-1.584963"
