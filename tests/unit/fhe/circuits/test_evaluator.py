"""The evaluator's arithmetic, by decryption; its levels and scales, exactly; its refusals, by code and numbers."""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.circuits.evaluator import Evaluator
from lattice.fhe.circuits.matrix import Goal, Layout
from lattice.fhe.circuits.polynomial import Series, fit
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.hal.rules import EXACT_SCALE_BITS
from tests.support.encrypted import Client, noise, same_bits, tiny_client, tiny_parameters

CLOSE = 2.0**-24


@pytest.fixture
def client() -> Client:
    return tiny_client()


@pytest.fixture
def evaluator(client: Client) -> Evaluator:
    return client.evaluator()


def fails(code: str, *words: object) -> pytest.RaisesExc[LatticeError]:
    def check(error: LatticeError) -> bool:
        assert error.code == code
        for word in words:
            assert str(word) in error.message, error.message
        return True

    return pytest.RaisesExc(LatticeError, check=check)


def test_linear_arithmetic(client: Client, evaluator: Evaluator) -> None:
    v, w = noise(32, 1), noise(32, 2)
    x, y = client.encrypt(v), client.encrypt(w)
    assert client.error(evaluator.add(x, y), v + w) < CLOSE
    assert client.error(evaluator.subtract(x, y), v - w) < CLOSE
    assert client.error(evaluator.negate(x), -v) < CLOSE
    assert client.error(evaluator.add_plain(x, w), v + w) < CLOSE
    assert client.error(evaluator.add_plain(x, 0.25), v + 0.25) < CLOSE
    assert client.error(evaluator.add_plain(x, evaluator.encoder.encode(w)), v + w) < CLOSE


def test_products_keep_scales_exact(client: Client, evaluator: Evaluator) -> None:
    v, w = noise(32, 1), noise(32, 2)
    x, y = client.encrypt(v), client.encrypt(w)
    product = evaluator.multiply(x, y)
    assert product.scale == x.scale * y.scale
    assert client.error(product, v * w) < CLOSE
    rescaled = evaluator.rescale(product)
    assert rescaled.level == x.level - 1
    assert rescaled.scale == Fraction(x.scale * y.scale, client.params.levels[-1][0])
    assert client.error(rescaled, v * w) < CLOSE
    assert client.error(evaluator.square(x), v * v) < CLOSE
    weighted = evaluator.rescale(evaluator.multiply_plain(x, w))
    assert weighted.scale == x.scale
    assert client.error(weighted, v * w) < CLOSE
    assert client.error(evaluator.multiply_plain(x, -0.5), v * -0.5) < CLOSE
    assert client.error(evaluator.multiply_plain(x, 0.5, scale=8), v * 0.5) < CLOSE


def test_products_of_three_components_add_before_one_relinearisation(client: Client, evaluator: Evaluator) -> None:
    v, w = noise(32, 1), noise(32, 2)
    x, y = client.encrypt(v), client.encrypt(w)
    both = evaluator.add(evaluator.multiply(x, y, relinearise=False), evaluator.multiply(x, x, relinearise=False))
    assert len(both.components) == 3
    assert client.error(both, v * w + v * v) < CLOSE
    assert client.error(evaluator.relinearise(both), v * w + v * v) < CLOSE
    mixed = evaluator.subtract(evaluator.multiply(x, y), evaluator.multiply(x, x, relinearise=False))
    assert client.error(mixed, v * w - v * v) < CLOSE
    mixed = evaluator.subtract(evaluator.multiply(x, y, relinearise=False), evaluator.multiply(x, x))
    assert client.error(mixed, v * w - v * v) < CLOSE


def test_a_level_may_be_several_primes() -> None:
    client = tiny_client(tiny_parameters(levels=((28, 27), (30,), (28, 28)), base=(45, 40), scale_bits=50))
    evaluator = client.evaluator()
    v = noise(32)
    x = client.encrypt(v)
    once = evaluator.rescale(evaluator.square(x))
    assert once.level == 2
    assert once.components.shape[1] == len(client.params.q_moduli(3)) - 2
    assert client.error(once, v * v) < 2.0**-34
    assert client.error(evaluator.rotate(once, 5), np.roll(v * v, -5)) < 2.0**-32


@pytest.mark.parametrize("steps", [1, 5, 31, -1, -7, 33])
def test_rotations_turn_left(client: Client, evaluator: Evaluator, steps: int) -> None:
    v = noise(32)
    assert client.error(evaluator.rotate(client.encrypt(v), steps), np.roll(v, -steps)) < CLOSE


