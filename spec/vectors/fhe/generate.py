"""Writes the known answers of the encrypted core: `PYTHONPATH=src:. python -m spec.vectors.fhe.generate`.

Inputs are spelled out or come from the seed expansion (which has answers of its own), so that another implementation
can check itself without ours. Large tensors are given as SHA-256 of little-endian 64-bit words. Whatever draws from the
operating system is fed a counter instead, here and in the test that compares, and nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.ckks.parameters import InsecureTestParameters, ParameterSet
from lattice.fhe.ckks.presets import PRESETS, preset
from lattice.fhe.ckks.seeds import SPECIAL_INDEX, KeyStream, Stream, uniform_residues
from lattice.fhe.ckks.twiddles import roots_of_unity
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.keys.encryptor import PublicKeyEncryptor, SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.keys.sampling import centred_binomial, ternary
from lattice.fhe.keys.store_format import seal_with_key
from lattice.fhe.ring import rns
from lattice.fhe.ring.modulus import Residues
from lattice.fhe.ring.primes import find_primes, root_of_unity
from lattice.fhe.serialise.ciphertexts import encode_ciphertext
from lattice.fhe.serialise.keys import encode_evaluation_keys, encode_public_key
from lattice.fhe.serialise.parameters import encode_parameters

HERE = Path(__file__).parent
SEED = bytes(range(32))
B = ReferenceBackend()
Json = Any


def digest(x: Any) -> str:
    """SHA-256 of a tensor as little-endian words, or of bytes."""
    data = x if isinstance(x, bytes) else np.ascontiguousarray(x).astype("<i8" if x.dtype == np.int64 else "<u8")
    return hashlib.sha256(data if isinstance(data, bytes) else data.tobytes()).hexdigest()


@contextmanager
def counted_randomness() -> Iterator[None]:
    """The n-th draw of k bytes is the first k bytes of SHA-512("lattice fhe vectors n")."""
    counter = count()

    def draw(size: int) -> bytes:
        return hashlib.sha512(f"lattice fhe vectors {next(counter)}".encode()).digest()[:size]

    def fill(out: np.ndarray) -> None:
        out[:] = np.frombuffer(draw(len(out)), dtype=np.uint8)

    with patch("os.urandom", draw), patch("lattice.fhe.keys.sampling.fill_random", fill):
        yield


def seeded(moduli: tuple[int, ...], n: int, kind: int = 0x7F00) -> Residues:
    """Test input: limb k is the stream (kind, 0, k) of SEED."""
    return np.stack([uniform_residues(SEED, kind, 0, k, q, n) for k, q in enumerate(moduli)])


def tiny() -> ParameterSet:
    """A ring small enough to print."""
    n = 16
    special = find_primes(49, n, 1)
    return InsecureTestParameters(
        4, find_primes(45, n, 1), [find_primes(26, n, 1), find_primes(25, n, 2)], special, 1 << 26
    )


def primes() -> Json:
    """Parameters, their primes, their roots, their digits, their ids."""
    rows = []
    for name in PRESETS:
        p = preset(name)
        rows.append(
            {
                "name": name,
                "id": p.id,
                "parameters": p.to_dict(),
                "roots": {str(q): root_of_unity(q, p.n) for q in p.primes()},
                "digits": [p.digit_plan(level).digits for level in range(p.max_level + 1)] if p.special else [],
                "blob": encode_parameters(p).hex(),
            }
        )
    return rows


def transforms() -> Json:
    """Printed for N = 16, hashed for real sizes."""
    rows: list[Json] = []
    for log_n in (4, 10, 11, 12, 13, 14, 15, 16):
        n = 1 << log_n
        for bits in (50, 26):
            moduli = find_primes(bits, n, 1)
            x = seeded(moduli, n)
            out = B.ntt(x, moduli, n)
            row = {"log_n": log_n, "q": moduli[0], "input_sha256": digest(x), "output_sha256": digest(out)}
            if n == 16:
                row |= {"input": x[0].tolist(), "output": out[0].tolist()}
            rows.append(row)
    return rows


def conversions() -> Json:
    """Conversion, ModUp and ModDown at N = 16."""
    p = tiny()
    q, special = p.q_moduli(2), p.special
    up, wide = seeded(q[2:], p.n), seeded(q + special, p.n)
    return {
        "n": p.n,
        "q": q,
        "p": special,
        "convert": {"from": q[2:], "to": [*q[:2], *special], "input": up.tolist()}
        | {"output": B.convert(up, q[2:], q[:2] + special).tolist()},
        "mod_up": {"output": B.mod_up(up, q[2:], q + special).tolist()},
        "mod_down": {"input": wide.tolist(), "output": B.mod_down(wide, q, special).tolist()},
        "rescale": {"input": wide[:4].tolist(), "output": B.rescale(wide[:4].copy(), q[:2], q[2:]).tolist()},
    }


def expansion() -> Json:
    """Seeds to residues, to secrets and to errors."""
    rows = []
    for kind, digit, prime in ((1, 0, 0), (2, 3, 1), (3, 1, SPECIAL_INDEX), (4, 0, 5)):
        for q in (find_primes(50, 1024, 1)[0], find_primes(26, 1024, 1)[0], 12289):
            draws = uniform_residues(SEED, kind, digit, prime, q, 1024)
            rows.append({"kind": kind, "digit": digit, "prime": prime, "q": q, "first": draws[:8].tolist()})
            rows[-1]["sha256_of_1024"] = digest(draws)
    secrets, errors = (
        ternary(KeyStream(SEED, Stream.SECRET), 4096),
        centred_binomial(KeyStream(SEED, Stream.ERROR, 2), 4096, 21),
    )
    return {
        "seed": SEED.hex(),
        "uniform": rows,
        "ternary": {"kind": int(Stream.SECRET), "first": secrets[:32].tolist(), "sha256_of_4096": digest(secrets)},
        "error": {"kind": int(Stream.ERROR), "digit": 2, "eta": 21, "first": errors[:32].tolist()}
        | {"sha256_of_4096": digest(errors)},
    }


def encodings() -> Json:
    """Slots to integers, and the twiddles, whose bits are part of the format."""
    rows = []
    for values in ([1.0], [0.5, -0.25, 3.0], [1 + 2j, -3.5j, 1 / 3, 0, 7, 1e-3, 2.5 - 1j, -9]):
        for scale in (1 << 20, 1 << 26, Fraction(1 << 60, 7)):
            p = tiny()
            poly = Encoder(p).encode(values, scale=scale).poly
            coefficients = rns.to_integers(B.intt(poly, p.q_moduli(2), p.n), p.q_moduli(2))
            parts = [[complex(v).real.hex(), complex(v).imag.hex()] for v in values]
            rows.append({"n": p.n, "values": parts, "scale": str(Fraction(scale)), "coefficients": coefficients})
    twiddles = []
    for log_order in (5, 12, 17):
        real, imaginary = roots_of_unity(1 << log_order)
        words = np.concatenate([real, imaginary]).view(np.uint64)
        twiddles.append({"order": 1 << log_order, "sha256": digest(words)})
    large = []
    for name in ("mlp-8192", "deep-32768"):
        p = preset(name)
        values = np.arange(p.slots) / 7.0 - 1j * np.arange(p.slots) / 11.0
        large.append({"preset": name, "sha256": digest(Encoder(p).encode(values).poly)})
    return {"small": rows, "twiddles": twiddles, "k_over_7_minus_ik_over_11": large}


def key_switching() -> Json:
    """Keys, encryption, one key switch: printed for N = 16, hashed for N = 8192."""
    return [_key_switching(p, printed=p.n == 16) for p in (tiny(), preset("mlp-8192"))]


def _key_switching(p: ParameterSet, *, printed: bool) -> Json:
    with counted_randomness():
        generator = KeyGenerator(p, B)
        secret = generator.secret_key()
        key = generator.evaluation_key(secret, KeySpec.rotation(1, p.max_level, p))
        square = generator.evaluation_key(secret, KeySpec.relinearisation(1))
        public = generator.public_key(secret)
        seeded_ciphertext = SecretKeyEncryptor(secret, B).encrypt_values([0.5, -0.25, 1.0])
        other = PublicKeyEncryptor(p, public, B).encrypt_values([1.5], encoding=Encoding.COEFFICIENTS)
    full = seeded_ciphertext.expand(p)
    context = p.key_switch_context(p.max_level)
    digits = B.decompose(full.components[1], context)
    turned = B.automorphism_ntt(digits, key.spec.element)
    product = B.gadget_product(turned, key.tensor(p), context)
    switched = B.mod_down(product, context.q_moduli, context.special)
    tensors = {
        "secret": secret.coefficients().astype(np.int64),
        "rotation_key_b": key.b,
        "relinearisation_key_b_at_level_1": square.b,
        "public_key_b": public.b,
        "seeded_ciphertext_c0": seeded_ciphertext.c0,
        "ciphertext": full.components,
        "public_ciphertext": other.components,
        "digits": digits,
        "turned_digits": turned,
        "gadget_product": product,
        "switched": switched,
    }
    row: Json = {
        "parameters": p.to_dict(),
        "element": key.spec.element,
        "digit_ranges": context.digits,
        "seeds": {"rotation": key.seed.hex(), "public": public.seed.hex(), "ciphertext": seeded_ciphertext.seed.hex()},
        "sha256": {name: digest(tensor) for name, tensor in tensors.items()},
    }
    if printed:
        row["tensors"] = {name: tensor.tolist() for name, tensor in tensors.items()}
    return row


def blobs() -> Json:
    """The wire forms, byte for byte."""
    p = preset("small-4096")
    with counted_randomness():
        generator = KeyGenerator(p, B)
        secret = generator.secret_key()
        public = generator.public_key(secret)
        keys = generator.evaluation_keys(secret, relinearisation=1, rotations=[1], conjugation=0)
        ciphertext = SecretKeyEncryptor(secret, B).encrypt_values([0.5], scale=Fraction(1 << 30, 3))
        sealed = seal_with_key(secret, SEED)
    made = {
        "seeded_ciphertext": encode_ciphertext(ciphertext, p),
        "ciphertext": encode_ciphertext(ciphertext.expand(p), p),
        "public_key": encode_public_key(public, p),
        "evaluation_keys": encode_evaluation_keys(keys),
        "secret_key_under_the_seed": sealed,
    }
    rows = {
        name: {"bytes": len(data), "first_240": data[:240].hex(), "last_16": data[-16:].hex(), "sha256": digest(data)}
        for name, data in made.items()
    }
    return {"preset": "small-4096", "evaluation_keys_id": keys.id, "blobs": rows}


def build() -> dict[str, Json]:
    """Every file's content, by name, as JSON reads it back."""
    makers: dict[str, Callable[[], Json]] = {
        "primes": primes,
        "transforms": transforms,
        "conversions": conversions,
        "expansion": expansion,
        "encodings": encodings,
        "key_switching": key_switching,
        "blobs": blobs,
    }
    made: dict[str, Json] = {name: json.loads(json.dumps(maker())) for name, maker in makers.items()}
    return made


def main() -> None:
    """Write all files beside this script."""
    for name, content in build().items():
        text = json.dumps(content, separators=(",", ":")).replace("},{", "},\n{") + "\n"
        (HERE / f"{name}.json").write_text(text, "utf-8")
        sys.stdout.write(f"{name}.json {len(text)} bytes\n")


if __name__ == "__main__":
    main()
