"""Secrets in native memory and their numpy twin: the same bits on every instruction set and number of threads."""

from __future__ import annotations

import json
from itertools import count

import numpy as np
import pytest
from spec.vectors.fhe import generate

from lattice.fhe.ckks.evaluation_keys import KeySpec, key_half
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.public_key import public_half
from lattice.fhe.ckks.seeds import SPECIAL_INDEX, KeyStream, Stream, UniformPolynomial, uniform_residues
from lattice.fhe.hal.backend import Backend
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.keys.sampling import binomial_of, secret_bytes
from lattice.fhe.keys.secret_memory import SecretMemory, encrypt_into, encrypt_zero, secret_memory
from tests.support.fhe import deep, random_residues, small, tiny
from tests.unit.fhe.test_vectors import load

SEED = bytes(range(32))
REFERENCE = ReferenceBackend()
RINGS = [tiny(4), tiny(), small(), deep()]


def stream(kind: int, number: int, count: int) -> np.ndarray:
    """Key stream in the memory in which the client has it."""
    out = secret_bytes(count)
    out[:] = KeyStream(SEED, kind, number).words(count // 8).view(np.uint8)
    return out


def twins(params: ParameterSet, backend: Backend) -> tuple[SecretMemory, SecretMemory]:
    """The same secret in the contestant's memory and in numpy."""
    pair = secret_memory(params.n, backend), secret_memory(params.n, REFERENCE)
    for memory in pair:
        memory.sample_ternary(stream(Stream.SECRET, 0, 8 * (params.n // 20 + 64)))
    return pair


@pytest.mark.parametrize("params", RINGS, ids=lambda p: f"2^{p.log_n}")
def test_decryption(backend: Backend, params: ParameterSet) -> None:
    ours, twin = twins(params, backend)
    moduli = params.primes()
    for components in (1, 2, 3):
        c = random_residues(np.random.default_rng(components), moduli, params.n, components)
        assert np.array_equal(ours.decrypt(c, moduli), twin.decrypt(c, moduli))


@pytest.mark.parametrize("params", RINGS, ids=lambda p: f"2^{p.log_n}")
def test_encryption(backend: Backend, params: ParameterSet) -> None:
    ours, twin = twins(params, backend)
    half = public_half(params, SEED, params.max_level)
    error = stream(Stream.ERROR, 0, 8 * params.n)
    plain = random_residues(np.random.default_rng(1), half.moduli, params.n)
    for hidden in (None, plain):
        got, wanted = (np.empty_like(plain) for _ in range(2))
        encrypt_into(ours, got, half, error, 21, plain=hidden)
        encrypt_into(twin, wanted, half, error, 21, plain=hidden)
        assert np.array_equal(got, wanted)


@pytest.mark.parametrize("params", RINGS, ids=lambda p: f"2^{p.log_n}")
def test_keys(backend: Backend, params: ParameterSet) -> None:
    """Every digit of a key at every level, for s², a rotation and the conjugation."""
    ours, twin = twins(params, backend)
    for level in (0, params.max_level):
        plan = params.digit_plan(level)
        for spec in (
            KeySpec.relinearisation(level),
            KeySpec.rotation(3, level, params),
            KeySpec.conjugation(level, params),
        ):
            for digit in range(len(plan.digits)):
                half, error = key_half(params, spec, SEED, digit), stream(Stream.ERROR, digit, 8 * params.n)
                got, wanted = (np.empty((len(plan.moduli), params.n), dtype=np.uint64) for _ in range(2))
                for memory, out in ((ours, got), (twin, wanted)):
                    encrypt_into(memory, out, half, error, 21, gadget=plan.gadget(digit), element=spec.element)
                assert np.array_equal(got, wanted), spec.id


@pytest.mark.parametrize("params", RINGS, ids=lambda p: f"2^{p.log_n}")
def test_encryptions_of_zero_under_a_public_key(backend: Backend, params: ParameterSet) -> None:
    half = public_half(params, SEED, params.max_level)
    b = random_residues(np.random.default_rng(2), half.moduli, params.n)
    u = stream(Stream.SECRET, 0, 8 * (params.n // 20 + 64))
    errors = [stream(Stream.ERROR, number, 8 * params.n) for number in range(2)]
    got, wanted = (encrypt_zero(b, half, u, errors, 21, on) for on in (backend, REFERENCE))
    assert np.array_equal(got, wanted)


@pytest.mark.parametrize("eta", [1, 2, 21, 31, 32])
def test_errors_of_any_width(backend: Backend, eta: int) -> None:
    """With a = 0 and s = 0 nothing is left but the error."""
    params = tiny()
    memory, zero = secret_memory(params.n, backend), np.zeros((len(params.primes()), params.n), dtype=np.uint64)
    out, error = np.empty_like(zero), stream(Stream.ERROR, 0, 8 * params.n)
    encrypt_into(memory, out, public_half(params, SEED, params.max_level), error, eta)
    got = REFERENCE.intt(out, params.primes(), params.n)[0].view(np.int64)
    got = np.where(got > params.primes()[0] // 2, got - params.primes()[0], got)
    assert np.array_equal(got, binomial_of(error.view(np.uint64), eta))


def test_packing(backend: Backend) -> None:
    ours, twin = twins(small(), backend)
    packed = [secret_bytes(small().n // 4) for _ in range(2)]
    for memory, out in zip((ours, twin), packed, strict=True):
        memory.pack_into(out)
    assert np.array_equal(*packed)
    again, coefficients = secret_memory(small().n, backend), [np.empty(small().n, dtype=np.int8) for _ in range(2)]
    again.unpack(packed[0])
    again.get_into(coefficients[0])
    twin.get_into(coefficients[1])
    assert np.array_equal(*coefficients)
    packed[0][7] = 0b11_00_00_00
    with pytest.raises(ValueError, match="-1, 0 or 1"):
        again.unpack(packed[0])


def test_what_does_not_fit_is_refused(backend: Backend) -> None:
    params = small()
    ours, _ = twins(params, backend)
    half, error = public_half(params, SEED, params.max_level), stream(Stream.ERROR, 0, 8 * params.n)
    out = np.empty((len(half.moduli), params.n), dtype=np.uint64)
    with pytest.raises((ValueError, TypeError)):
        encrypt_into(ours, out[:-1], half, error, 21)
    with pytest.raises((ValueError, TypeError)):
        encrypt_into(ours, out, half, error[: 8 * params.n - 8], 21)
    with pytest.raises((ValueError, TypeError)):
        encrypt_into(ours, out, half, error, 21, plain=out[:1, :5].copy())
    with pytest.raises(ValueError, match="few"):
        ours.sample_ternary(error[:64])


def test_the_known_answers(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys, encryption and decryption of the whole client, on every contestant as on the reference."""
    monkeypatch.setattr(generate, "B", backend)
    for name in ("expansion", "key_switching", "blobs"):
        assert json.loads(json.dumps(getattr(generate, name)())) == load(name)


# --- public seeds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [257, 12289, (1 << 25) + 1, (1 << 49) + 69, (1 << 50) - 27])
@pytest.mark.parametrize("n", [2, 16, 64, 1000, 4096])
def test_public_seeds_expand_to_what_the_library_gives(backend: Backend, q: int, n: int) -> None:
    indices = [0, 5, SPECIAL_INDEX | 1, (1 << 32) - 1]
    got = UniformPolynomial(SEED, Stream.GALOIS, 0xFFFF, [q] * 4, indices, n).expand()
    assert np.array_equal(got, [uniform_residues(SEED, Stream.GALOIS, 0xFFFF, index, q, n) for index in indices])


def test_expansion_without_aes_instructions(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the library expands, and encryption is handed the result."""
    native = pytest.importorskip("lattice.fhe._native", reason="the native module is not built here")
    params, error = small(), stream(Stream.ERROR, 0, 8 * small().n)
    half = public_half(params, SEED, params.max_level)
    results = []
    for kernel in (native.draw_kernel(), "portable"):
        monkeypatch.setattr(native, "draw_kernel", lambda kernel=kernel: kernel)
        ours, _ = twins(params, backend)
        out = np.empty((len(half.moduli), params.n), dtype=np.uint64)
        encrypt_into(ours, out, half, error, 21)
        results += [out, half.expand()]
    assert np.array_equal(results[0], results[2])
    assert np.array_equal(results[1], results[3])


def test_native_expansion_refuses_what_is_no_public_stream() -> None:
    native = pytest.importorskip("lattice.fhe._native", reason="the native module is not built here")
    room = np.empty((1, 64), dtype=np.uint64)
    for seed, kind, digit, indices in (
        (bytes(31), 3, 0, [0]),
        (SEED, 0x8001, 0, [0]),
        (SEED, 1 << 16, 0, [0]),
        (SEED, 3, 1 << 16, [0]),
        (SEED, 3, 0, [1 << 32]),
    ):
        with pytest.raises(ValueError, match=r"seed|stream"):
            native.UniformPolynomial(seed, kind, digit, indices)
    good = native.UniformPolynomial(SEED, 3, 0, [0])
    for out, moduli in ((room, [257, 257]), (room, []), (room, [1]), (room, [1 << 63])):
        with pytest.raises(ValueError, match=r"shape|room|prime"):
            good.expand_into(out, moduli)
    for wrong in (room.astype(np.int64), room[:, ::2], memoryview(bytes(512))):
        with pytest.raises((TypeError, ValueError)):
            good.expand_into(wrong, [257])


def test_pieces_of_a_stream_join(backend: Backend) -> None:
    """Sizes around the boundaries of what is drawn at once, with half of the draws skipped."""
    q = (1 << 30) + 3
    whole = uniform_residues(SEED, 1, 0, 0, q, 4096)
    for n in (*range(1, 10), 63, 64, 65, 127, 128, 1023, 1024, 1025, 4095):
        assert np.array_equal(UniformPolynomial(SEED, 1, 0, [q], [0], n).expand()[0], whole[:n])


def test_secret_bytes_are_recycled_and_zero_after_use() -> None:
    """What the next user gets is what the last one left: nothing."""
    native = pytest.importorskip("lattice.fhe._native", reason="the native module is not built here")
    seen = set()
    for turn in count():
        room = native.secret_bytes(1 << 13)
        address = room.ctypes.data
        assert not room.any()
        room[:] = 0xA5
        del room
        if address in seen or turn > 100:
            break
        seen.add(address)
    assert turn <= 100, "nothing is recycled"
