"""Lattigo (through the wheel `orion-v2-lattigo`, tests only) as an oracle: its bytes to our tensors and back.

Lattigo keeps polynomials in NTT form, bit-reversed like ours, but its 2N-th root of unity comes from the smallest
*primitive root* of the prime, ours from the smallest number that serves; with ψ_theirs = ψ_ours^k, theirs is our
tensor with the positions of the automorphism k. Keys are in Montgomery form besides (times 2^64), and a Galois key
switches to the inverse automorphism because Lattigo switches first and permutes afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from lattice.fhe.ckks.parameters import InsecureTestParameters, Parameters
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.ring.automorphism import automorphism_ntt, inverse_element
from lattice.fhe.ring.modulus import Residues, mul_scalar
from lattice.fhe.ring.ntt import NumpyTransforms
from lattice.fhe.ring.primes import root_of_unity
from tests.support.fhe import evaluations

WHY_SKIPPED = "the oracle needs the wheel orion-v2-lattigo (pip install orion-v2-lattigo)"


def prime_factors(number: int) -> set[int]:
    """By trial division; the numbers are a power of two times something small."""
    found, divisor = set(), 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.add(divisor)
            number //= divisor
        divisor += 1
    return found | ({number} if number > 1 else set())


@cache
def relation(q: int, n: int) -> int:
    """k with ψ_theirs = ψ_ours^k."""
    factors = prime_factors(q - 1)
    g = next(g for g in range(2, q) if all(pow(g, (q - 1) // f, q) != 1 for f in factors))
    theirs, ours = pow(g, (q - 1) // (2 * n), q), root_of_unity(q, n)
    value, step = ours, ours * ours % q
    for k in range(1, 2 * n, 2):
        if value == theirs:
            return k
        value = value * step % q
    raise AssertionError("both are primitive 2N-th roots")


def to_lattigo(x: Residues, moduli: Sequence[int], *, montgomery: bool = False) -> Residues:
    """Our evaluations `[limbs, N]` as Lattigo's."""
    n = x.shape[-1]
    out = np.stack([automorphism_ntt(limb, relation(q, n)) for limb, q in zip(x, moduli, strict=True)])
    return mul_scalar(out, [1 << 64] * len(moduli), moduli) if montgomery else out


def from_lattigo(x: Residues, moduli: Sequence[int], *, montgomery: bool = False) -> Residues:
    """Lattigo's evaluations as ours."""
    n = x.shape[-1]
    limbs = [automorphism_ntt(limb, inverse_element(relation(q, n), n)) for limb, q in zip(x, moduli, strict=True)]
    factors = [pow(1 << 64, -1, q) for q in moduli]
    return mul_scalar(np.stack(limbs), factors, moduli) if montgomery else np.stack(limbs)


def write_poly(x: Residues) -> bytes:
    """A polynomial: the number of limbs, then each limb with its length."""
    return struct.pack("<Q", len(x)) + b"".join(
        struct.pack("<Q", len(limb)) + limb.astype("<u8").tobytes() for limb in x
    )


def write_qp(x: Residues, q_limbs: int) -> bytes:
    """A polynomial over Q and P: one after the other."""
    return write_poly(x[:q_limbs]) + write_poly(x[q_limbs:])


