"""Client and evaluator in one process, for the packing tests, on the pieces that are below `lattice.fhe.run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lattice.fhe.ckks.ciphertext import Ciphertext, Encoding
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.ckks.seeded import SeededCiphertext
from lattice.fhe.coefficients import blind, blinding_key
from lattice.fhe.compiler.client_part import AppendSquaredLength, ClientPart, Normalise, ToUnit
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.graph import Real
from lattice.fhe.hal import backend, interpreter
from lattice.fhe.hal.program import Weight, parse_scale
from lattice.fhe.hal.weights import AnyPlaintext, encode_diagonals, encode_periodic
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.encryptor import SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.ring.modulus import Residues


def prepared(part: ClientPart, samples: Real) -> Real:
    """The client's steps before packing."""
    for step in part.before:
        if isinstance(step, ToUnit):
            samples = step.apply(samples)
        elif isinstance(step, Normalise):
            samples = samples / np.linalg.norm(samples, axis=1, keepdims=True)
        elif isinstance(step, AppendSquaredLength):
            samples = np.column_stack([samples, (samples**2).sum(axis=1)])
    return samples


def encoded(compiled: Compiled) -> list[AnyPlaintext]:
    """The weights as plaintexts."""
    encoder = Encoder(compiled.program.params, backend())

    def one(values: Real, weight: Weight) -> AnyPlaintext:
        level, scale = weight.level, parse_scale(weight.scale)
        if weight.period:
            return replace(encode_periodic(encoder, values, level=level, scale=scale), encoding=weight.encoding)
        if weight.count:
            return encode_diagonals(encoder, values, level=level, scale=scale, extended=weight.extended)
        return encoder.encode(values[0], level=level, scale=scale, encoding=weight.encoding)

    return [one(v, w) for v, w in zip(compiled.weights, compiled.program.weights, strict=True)]


@dataclass
class Session:
    """One client's keys and one provider's weights."""

    compiled: Compiled
    weights: list[AnyPlaintext] = field(default_factory=list)

    def __post_init__(self) -> None:
        params = self.compiled.program.params
        generator = KeyGenerator(params)
        self.secret = generator.secret_key()
        self.public = generator.public_key(self.secret)
        specs = self.compiled.keys
        self.keys = generator.evaluation_keys(self.secret, specs) if specs else None
        self.encryptor, self.decryptor = SecretKeyEncryptor(self.secret), Decryptor(self.secret)
        self.weights = encoded(self.compiled)

    def encrypt(self, samples: Real, part: ClientPart | None = None) -> list[SeededCiphertext]:
        part = part or self.compiled.client
        flat = np.append(np.ravel(prepared(part, samples)), 0.0)
        return [
            self.encryptor.encrypt_values(
                flat[np.maximum(packed.entries, -1)],
                level=packed.level,
                scale=parse_scale(packed.scale),
                encoding=packed.encoding,
            )
            for packed in part.inputs
        ]

    def evaluate(self, ciphertexts: Sequence[SeededCiphertext], seed: bytes = bytes(32)) -> list[Ciphertext]:
        program = self.compiled.program
        full = [ciphertext.expand(program.params) for ciphertext in ciphertexts]
        outs = interpreter.run(backend(), program, full, self.keys, self.weights)
        key = blinding_key(program.params, self.public)
        return [
            blind(program.params, key, seed, k, out, np.flatnonzero(packed.entries >= 0), backend())
            if packed.encoding is Encoding.COEFFICIENTS
            else out
            for k, (out, packed) in enumerate(zip(outs, self.compiled.client.outputs, strict=True))
        ]

    def decrypt(self, ciphertexts: Sequence[Ciphertext]) -> Real:
        part = self.compiled.client
        out = np.full(part.batch * part.results, np.nan)
        for ciphertext, packed in zip(ciphertexts, part.outputs, strict=True):
            used = np.flatnonzero(packed.entries >= 0)
            out[packed.entries[used]] = self.decryptor.real_values(ciphertext)[used]
        return out.reshape(part.batch, part.results)

    def run(self, samples: Real, extra: Sequence[SeededCiphertext] = ()) -> Real:
        return self.decrypt(self.evaluate([*self.encrypt(samples), *extra]))

    def polynomial(self, ciphertext: Ciphertext) -> Residues:
        """The raw decryption in coefficients, modulo q."""
        params = self.compiled.program.params
        moduli = params.q_moduli(ciphertext.level)
        return backend().intt(self.decryptor.decrypt(ciphertext).poly, moduli, params.n)
