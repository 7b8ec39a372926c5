"""One suite over every backend, instruction set and thread count: equal bits for every primitive and composite."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.circuits.matrix import Goal, Layout
from lattice.fhe.circuits.polynomial import fit
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.presets import preset
from lattice.fhe.hal import available_backends, composites, interpreter, transcript
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal.backend import Backend, KeySwitchContext
from lattice.fhe.hal.composites import Composites, ProductPlan
from lattice.fhe.hal.program import Input, Program, Weight, scale_text
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.hal.validation import required_keys
from lattice.fhe.ring.automorphism import conjugation_element, rotation_element
from lattice.fhe.ring.primes import find_primes
from tests.support.encrypted import Client, noise, same_bits, tiny_parameters

REFERENCE = ReferenceBackend()
RINGS = [10, 11, 12, 13, 14]
SIZES = (50, 50, 49, 45, 36, 32, 31, 28, 20)
"""Bits of primes: the largest allowed, both sides of 32, and small ones."""


@cache
def moduli(log_n: int, count: int = len(SIZES)) -> tuple[int, ...]:
    taken: list[int] = []
    for bits in SIZES[:count]:
        taken += find_primes(bits, 1 << log_n, 1, taken)
    return tuple(taken)


def tensor(shape: tuple[int, ...], primes: tuple[int, ...], kind: str = "random", seed: int = 0) -> np.ndarray:
    """Reduced residues `[*shape, limbs, n]`: random ones, or the extremes."""
    n = shape[-1]
    full = (*shape[:-1], len(primes), n)
    column = np.array(primes, dtype=np.uint64)[:, None]
    if kind == "zeros":
        return np.zeros(full, dtype=np.uint64)
    if kind == "largest":
        return np.ascontiguousarray(np.broadcast_to(column - np.uint64(1), full))
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.broadcast_to(column, full), dtype=np.uint64)


KINDS = ["random", "zeros", "largest"]


def equal(got: Any, wanted: Any) -> None:
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.dtype == np.uint64
    assert got.shape == wanted.shape
    assert np.array_equal(got, wanted), f"{np.count_nonzero(got != wanted)} of {got.size} entries differ"


def test_native_code_is_there() -> None:
    if "native" not in available_backends():
        pytest.skip("the native module is not built here: only the reference was tested against itself")


# --- primitives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("log_n", RINGS)
def test_transforms(backend: Backend, log_n: int, kind: str) -> None:
    n, primes = 1 << log_n, moduli(log_n)
    x = tensor((n,), primes, kind, log_n)
    forward = REFERENCE.ntt(x, primes, n)
    equal(backend.ntt(x, primes, n), forward)
    equal(backend.intt(forward, primes, n), x)
    equal(backend.intt(x, primes, n), REFERENCE.intt(x, primes, n))


@pytest.mark.parametrize("log_n", [15, 16])
def test_large_transforms(backend: Backend, log_n: int) -> None:
    n, primes = 1 << log_n, moduli(log_n, 2)
    x = tensor((n,), primes, "random", log_n)
    forward = REFERENCE.ntt(x, primes, n)
    equal(backend.ntt(x, primes, n), forward)
    equal(backend.intt(forward, primes, n), x)


def test_leading_axes_are_a_batch(backend: Backend) -> None:
    n, primes = 1024, moduli(10, 3)
    x, y = tensor((2, 3, n), primes, seed=1), tensor((2, 3, n), primes, seed=2)
    equal(backend.ntt(x, primes, n), REFERENCE.ntt(x, primes, n))
    equal(backend.mul_add(x, y, y, primes), REFERENCE.mul_add(x, y, y, primes))
    equal(backend.mul_scalar(x, [5, 6, 7], primes), REFERENCE.mul_scalar(x, [5, 6, 7], primes))
    equal(backend.automorphism_ntt(x, 5), REFERENCE.automorphism_ntt(x, 5))
    one = tensor((n,), primes, seed=3)
    for name in ("add", "sub", "mul"):
        equal(getattr(backend, name)(x, one, primes), getattr(REFERENCE, name)(x, one, primes))
    equal(backend.mul_add(x, y, one, primes), REFERENCE.mul_add(x, y, one, primes))
    kept, dropped = primes[:2], primes[2:]
    equal(backend.mod_down(x, kept, dropped), REFERENCE.mod_down(x, kept, dropped))


@pytest.mark.parametrize("kinds", [(a, b) for a in KINDS for b in KINDS], ids="-".join)
def test_pointwise(backend: Backend, kinds: tuple[str, str]) -> None:
    n, primes = 1024, moduli(10)
    x, y, acc = tensor((n,), primes, kinds[0], 1), tensor((n,), primes, kinds[1], 2), tensor((n,), primes, "largest")
    before = x.copy(), y.copy(), acc.copy()
    for name in ("add", "sub", "mul"):
        equal(getattr(backend, name)(x, y, primes), getattr(REFERENCE, name)(x, y, primes))
    equal(backend.neg(x, primes), REFERENCE.neg(x, primes))
    equal(backend.mul_add(acc, x, y, primes), REFERENCE.mul_add(acc, x, y, primes))
    scalars = [q - 1 for q in primes]
    equal(backend.mul_scalar(x, scalars, primes), REFERENCE.mul_scalar(x, scalars, primes))
    for changed, kept in zip((x, y, acc), before, strict=True):
        assert np.array_equal(changed, kept), "operations are out of place"


@pytest.mark.parametrize("log_n", [10, 13])
def test_automorphisms(backend: Backend, log_n: int) -> None:
    n, primes = 1 << log_n, moduli(log_n, 3)
    x = tensor((n,), primes)
    elements = [1, conjugation_element(n), *(rotation_element(step, n) for step in (1, 2, 7, n // 4, n // 2 - 1))]
    for g in elements:
        equal(backend.automorphism_ntt(x, g), REFERENCE.automorphism_ntt(x, g))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", [(1, 8), (2, 7), (4, 5), (8, 1)])
def test_base_conversion(backend: Backend, split: tuple[int, int], kind: str) -> None:
    n, primes = 1024, moduli(10)
    source, target = primes[: split[0]], primes[split[0] :]
    x = tensor((n,), source, kind, split[0])
    equal(backend.convert(x, source, target), REFERENCE.convert(x, source, target))
    equal(backend.mod_up(x, source, primes), REFERENCE.mod_up(x, source, primes))
    both = tensor((n,), primes, kind, split[0])
    equal(backend.mod_down(both, source, target), REFERENCE.mod_down(both, source, target))
    equal(backend.rescale(both, source, target), REFERENCE.rescale(both, source, target))


# --- key switching ----------------------------------------------------------------------------------------

SHAPES = {
    "one digit": ((30,), (50,)),
    "one special prime": ((50, 45, 45, 45), (50,)),
    "grouped by bits": ((50, 26, 26, 26, 26), (29, 28)),
    "wide": ((50, 45, 45, 45, 45, 45, 45), (50, 50)),
    "many special primes": ((40,) * 9, (50, 50, 50)),
}


@cache
def switching(name: str, log_n: int = 10) -> tuple[KeySwitchContext, KeySwitchContext]:
    """The context of a ciphertext a little below the key's level, and that of the key."""
    q_bits, p_bits = SHAPES[name]
    taken: list[int] = []
    for bits in (*q_bits, *p_bits):
        taken += find_primes(bits, 1 << log_n, 1, taken)
    from lattice.fhe.ckks.digits import DigitPlan

    plan = DigitPlan(1 << log_n, tuple(taken[: len(q_bits)]), tuple(taken[len(q_bits) :]))
    return plan.context(max(1, len(q_bits) - 1)), plan.context(len(q_bits))


