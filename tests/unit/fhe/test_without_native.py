"""A source tree that nobody built: numpy alone makes keys, encrypts and decrypts, and gives the same known answers."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import json, sys
sys.modules["lattice.fhe._native"] = None  # importing it fails from here on

import numpy as np
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.hal import available_backends
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.encryptor import PublicKeyEncryptor, SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.keys.store_format import open_with_key, seal_with_key
from spec.vectors.fhe import generate
from tests.support.fhe import small
from tests.unit.fhe.test_vectors import load

assert available_backends() == ("reference",)
generator = KeyGenerator(small())
with generator.secret_key() as secret:
    public = PublicKeyEncryptor(small(), generator.public_key(secret))
    generator.evaluation_key(secret, KeySpec.conjugation(1, small()))
    assert not secret.locked
    with open_with_key(seal_with_key(secret, bytes(32)), bytes(32)) as opened:
        for encryptor in (SecretKeyEncryptor(secret), public):
            got = Decryptor(opened).real_values(encryptor.encrypt_values([0.5]), 1)
            assert np.allclose(got, 0.5, atol=1e-2)
for name in ("expansion", "key_switching", "blobs"):
    assert json.loads(json.dumps(getattr(generate, name)())) == load(name), name
print("all of it")
"""


def test_the_client_works_and_answers_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout == "all of it\n", done.stderr
