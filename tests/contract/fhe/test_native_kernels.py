"""What the contract suite does not ask of every backend: odd sizes, hostile arguments, threads, memory, secrets."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import resource
import threading
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.digits import DigitPlan, KeySwitchContext
from lattice.fhe.ckks.seeds import KeyStream, Stream
from lattice.fhe.hal import composites
from lattice.fhe.hal.composites import ProductPlan
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.keys.sampling import ternary
from lattice.fhe.ring.automorphism import ntt_permutation, rotation_element
from lattice.fhe.ring.primes import find_primes, root_of_unity

native = pytest.importorskip("lattice.fhe._native", reason="the native module is not built here")
from lattice.fhe.hal.native import NativeBackend  # noqa: E402

REFERENCE = ReferenceBackend()
ISAS = native.available_isas()


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    isa, threads = native.isa(), native.threads()
    yield
    native.set_isa(isa)
    native.set_threads(threads)


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    native.set_isa(request.param)
    return request.param


@cache
def primes(log_n: int, *bits: int) -> tuple[int, ...]:
    taken: list[int] = []
    for size in bits:
        taken += find_primes(size, 1 << log_n, 1, taken)
    return tuple(taken)


def residues(moduli: tuple[int, ...], *shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    column = np.array(moduli, dtype=np.uint64)[:, None]
    return rng.integers(0, np.broadcast_to(column, (*shape[:-1], len(moduli), shape[-1])), dtype=np.uint64)


def context(log_n: int, q_bits: tuple[int, ...], p_bits: tuple[int, ...]) -> KeySwitchContext:
    moduli = primes(log_n, *q_bits, *p_bits)
    return DigitPlan(1 << log_n, moduli[: len(q_bits)], moduli[len(q_bits) :]).context(len(q_bits))


# --- arithmetic -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_n", range(3, 10))
def test_small_rings_from_the_definition(isa: str, log_n: int) -> None:
    n = 1 << log_n
    for q in primes(log_n, 50, 49, 48, 30, 17):
        psi = root_of_unity(q, n)
        assert native.root(q, n) == psi
        for a in (residues((q,), n)[0], np.full(n, q - 1, dtype=np.uint64), np.zeros(n, dtype=np.uint64)):
            out = native.ntt(a[None], [q])[0]
            for i in {0, 1, 2, n // 2, n - 1}:
                position = int(format(i, f"0{log_n}b")[::-1], 2)
                wanted = sum(int(x) * pow(psi, (2 * i + 1) * j, q) for j, x in enumerate(a)) % q
                assert int(out[position]) == wanted
            assert np.array_equal(native.intt(out[None], [q])[0], a)


@pytest.mark.parametrize("log_n", [3, 4, 5, 7, 8, 10])
def test_automorphisms_of_small_rings(isa: str, log_n: int) -> None:
    n = 1 << log_n
    x = np.arange(3 * n, dtype=np.uint64).reshape(3, n)
    for g in (1, 3, 5, 2 * n - 1, pow(5, 3, 2 * n)):
        assert np.array_equal(native.automorphism_ntt(x, g), x[:, ntt_permutation(g, n)])


def test_products_near_every_bound(isa: str) -> None:
    """All pairs of the residues at which a lazy or a floating-point reduction could slip."""
    for q in primes(10, 50, 49, 48, 40, 33, 20):
        edges = [0, 1, 2, q - 1, q - 2, q // 2, q // 2 + 1, q // 3, (1 << (q.bit_length() - 1)) - 1]
        pairs = [(a % q, b % q) for a in edges for b in edges]
        pairs += [(0, 0)] * (1024 - len(pairs))
        x, y = (np.array([pair[side] for pair in pairs], dtype=np.uint64)[None] for side in (0, 1))
        wanted = np.array([a * b % q for a, b in pairs], dtype=np.uint64)[None]
        assert np.array_equal(native.mul(x, y, [q]), wanted)
        assert np.array_equal(native.mul_add(y, x, y, [q])[0], (wanted[0] + y[0]) % np.uint64(q))
        for w in edges:
            scaled = np.array([a * (w % q) % q for a, _ in pairs], dtype=np.uint64)
            assert np.array_equal(native.mul_scalar(x, [w % q], [q])[0], scaled)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 16, 17])
def test_conversions_from_many_primes(isa: str, count: int) -> None:
    moduli = primes(10, *[36 + 2 * (i % 8) for i in range(count)], 50, 20)
    source, target = moduli[:count], moduli[count:]
    x = np.broadcast_to(np.array(source, dtype=np.uint64)[:, None] - np.uint64(1), (count, 1024)).copy()
    x[:, 512:] = residues(source, 512)
    assert np.array_equal(native.convert(x, source, target), REFERENCE.convert(x, source, target))


@pytest.mark.parametrize("count", [9, 17])
def test_key_switching_with_many_digits(isa: str, count: int) -> None:
    """More terms than a sum of products may have in one go."""
    ctx = context(10, (40,) * count, (45,))
    assert len(ctx.digits) == count
    largest = np.array(ctx.moduli, dtype=np.uint64)[:, None] - np.uint64(1)
    key = np.broadcast_to(largest, (count, 2, len(ctx.moduli), 1024)).copy()
    x = residues(ctx.q_moduli, 2, 1024)
    backend = NativeBackend()
    for g in (5, 2047):
        wanted = composites.rotate(REFERENCE, x, g, key, ctx)
        assert np.array_equal(backend.rotate(x, g, key, ctx), wanted)


def test_matrix_products_with_many_terms(isa: str) -> None:
    """Nineteen terms for one giant step, in chunks of eight; and none of the identity at all."""
    ctx = context(10, (50, 40, 40), (50, 50))
    elements = [rotation_element(step, ctx.n) for step in (1, 2, 5)]
    keys = {g: residues(ctx.moduli, len(ctx.digits), 2, ctx.n, seed=i) for i, g in enumerate(elements)}
    diagonals = residues(ctx.moduli, 19, ctx.n, seed=8)
    terms = tuple((0, d % 2, d) for d in range(19))
    x = residues(ctx.q_moduli, 2, ctx.n, seed=9)
    for plan in (
        ProductPlan((1, elements[0]), (elements[2],), ((terms,),)),
        ProductPlan((elements[1], elements[0]), (1, elements[2]), ((terms, terms[:8]),)),
    ):
        wanted = composites.matrix(REFERENCE, [x], diagonals, keys, plan, ctx)
        assert np.array_equal(NativeBackend().matrix([x], diagonals, keys, plan, ctx), wanted)


@pytest.mark.parametrize("log_n", [14, 15])
def test_equal_bits_on_every_path_of_large_rings(log_n: int) -> None:
    ctx = context(log_n, (50, 44, 44, 44, 44), (50, 49))
    keys = [residues(ctx.moduli, len(ctx.digits), 2, ctx.n, seed=i) for i in range(2)]
    x = residues(ctx.q_moduli, 2, ctx.n, seed=3)
    elements = [rotation_element(1, ctx.n), rotation_element(77, ctx.n)]
    backend, seen = NativeBackend(), []
    for name in ISAS:
        for threads in (1, 2, 5):
            native.set_isa(name)
            native.set_threads(threads)
            hoisted = backend.rotate_hoisted(x, elements, keys, ctx)
            for got, g, key in zip(hoisted, elements, keys, strict=True):
                assert np.array_equal(got, backend.rotate(x, g, key, ctx)), "hoisted and plain rotations are equal"
            seen.append(hoisted)
    assert all(np.array_equal(a, b) for other in seen[1:] for a, b in zip(seen[0], other, strict=True))


# --- arguments --------------------------------------------------------------------------------------------


def test_wrong_arguments_are_refused() -> None:
    n, moduli = 1024, primes(10, 40, 41)
    x = residues(moduli, n)
    refused = [
        lambda: native.ntt(x, moduli[:1]),
        lambda: native.ntt(x[0], moduli),
        lambda: native.ntt(x[:, :1000].copy(), moduli),
        lambda: native.ntt(x, [moduli[0], moduli[0] + 2]),
        lambda: native.ntt(x, [moduli[0], 2]),
        lambda: native.ntt(x, [moduli[0], 0]),
        lambda: native.ntt(x, [moduli[0], (1 << 51) + 1]),
        lambda: native.ntt(x, [moduli[0], (1 << 13) * 15 + 1]),
        lambda: native.add(x, x[:1], moduli),
        lambda: native.mul_scalar(x, [1], moduli),
        lambda: native.convert(x[:0], [], moduli),
        lambda: native.mod_down(x, moduli, []),
        lambda: native.automorphism_ntt(x, 2),
        lambda: native.automorphism_ntt(x, 2 * n + 1),
        lambda: native.multiply(x, x, moduli),
        lambda: native.set_isa("sse9"),
        lambda: native.set_threads(0),
        lambda: native.SwitchContext(n, moduli[:1], moduli[1:], [(0, 2)]),
        lambda: native.SwitchContext(n, moduli, [], [(0, 2)]),
        lambda: native.SwitchContext(n, moduli[:1], moduli[1:], []),
        lambda: native.SwitchContext(1000, moduli[:1], moduli[1:], [(0, 1)]),
    ]
    for call in refused:
        with pytest.raises(ValueError, match=r"\w"):
            call()
    for call in (lambda: native.ntt(x.astype(np.int64), moduli), lambda: native.ntt(x[:, ::2], moduli)):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(LatticeError, match="backend_unavailable"):
        NativeBackend().set_isa("sse9")


def test_keys_that_do_not_fit_are_refused_and_never_copied() -> None:
    ctx = context(10, (40, 40), (45,))
    own = native.SwitchContext(ctx.n, ctx.q_moduli, ctx.special, ctx.digits)
    key, ct = residues(ctx.moduli, 2, 2, ctx.n), residues(ctx.q_moduli, 2, ctx.n)
    for bad in (key[:1], key[:, :1], key[:, :, :2], key[..., :512], key[0]):
        with pytest.raises(ValueError, match="key"):
            own.rotate_hoisted(ct, [5], [np.ascontiguousarray(bad)])
    with pytest.raises(TypeError):
        own.rotate_hoisted(ct, [5], [key[:, ::-1]])
    with pytest.raises(ValueError, match="element"):
        own.rotate_hoisted(ct, [5, 25], [key])
    with pytest.raises(ValueError, match="term"):
        own.matrix([ct], residues(ctx.moduli, 1, ctx.n), {}, [1], [1], [[[(0, 0, 1)]]])
    with pytest.raises(ValueError, match="no key"):
        own.matrix([ct], residues(ctx.moduli, 1, ctx.n), {}, [5], [1], [[[(0, 0, 0)]]])


def test_numbers_that_are_not_reduced_do_no_harm(isa: str) -> None:
    """Garbage in, garbage out, but within the arrays."""
    ctx = context(10, (50, 40), (50,))
    ct = np.full((2, 2, ctx.n), np.iinfo(np.uint64).max, dtype=np.uint64)
    key = np.full((len(ctx.digits), 2, 3, ctx.n), np.iinfo(np.uint64).max, dtype=np.uint64)
    assert NativeBackend().rotate(ct, 5, key, ctx).shape == ct.shape


# --- threads and memory -----------------------------------------------------------------------------------


def test_calls_from_many_threads() -> None:
    ctx = context(12, (50, 40, 40), (50, 50))
    key, x = residues(ctx.moduli, len(ctx.digits), 2, ctx.n), residues(ctx.q_moduli, 2, ctx.n)
    backend, wrong = NativeBackend(), []
    native.set_threads(3)
    wanted = [backend.rotate(x, g, key, ctx) for g in (5, 25, 125)]

    def work() -> None:
        for _ in range(20):
            for g, expected in zip((5, 25, 125), wanted, strict=True):
                if not np.array_equal(backend.rotate(x, g, key, ctx), expected):
                    wrong.append(g)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for count in (1, 2, 4, 3):
        native.set_threads(count)
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_forked_child_computes() -> None:
    native.set_threads(2)
    moduli = primes(12, 50, 49, 48, 47, 46, 45, 44, 43)
    x = residues(moduli, 4096)
    wanted = native.ntt(x, moduli)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(native.ntt(x, moduli), wanted) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_memory_does_not_grow() -> None:
    ctx = context(11, (50, 40), (50,))
    key, x = residues(ctx.moduli, len(ctx.digits), 2, ctx.n), residues(ctx.q_moduli, 2, ctx.n)
    backend = NativeBackend()

    def run(times: int) -> int:
        for _ in range(times):
            backend.rotate(x, 5, key, ctx)
            backend.rescale(x, ctx.q_moduli[:1], ctx.q_moduli[1:])
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = run(200)
    assert run(3000) - before < 4096, "kilobytes"
    native.trim_memory()
    assert native.kept_bytes() == 0


def test_results_outlive_everything_else() -> None:
    q = primes(10, 40)
    x = residues(q, 1024)
    out = native.add(x, x, q)
    kept = out.copy()
    for _ in range(50):
        native.add(x, x, q)
    native.trim_memory()
    assert np.array_equal(out, kept)
    assert out.ctypes.data % 64 == 0


# --- secrets ----------------------------------------------------------------------------------------------


def test_a_secret_buffer_samples_what_python_samples() -> None:
    n, seed = 4096, bytes(range(32))
    uniform = KeyStream(seed, Stream.SECRET).words(n).astype("<u8").view(np.uint8)
    secret = native.SecretBuffer(n)
    secret.sample_ternary(uniform)
    out = np.empty(n, dtype=np.int8)
    secret.get_into(out)
    assert np.array_equal(out, ternary(KeyStream(seed, Stream.SECRET), n))
    with pytest.raises(ValueError, match="few"):
        secret.sample_ternary(uniform[:128])


def test_a_secret_buffer_decrypts(isa: str) -> None:
    n, moduli = 1024, primes(10, 50, 40)
    small = np.random.default_rng(1).integers(-1, 2, n).astype(np.int8)
    secret = native.SecretBuffer(n)
    secret.set(small)
    column = np.array(moduli, dtype=np.int64)[:, None]
    s = REFERENCE.ntt(np.remainder(small.astype(np.int64), column).view(np.uint64), moduli, n)
    c = residues(moduli, 3, n)
    wanted = REFERENCE.mul_add(c[0], REFERENCE.mul_add(c[1], c[2], s, moduli), s, moduli)
    assert np.array_equal(secret.decrypt(c, moduli), wanted)
    assert np.array_equal(secret.decrypt(c[:2], moduli), REFERENCE.mul_add(c[0], c[1], s, moduli))
    assert np.array_equal(secret.multiply(c[0], moduli), REFERENCE.mul(c[0], s, moduli))
    with pytest.raises(ValueError, match="ciphertext"):
        secret.decrypt(residues(moduli, 2, 512), moduli)
    with pytest.raises(ValueError, match="coefficients"):
        secret.set(np.full(n, 2, dtype=np.int8))


def test_a_secret_buffer_keeps_to_itself() -> None:
    secret = native.SecretBuffer(1024)
    secret.set(np.ones(1024, dtype=np.int8))
    assert repr(secret) == str(secret) == "SecretBuffer(n=1024)"
    for escape in (pickle.dumps, copy.copy, copy.deepcopy, memoryview, bytes):
        with pytest.raises(TypeError):
            escape(secret)
    secret.wipe()
    assert secret.wiped
    for use in (
        lambda: secret.get_into(np.empty(1024, dtype=np.int8)),
        lambda: secret.decrypt(residues(primes(10, 40), 2, 1024), primes(10, 40)),
    ):
        with pytest.raises(RuntimeError, match="wiped"):
            use()


def test_zeroise() -> None:
    array = np.arange(1000, dtype=np.float64)
    native.zeroise(array)
    assert not array.any()
    array.flags.writeable = False
    with pytest.raises(TypeError):
        native.zeroise(array)