@pytest.mark.parametrize("name", SHAPES)
def test_decomposition_and_gadget_product(backend: Backend, name: str) -> None:
    for ctx in switching(name):
        full = switching(name)[1]
        c = tensor((ctx.n,), ctx.q_moduli, "random", 3)
        digits = REFERENCE.decompose(c, ctx)
        equal(backend.decompose(c, ctx), digits)
        key = tensor((len(full.digits), 2, ctx.n), full.moduli, "random", 4)
        equal(backend.gadget_product(digits, key, ctx), REFERENCE.gadget_product(digits, key, ctx))
        largest = tensor((len(ctx.digits), ctx.n), ctx.moduli, "largest")
        key = tensor((len(full.digits), 2, ctx.n), full.moduli, "largest")
        equal(backend.gadget_product(largest, key, ctx), REFERENCE.gadget_product(largest, key, ctx))


@pytest.mark.parametrize("name", SHAPES)
def test_composites(backend: Backend, name: str) -> None:
    for ctx in switching(name):
        check_composites(backend, ctx, switching(name)[1])


@pytest.mark.slow
@pytest.mark.parametrize("log_n", [13, 14])
def test_composites_in_real_rings(backend: Backend, log_n: int) -> None:
    ctx, full = switching("wide", log_n)
    check_composites(backend, ctx, full)


