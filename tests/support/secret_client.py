"""A client whose secrets somebody else can work out, so that its memory can be searched for them from outside.

`python -m tests.support.secret_client native|reference`: does everything that a client does, says `alive`, waits for a
line, wipes, says `wiped`, waits again. The n-th secret seed is `seed_of(n)`.
"""

from __future__ import annotations

import gc
import hashlib
import sys
from itertools import count

import numpy as np

from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.hal import backend as find_backend
from lattice.fhe.keys import sampling
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.encryptor import PublicKeyEncryptor, SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.keys.store_format import open_with_key, seal_with_key
from tests.support.fhe import small

SECRET, PUBLIC_KEY, RELINEARISATION, ROTATION, CIPHERTEXT, PUBLIC_CIPHERTEXT = range(6)
"""Which seed was drawn for what."""

STEPS = 3


def seed_of(number: int) -> bytes:
    """What the operating system is made to give."""
    return hashlib.sha256(f"secret client {number}".encode()).digest()


def main() -> None:
    """One process."""
    draws = count()

    def fill(out: np.ndarray) -> None:
        out[:] = np.frombuffer(seed_of(next(draws)), dtype=np.uint8)

    sampling.fill_random = fill
    params, backend = small(), find_backend(sys.argv[1])
    generator = KeyGenerator(params, backend)
    secret = generator.secret_key()
    public = generator.public_key(secret)
    keys = [
        generator.evaluation_key(secret, KeySpec.relinearisation(params.max_level)),
        generator.evaluation_key(secret, KeySpec.rotation(STEPS, params.max_level, params)),
    ]
    values = np.linspace(-1, 1, params.slots)
    ciphertext = SecretKeyEncryptor(secret, backend).encrypt_values(values)
    other = PublicKeyEncryptor(params, public, backend).encrypt_values(values)
    decryptor = Decryptor(secret, backend)
    assert all(np.allclose(decryptor.real_values(c), values, atol=1e-2) for c in (ciphertext, other))
    opened = open_with_key(seal_with_key(secret, bytes(32)), bytes(32))
    assert np.allclose(Decryptor(opened, backend).real_values(ciphertext), values, atol=1e-2)
    assert len(keys) == 2
    gc.collect()
    for said in ("alive", "wiped"):
        print(said, "locked" if secret.locked else "not locked", flush=True)
        sys.stdin.readline()
        secret.wipe()
        opened.wipe()


if __name__ == "__main__":
    main()