def test_rotations_at_every_level_use_one_key(client: Client, evaluator: Evaluator) -> None:
    v = noise(32)
    for level in range(client.params.max_level + 1):
        assert client.error(evaluator.rotate(client.encrypt(v, level), 3), np.roll(v, -3)) < CLOSE


def test_hoisted_rotations_have_the_bits_of_plain_ones(client: Client, evaluator: Evaluator) -> None:
    x = client.encrypt(noise(32))
    steps = [3, 0, 17, 3, -1]
    for step, out in zip(steps, evaluator.rotate_many(x, steps), strict=True):
        assert same_bits(out, evaluator.rotate(x, step))
    assert same_bits(evaluator.rotate(x, 0), x)


def test_conjugation(client: Client, evaluator: Evaluator) -> None:
    v = noise(32, 1) + 1j * noise(32, 2)
    assert client.error(evaluator.conjugate(client.encrypt(v)), v.conj()) < CLOSE


@pytest.mark.parametrize("radix", [2, 4, 8])
def test_sums(client: Client, evaluator: Evaluator, radix: int) -> None:
    v = noise(32)
    x = client.encrypt(v)
    assert client.error(evaluator.sum_slots(x, radix=radix), np.full(32, v.sum())) < 32 * CLOSE
    windows = [sum(np.roll(v, -k)[i] for k in range(8)) for i in range(32)]
    assert client.error(evaluator.sum_slots(x, 8, radix=radix), windows) < 8 * CLOSE
    strided = sum(np.roll(v, -4 * k) for k in range(4))
    assert client.error(evaluator.inner_sum(x, 4, 4, radix=radix), strided) < 4 * CLOSE


def test_a_mask_leaves_nothing_behind(client: Client, evaluator: Evaluator) -> None:
    v = noise(32)
    out = evaluator.mask(client.encrypt(v), [0, 2])
    assert client.error(out, np.where(np.isin(np.arange(32), [0, 2]), v, 0.0)) < CLOSE


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("goal", list(Goal))
@pytest.mark.parametrize("shape", [(5, 16), (16, 5), (1, 16), (7, 7), (16, 1), (3, 2)])
def test_matrix_products(
    client: Client, evaluator: Evaluator, layout: Layout, goal: Goal, shape: tuple[int, int]
) -> None:
    m = noise(shape[0] * shape[1]).reshape(shape)
    v = noise(shape[1], 3)
    period = 1 << (max(shape) - 1).bit_length() if layout is Layout.PERIODIC else 1 << (shape[1] - 1).bit_length()
    if layout is Layout.FOLDED and shape[0] > shape[1]:
        period = 1 << (shape[0] - 1).bit_length()
    padded = np.concatenate([v, np.zeros(period - len(v))])
    slots = v if layout is Layout.SPARSE else np.tile(padded, 32 // period)
    prepared = evaluator.prepare_matrix(m, level=3, layout=layout, goal=goal)
    assert {spec.level for spec in prepared.keys(client.params)} <= {3}
    x = client.encrypt(slots, level=3)
    out = evaluator.matrix_vector(prepared, x)
    assert (out.level, out.scale) == (2, x.scale)
    assert client.error(out, m @ v) < 32 * CLOSE
    if layout is Layout.SPARSE:
        assert np.abs(client.values(out)[shape[0] :]).max() < CLOSE


def test_a_matrix_may_fill_the_slots(client: Client, evaluator: Evaluator) -> None:
    m, v = noise(32 * 32).reshape(32, 32), noise(32)
    for goal in Goal:
        prepared = evaluator.prepare_matrix(m, level=2, goal=goal)
        assert client.error(evaluator.matrix_vector(prepared, client.encrypt(v, 2)), m @ v) < 32 * CLOSE


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5, 6, 7, 8, 11, 15, 16, 23, 31, 32, 40, 63])
def test_polynomials_are_depth_optimal_and_exact_in_scale(client: Client, evaluator: Evaluator, degree: int) -> None:
    series = Series(tuple(noise(degree + 1, degree)))
    v = noise(32)
    x = client.encrypt(v)
    out = evaluator.polynomial(x, series)
    assert out.level == x.level - degree.bit_length()
    assert out.scale == x.scale
    slope = np.abs(np.arange(degree + 1) ** 2 @ np.abs(series.coefficients))
    assert client.error(out, series(v)) < CLOSE * (4 + slope)
    other = evaluator.polynomial(x, series, scale=Fraction(2**40, 3))
    assert other.scale == Fraction(2**40, 3)