def check_composites(backend: Backend, ctx: KeySwitchContext, full: KeySwitchContext) -> None:
    """Every composite of the backend against the default over the reference."""
    fused, n = Composites(backend), ctx.n
    x, y = tensor((2, n), ctx.q_moduli, seed=1), tensor((2, n), ctx.q_moduli, seed=2)
    keys = [tensor((len(full.digits), 2, n), full.moduli, seed=10 + i) for i in range(3)]
    g = [rotation_element(1, n), rotation_element(n // 4 + 3, n), conjugation_element(n)]
    before = [x.copy(), y.copy(), *(key.copy() for key in keys)]

    equal(fused.key_switch(x[1], keys[0], ctx), composites.key_switch(REFERENCE, x[1], keys[0], ctx))
    plain = [composites.rotate(REFERENCE, x, e, key, ctx) for e, key in zip(g, keys, strict=True)]
    for e, key, wanted in zip(g, keys, plain, strict=True):
        equal(fused.rotate(x, e, key, ctx), wanted)
    for got, wanted in zip(fused.rotate_hoisted(x, g, keys, ctx), plain, strict=True):
        equal(got, wanted)
    for got, wanted in zip(composites.rotate_hoisted(backend, x, g, keys, ctx), plain, strict=True):
        equal(got, wanted)
    equal(fused.rotate_sum(x, g[:2], keys[:2], ctx), composites.rotate_sum(REFERENCE, x, g[:2], keys[:2], ctx))
    triple = composites.multiply(REFERENCE, x, y, ctx.q_moduli)
    equal(fused.multiply(x, y, ctx.q_moduli), triple)
    equal(fused.relinearise(triple, keys[0], ctx), composites.relinearise(REFERENCE, triple, keys[0], ctx))

    by_element = dict(zip(g, keys, strict=True))
    diagonals = tensor((5, n), ctx.moduli, seed=5)
    for plan in product_plans(g):
        outs = fused.matrix([x, y], diagonals, by_element, plan, ctx)
        for got, wanted in zip(
            outs, composites.matrix(REFERENCE, [x, y], diagonals, by_element, plan, ctx), strict=True
        ):
            equal(got, wanted)
    terms = (((0, 0), (1, 4), (0, 2)), ((1, 1),))
    plain = tensor((5, n), ctx.q_moduli, seed=6)
    for cts in ([x, y], [triple, triple]):
        outs = fused.sum_plain(cts, plain, terms, ctx.q_moduli)
        for got, wanted in zip(outs, composites.sum_plain(REFERENCE, cts, plain, terms, ctx.q_moduli), strict=True):
            equal(got, wanted)
    for values in (1, 4, 8, n // 2, n):
        weights = tensor((3, 2, values), ctx.q_moduli, seed=7)
        outs = fused.sum_periodic([x, y], weights, ctx.q_moduli)
        for got, wanted in zip(outs, composites.sum_periodic(REFERENCE, [x, y], weights, ctx.q_moduli), strict=True):
            equal(got, wanted)
    for changed, kept in zip([x, y, *keys], before, strict=True):
        assert np.array_equal(changed, kept), "composites are out of place"


def product_plans(g: list[int]) -> list[ProductPlan]:
    """With and without the identity among babies and giants; a diagonal used twice; uneven terms; several inputs and
    results, of which some need no giant step that others need."""
    two = (((0, 0, 0), (1, 1, 1), (0, 2, 4)), ()), (((1, 2, 1),), ((0, 1, 2), (1, 2, 3))), ((), ((1, 0, 0),))
    return [
        ProductPlan((1, g[0]), (1, g[1]), ((((0, 0, 0), (0, 1, 1)), ((0, 0, 2), (0, 1, 3))),)),
        ProductPlan((g[0], g[2]), (g[1],), ((((0, 0, 4), (0, 1, 4)),),)),
        ProductPlan((1,), (1,), ((((0, 0, 3),),),)),
        ProductPlan((1,), (g[0], g[1], g[2]), ((((0, 0, 0),), ((0, 0, 1),), ((0, 0, 2),)),)),
        ProductPlan((g[2], 1, g[0]), (1,), ((((0, 2, 0), (0, 0, 1), (0, 1, 2)),),)),
        ProductPlan((1, g[0], g[1]), (1, g[2]), two),
        ProductPlan((1, g[0], g[1]), (g[0], g[2]), two),
        ProductPlan((g[2], g[0], g[1]), (g[1], 1), two),
        ProductPlan((1, g[0]), (1,), ((((1, 1, 0),),), (((1, 1, 1), (1, 0, 2)),))),
    ]


# --- ciphertexts ------------------------------------------------------------------------------------------


@cache
def client() -> Client:
    """A ring of 1024 with levels of one and of two primes."""
    params = tiny_parameters(
        10, levels=((36,),) * 4 + ((28, 27),) + ((36,),), base=(50,), special=(50, 50), scale_bits=36
    )
    top = params.max_level
    turns = sorted(
        {*range(1, 17), *(1 << bit for bit in range(9)), *(params.slots - k for k in range(1, 17)), 48, 96, 192}
    )
    rotations = [KeySpec.rotation(step, top, params) for step in turns]
    return Client.make(params, [KeySpec.relinearisation(top), KeySpec.conjugation(top, params), *rotations])


def test_the_evaluator_computes_the_same_bits_and_the_right_values(backend: Backend) -> None:
    one = client()
    v, w = noise(one.params.slots, 1), noise(one.params.slots, 2)
    x, y = one.encrypt(v), one.encrypt(w)
    ours, reference = one.evaluator(backend), one.evaluator()
    series = fit(lambda t: 1 / (1 + np.exp(-4 * t)), 15)
    m = noise(10 * 16).reshape(10, 16)
    small = one.encrypt(np.pad(w[:16], (0, one.params.slots - 16)), level=4)

    def results(e: Any) -> list[tuple[Any, Any]]:
        matrix = e.prepare_matrix(m, level=4, layout=Layout.SPARSE, goal=Goal.KEYS)
        return [
            (e.add(x, y), v + w),
            (e.add_plain(x, w), v + w),
            (e.multiply_plain(x, 0.5), v / 2),
            (e.rescale(e.multiply(e.drop(x, 4), e.drop(y, 4))), v * w),
            (e.conjugate(x), v),
            *zip(e.rotate_many(x, [1, 5, 16]), [np.roll(v, -k) for k in (1, 5, 16)], strict=True),
            (e.sum_slots(x, 16), sum(np.roll(v, -k) for k in range(16))),
            (e.sum_slots(x, 4, radix=4), sum(np.roll(v, -k) for k in range(4))),
            (e.matrix_vector(matrix, small), m @ w[:16]),
            (e.polynomial(e.drop(x, 4), series), series(v)),
            (e.mask(x, 7), np.where(np.arange(len(v)) < 7, v, 0)),
        ]

    for (got, value), (wanted, _) in zip(results(ours), results(reference), strict=True):
        assert same_bits(got, wanted)
        assert one.error(got, value) < 2.0**-18


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small-4096", "mlp-8192", "lenet-16384", "deep-16384"])
def test_real_parameters(backend: Backend, name: str) -> None:
    one = real_client(preset(name))
    v = noise(one.params.slots)
    x = one.encrypt(v)
    ours, reference = one.evaluator(backend), one.evaluator()
    for operation in (
        lambda e: e.rescale(e.square(x)),
        lambda e: e.rotate(x, 1),
        lambda e: e.sum_slots(e.drop(x, 1), 4, radix=4),
    ):
        assert same_bits(operation(ours), operation(reference))
    assert one.error(ours.rotate(x, 1), np.roll(v, -1)) < 2.0**-10


@cache
def real_client(params: ParameterSet) -> Client:
    """Few keys, because keys of real rings are large."""
    top = params.max_level
    turns = [KeySpec.rotation(1, top, params), KeySpec.rotation(2, 1, params), KeySpec.rotation(3, 1, params)]
    return Client.make(params, [KeySpec.relinearisation(top), *turns])


def test_key_generation_and_encryption_run_on_every_backend(backend: Backend) -> None:
    from lattice.fhe.keys.decryptor import Decryptor
    from lattice.fhe.keys.encryptor import SecretKeyEncryptor
    from lattice.fhe.keys.evaluation import KeyGenerator

    params = client().params
    generator = KeyGenerator(params, backend)
    secret = generator.secret_key()
    keys = generator.evaluation_keys(secret, rotations={1: 2}, relinearisation=2)
    one = Client(params, secret, keys)
    v = noise(params.slots)
    e = one.evaluator(backend)
    x = SecretKeyEncryptor(secret, backend).encrypt(e.encoder.encode(v, level=2)).expand(params)
    out = Decryptor(secret, backend).values(e.rescale(e.square(e.rotate(x, 1))))
    assert np.abs(out - np.roll(v, -1) ** 2).max() < 2.0**-18


# --- whole programs and transcripts -----------------------------------------------------------------------


def dense_program(params: ParameterSet) -> Program:
    """A layer, a square, a sum and a series: what a small model compiles to."""
    s = scale_text(params.scale)
    step = scale_text(params.levels[3][0])
    body = (
        ops.LoadInput(0, 0),
        ops.LoadWeight(1, 0),
        ops.Matrix((2,), (0,), 1, (0, 1), (0, 4), ((((0, 0, 0), (0, 1, 1)), ((0, 0, 2),)),)),
        ops.Rescale(3, 2),
        ops.LoadWeight(4, 1),
        ops.AddPlain(5, 3, 4),
        ops.SumSlots(6, 5, ((1,), (2,))),
        ops.Chebyshev(7, 6, (0.1, 0.2, 0.05), s, 1),
        ops.RotateHoisted((8, 9), 7, (1, 2)),
        ops.Add(10, 8, 9),
    )
    weights = (Weight(4, step, count=3, extended=True), Weight(3, s))
    return Program(params, (Input(4, s),), weights, body, (10, 6))


def test_programs_run_to_the_same_bits(backend: Backend) -> None:
    from lattice.fhe.hal.weights import Diagonals

    one = client()
    params, encoder = one.params, one.evaluator().encoder
    program = dense_program(params)
    diagonals = noise(3 * params.slots).reshape(3, -1) / 8
    scale = program.weights[0].kind.scale
    polys = encoder.encode_over(diagonals, scale, params.digit_plan(4).moduli)
    weights = [Diagonals(params.id, 4, scale, polys), encoder.encode(noise(params.slots, 4) / 8, level=3)]
    x = one.encrypt(noise(params.slots) / 8, level=4)
    got = interpreter.run(backend, program, [x], one.keys, weights)
    wanted = interpreter.run(REFERENCE, program, [x], one.keys, weights)
    assert all(same_bits(a, b) for a, b in zip(got, wanted, strict=True))
    exact = Client.make(params, required_keys(program), one.secret)
    assert len(interpreter.run(backend, program, [x], exact.keys, weights)) == 2


@cache
def recorded() -> transcript.Transcript:
    one = client()
    recorder: Any = transcript.Recorder(REFERENCE)
    e = one.evaluator(recorder)
    x = one.encrypt(noise(one.params.slots), level=2)
    e.rotate(e.rescale(e.square(e.add_plain(x, 0.25))), 3)
    result: transcript.Transcript = recorder.transcript()
    return result


def test_a_transcript_of_the_reference_replays(backend: Backend) -> None:
    assert transcript.replay(recorded(), backend) is None


# --- refusals ---------------------------------------------------------------------------------------------


def test_mistakes_are_typed_errors_on_every_backend(backend: Backend) -> None:
    one = client()
    e = one.evaluator(backend)
    x, low = one.encrypt(noise(4)), one.encrypt(noise(4), level=0)
    other = tiny_parameters(10, levels=((36,),), scale_bits=30)
    foreign = Client.make(other, []).encrypt(noise(4))
    mistakes = {
        "level_mismatch": lambda: e.add(x, low),
        "scale_mismatch": lambda: e.add(x, one.encrypt(noise(4), scale=2**30)),
        "level_exhausted": lambda: e.rescale(low),
        "missing_evaluation_key": lambda: e.rotate(x, 100),
        "parameters_mismatch": lambda: e.add(x, foreign),
        "components_mismatch": lambda: e.relinearise(x),
    }
    for code, mistake in mistakes.items():
        with pytest.raises(LatticeError) as caught:
            mistake()
        assert caught.value.code == code
        assert any(c.isdigit() for c in caught.value.message), "the numbers are in the message"


# --- memory -----------------------------------------------------------------------------------------------


def resident_kib() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_stays_flat_over_ten_thousand_operations(backend: Backend) -> None:
    one = client()
    e = one.evaluator(backend)
    x = one.encrypt(noise(one.params.slots) / 2, level=2)

    def ten_operations() -> None:
        a, b = e.rotate_many(x, [1, 2])
        c = e.rescale(e.multiply(e.add(a, b), x))
        e.add_plain(e.conjugate(e.negate(e.subtract(c, e.drop(c, 1)))), 0.5)

    rounds = 1000
    for _ in range(rounds // 10):
        ten_operations()
    before = resident_kib()
    for _ in range(rounds):
        ten_operations()
    assert resident_kib() - before < 4096, "KiB more than before"
