"""The client's memory over many operations."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import pytest

from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.ckks.presets import preset
from lattice.fhe.keys.decryptor import Decryptor
from lattice.fhe.keys.encryptor import PublicKeyEncryptor, SecretKeyEncryptor
from lattice.fhe.keys.evaluation import KeyGenerator
from tests.support.fhe import small

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def resident_kb() -> tuple[int, int]:
    """Resident and locked memory."""
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(status["VmRSS"].split()[0]), int(status["VmLck"].split()[0])


def test_ten_thousand_encryptions_and_decryptions_keep_nothing() -> None:
    params = preset("linear-2048")
    with KeyGenerator(params).secret_key() as secret:
        encryptor, decryptor = SecretKeyEncryptor(secret), Decryptor(secret)
        plain = encryptor.encoder.encode(np.ones(params.slots))
        for turn in range(11_000):
            decryptor.decrypt(encryptor.encrypt(plain))
            if turn == 1000:
                before = resident_kb()
        resident, locked = resident_kb()
    assert resident - before[0] < 2048
    assert locked <= before[1]


def test_keys_and_public_encryptions_keep_nothing() -> None:
    params = small()
    generator = KeyGenerator(params)
    for turn in range(300):
        with generator.secret_key() as secret:
            public = PublicKeyEncryptor(params, generator.public_key(secret))
            Decryptor(secret).values(public.encrypt_values([1.0]))
            generator.evaluation_key(secret, KeySpec.rotation(1, 1, params))
        if turn == 100:
            before = resident_kb()
    resident, locked = resident_kb()
    assert resident - before[0] < 4096
    assert locked <= before[1]