class Reader:
    """Reads what Lattigo wrote, front to back."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def number(self) -> int:
        """A 64-bit count."""
        (out,) = struct.unpack_from("<Q", self.data, self.at)
        self.at += 8
        return int(out)

    def poly(self) -> Residues:
        """A polynomial."""
        return np.stack([self._limb() for _ in range(self.number())])

    def qp(self) -> Residues:
        """A polynomial over Q, then one over P."""
        return np.concatenate([self.poly(), self.poly()])

    def _limb(self) -> Residues:
        size = self.number()
        out = np.frombuffer(self.data, dtype="<u8", count=size, offset=self.at).astype(np.uint64)
        self.at += 8 * size
        return out


class Lattigo:
    """One set of parameters in Lattigo and, over the same primes, here."""

    def __init__(self, log_n: int, log_q: list[int], log_p: list[int], log_scale: int, *, secure: bool = True) -> None:
        from lattigo import ckks, rlwe

        self.rlwe: Any = rlwe
        self.params: Any = ckks.Parameters(log_n, log_q, log_p, log_scale, "standard")
        self.encoder: Any = ckks.Encoder(self.params)
        self.q = tuple(self.params.moduli_chain())
        self.p = tuple(self.params.aux_moduli_chain())
        make = Parameters if secure else InsecureTestParameters
        self.ours = make(log_n, self.q[:1], [(q,) for q in self.q[1:]], self.p, 1 << log_scale)
        self.generator: Any = rlwe.KeyGenerator(self.params)

    # --- their objects from ours --------------------------------------------------------------------------

    def secret_key(self, secret: SecretKey) -> Any:
        """Our secret, for Lattigo."""
        moduli = self.q + self.p
        s = to_lattigo(evaluations(secret, moduli), moduli, montgomery=True)
        return self.rlwe.SecretKey.unmarshal_binary(write_qp(s, len(self.q)))

    def public_key(self, b: Residues, a: Residues) -> Any:
        """Our public key, for Lattigo."""
        moduli = self.q + self.p
        halves = [write_qp(to_lattigo(half, moduli, montgomery=True), len(self.q)) for half in (b, a)]
        return self.rlwe.PublicKey.unmarshal_binary(struct.pack("<Q", 2) + b"".join(halves))

    def ciphertext(self, components: Residues, level: int) -> Any:
        """Our components, for Lattigo, at the default scale."""
        template = self.ciphertext_bytes(self.encrypt([0.0], self.generator.gen_secret_key(), level))
        moduli = self.q[: level + 1]
        tail = struct.pack("<Q", 2) + b"".join(write_poly(to_lattigo(c, moduli)) for c in components)
        return self.rlwe.Ciphertext.unmarshal_binary(template[: len(template) - len(tail)] + tail)

    # --- our tensors from theirs --------------------------------------------------------------------------

    def read_secret(self, key: Any) -> SecretKey:
        """Lattigo's secret, as ours."""
        moduli = self.q + self.p
        s = from_lattigo(Reader(key.marshal_binary()).qp(), moduli, montgomery=True)
        q = moduli[0]
        coefficients = NumpyTransforms().intt(s[:1], moduli[:1], self.ours.n)[0]
        return SecretKey(self.ours, np.where(coefficients == q - 1, -1, coefficients.view(np.int64)).astype(np.int8))

    def read_ciphertext(self, ciphertext: Any, level: int) -> Residues:
        """`[2, limbs, N]`."""
        data, moduli = self.ciphertext_bytes(ciphertext), self.q[: level + 1]
        size = 8 + 2 * (8 + len(moduli) * (8 + 8 * self.ours.n))
        reader = Reader(data, len(data) - size)
        assert reader.number() == 2
        return np.stack([from_lattigo(reader.poly(), moduli) for _ in range(2)])

    def read_plaintext(self, plaintext: Any, level: int) -> Residues:
        """`[limbs, N]`."""
        data, moduli = plaintext.marshal_binary(), self.q[: level + 1]
        return from_lattigo(Reader(data, len(data) - 8 - len(moduli) * (8 + 8 * self.ours.n)).poly(), moduli)

    def read_switching_key(self, data: bytes, element: int) -> Residues:
        """`[digits, 2, limbs, N]` in our convention; element 0 for relinearisation."""
        reader = Reader(data, 16 if element else 0)
        reader.number()  # base-two decomposition: none
        moduli, digits = self.q + self.p, []
        for _ in range(reader.number()):
            assert reader.number() == 1
            assert reader.number() == 2
            digits.append(np.stack([from_lattigo(reader.qp(), moduli, montgomery=True) for _ in range(2)]))
        out = np.stack(digits)
        return automorphism_ntt(out, element) if element else out

    # --- their work ---------------------------------------------------------------------------------------

    def encrypt(self, values: list[float], secret: Any, level: int) -> Any:
        """Public-key encryption under a fresh public key."""
        return self.encrypt_under(values, self.generator.gen_public_key(secret), level)

    def encrypt_under(self, values: list[float], public: Any, level: int) -> Any:
        """Public-key encryption at the default scale."""
        plain = self.encoder.encode(values, level, self.params.default_scale())
        return self.rlwe.Encryptor(self.params, public).encrypt_new(plain)

    def decrypt(self, ciphertext: Any, secret: Any) -> np.ndarray:
        """The real parts of all slots."""
        plain = self.rlwe.Decryptor(self.params, secret).decrypt_new(ciphertext)
        return np.array(self.encoder.decode(plain, self.ours.slots))

    @staticmethod
    def ciphertext_bytes(ciphertext: Any) -> bytes:
        """Lattigo's own form."""
        data: bytes = ciphertext.marshal_binary()
        return data