def test_every_split_computes_the_same_function(client: Client, evaluator: Evaluator) -> None:
    series = fit(lambda t: 1 / (1 + np.exp(-6 * t)), 31)
    v = noise(32)
    x = client.encrypt(v)
    for split in range(1, 7):
        assert client.error(evaluator.polynomial(x, series, split=split), series(v)) < 16 * CLOSE


def test_scales_stay_small_where_exact_fractions_would_explode() -> None:
    """Bug: degree 511 failed because the exact scale of T_256 has 22,000 bits; eleven squarings would have 90,000."""
    client = tiny_client(tiny_parameters(levels=((36,),) * 11))
    evaluator = client.evaluator()
    series = fit(lambda t: 1 / (1 + 25 * t * t), 511)
    v = noise(32)
    x = client.encrypt(v)
    out = evaluator.polynomial(x, series)
    assert (out.level, out.scale) == (2, x.scale)
    assert client.error(out, series(v)) < 2**-12
    power = client.encrypt(v)
    for _ in range(11):
        power = evaluator.rescale(evaluator.square(power))
        assert max(power.scale.numerator.bit_length(), power.scale.denominator.bit_length()) <= EXACT_SCALE_BITS
    assert client.error(power, v**2048) < 2**-12


def test_an_interval_costs_one_level(client: Client, evaluator: Evaluator) -> None:
    v = 3 * noise(32) + 1
    x = client.encrypt(v)
    series = fit(np.exp, 7, (-2.0, 4.0))
    out = evaluator.polynomial(x, series)
    assert out.level == x.level - series.depth == x.level - 4
    assert client.error(out, series(v)) < 2**8 * CLOSE
    assert np.abs(series(v) - np.exp(v)).max() <= series.error
    assert same_bits(evaluator.chebyshev(x, series.coefficients, (-2.0, 4.0)), out)


def test_adjust_reaches_a_scale_exactly(client: Client, evaluator: Evaluator) -> None:
    v = noise(32)
    x = client.encrypt(v)
    out = evaluator.adjust(x, 2, Fraction(2**34, 7))
    assert (out.level, out.scale) == (2, Fraction(2**34, 7))
    assert client.error(out, v) < CLOSE
    with fails("level_exhausted", "level 6"):
        evaluator.adjust(x, 6, x.scale)


def test_coefficients_and_constants(client: Client, evaluator: Evaluator) -> None:
    v = noise(64)
    x = client.encrypt(v, encoding=Encoding.COEFFICIENTS)
    constant = client.encrypt(0.5, encoding=Encoding.CONSTANT)
    assert client.error(evaluator.multiply(x, constant), v / 2) < CLOSE
    w = noise(64, 5)
    convolved = np.convolve(v, w)
    wanted = convolved[:64] - np.append(convolved[64:], 0)
    assert client.error(evaluator.multiply_plain(x, w), wanted) < 8 * CLOSE
    slots = client.encrypt(noise(32))
    assert client.error(evaluator.add(slots, constant), noise(32) + 0.5) < CLOSE
    for operation in (evaluator.add, evaluator.multiply):
        with fails("scale_mismatch", "slots", "coefficients"):
            operation(x, slots)
    with fails("scale_mismatch"):
        evaluator.rotate(x, 1)
    with fails("scale_mismatch"):
        evaluator.add_plain(x, 1.0)


def test_mismatches_are_refused_with_the_numbers(client: Client, evaluator: Evaluator) -> None:
    x = client.encrypt(noise(32))
    low = client.encrypt(noise(32), level=2)
    for operation in (evaluator.add, evaluator.subtract, evaluator.multiply):
        with fails("level_mismatch", 6, 2):
            operation(x, low)
    other = client.encrypt(noise(32), scale=2**30)
    for operation in (evaluator.add, evaluator.subtract):
        with fails("scale_mismatch", "2^36", "2^30"):
            operation(x, other)
    with fails("scale_mismatch", "2^36", "2^30"):
        evaluator.add_plain(x, evaluator.encoder.encode(1.0, scale=2**30))
    with fails("level_mismatch", 6, 2):
        evaluator.multiply_plain(x, evaluator.encoder.encode(noise(32), level=2))
    with fails("level_mismatch", 2, 3):
        evaluator.drop(low, 3)
    with fails("level_mismatch", 6, 2):
        evaluator.matrix_vector(evaluator.prepare_matrix([[1.0]], level=2), x)


def test_an_exhausted_level_is_refused(client: Client, evaluator: Evaluator) -> None:
    bottom = client.encrypt(noise(32), level=0)
    with fails("level_exhausted", "level 0"):
        evaluator.rescale(bottom)
    with fails("level_exhausted", "2^72", "2^46"):
        evaluator.multiply(bottom, bottom)
    with fails("level_exhausted", "5 levels", "has 4"):
        evaluator.chebyshev(client.encrypt(noise(32), level=4), noise(20))
    with fails("scale_mismatch", "less than 1"):
        evaluator.rescale(client.encrypt(noise(32), scale=2**30))
    with fails("level_exhausted"):
        evaluator.prepare_matrix([[1.0]], level=0)


def test_components_are_counted(client: Client, evaluator: Evaluator) -> None:
    x = client.encrypt(noise(32))
    triple = evaluator.multiply(x, x, relinearise=False)
    with fails("components_mismatch", 3, 2):
        evaluator.multiply(triple, triple)
    with fails("components_mismatch", 3, 2):
        evaluator.rotate(triple, 1)
    with fails("components_mismatch", 2, 3):
        evaluator.relinearise(x)


def test_a_missing_key_names_rotation_and_level(client: Client) -> None:
    bare = Client.make(client.params, [KeySpec.rotation(1, 2, client.params)])
    evaluator = bare.evaluator()
    x = bare.encrypt(noise(32))
    with fails("missing_evaluation_key", "rotation by 7", "level 6"):
        evaluator.rotate(x, 7)
    with fails("missing_evaluation_key", "rotation by 1", "level 6"):
        evaluator.rotate(x, 1)
    with fails("missing_evaluation_key", "relinearisation", "level 6"):
        evaluator.multiply(x, x)
    with fails("missing_evaluation_key", "conjugation", "level 6"):
        evaluator.conjugate(x)
    low = evaluator.drop(x, 1)
    assert bare.error(evaluator.rotate(low, 1), np.roll(noise(32), -1)) < CLOSE
    with fails("missing_evaluation_key"):
        Evaluator(client.params, None, evaluator.backend).rotate(x, 1)


def test_other_parameters_are_refused(client: Client, evaluator: Evaluator) -> None:
    other = tiny_client(tiny_parameters(scale_bits=35))
    foreign = other.encrypt(noise(32))
    x = client.encrypt(noise(32))
    for operation in (evaluator.add, evaluator.subtract, evaluator.multiply):
        with fails("parameters_mismatch"):
            operation(x, foreign)
    for single in (evaluator.negate, evaluator.rescale, evaluator.conjugate, evaluator.sum_slots):
        with fails("parameters_mismatch"):
            single(foreign)
    with fails("parameters_mismatch"):
        evaluator.add_plain(x, other.evaluator().encoder.encode(1.0))
    with fails("parameters_mismatch"):
        evaluator.matrix_vector(other.evaluator().prepare_matrix([[1.0]], level=6), x)
    with fails("parameters_mismatch"):
        Evaluator(other.params, client.keys)


def test_circuits_refuse_nonsense(client: Client, evaluator: Evaluator) -> None:
    x = client.encrypt(noise(32))
    for bad in ([1.0], [], [1.0, 0.0], [0.0, float("nan")], [0.0, float("inf")], [1.0] * 5000):
        with fails("circuit_invalid"):
            evaluator.chebyshev(x, bad)
    for count in (3, 0, 1, 64):
        with fails("circuit_invalid"):
            evaluator.sum_slots(x, count) if count else evaluator.inner_sum(x, 0, 1)
    for matrix in ([[0.0]], [], [[]], np.ones((33, 2)), [1.0]):
        with fails("circuit_invalid"):
            evaluator.prepare_matrix(matrix, level=3)
    with fails("values_unencodable"):
        evaluator.prepare_matrix([[float("nan")]], level=3)
    for used in ([], 0, [32], [-1]):
        with fails("circuit_invalid"):
            evaluator.mask(x, used)


def test_operations_leave_their_operands_alone(client: Client, evaluator: Evaluator) -> None:
    x, y = client.encrypt(noise(32)), client.encrypt(noise(32, 1))
    before = x.components.copy(), y.components.copy()
    evaluator.polynomial(evaluator.add(evaluator.rotate(x, 1), y), fit(np.sin, 5))
    evaluator.sum_slots(evaluator.rescale(evaluator.multiply(x, y)))
    evaluator.add_plain(x, 1.0)
    assert np.array_equal(before[0], x.components)
    assert np.array_equal(before[1], y.components)


def test_an_evaluator_says_what_it_is_and_holds_no_secret(client: Client, evaluator: Evaluator) -> None:
    assert repr(evaluator) == f"Evaluator({client.params.id}, backend=reference)"
    held = pickle.dumps([evaluator.params, evaluator._on.keys])
    assert b"lattice.fhe.keys" not in held
    assert client.secret.coefficients().tobytes() not in held
