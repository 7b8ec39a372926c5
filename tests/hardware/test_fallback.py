"""The native backend on a processor without AVX-512: it picks AVX2 by itself and gives the same bits.

The other processor is emulated by qemu-user (Debian's package `qemu-user`); skipped where that is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest

QEMU = shutil.which("qemu-x86_64")

PROGRAM = """
import hashlib, json, site, sys
site.addsitedir(sys.argv[1])
sys.path[:0] = json.loads(sys.argv[2])
import numpy as np
from lattice.fhe.ckks.presets import preset
from lattice.fhe.hal.choose import choose
choice, parameters = choose(), preset("mlp-8192")
moduli = parameters.q_moduli(parameters.max_level)
random = np.random.default_rng(1)
x = np.stack([random.integers(0, q, parameters.n, dtype=np.uint64) for q in moduli])
y = choice.backend.ntt(x, moduli, parameters.n)
print(json.dumps([choice.name, choice.isa, hashlib.sha256(np.ascontiguousarray(y)).hexdigest()]))
"""


def run(*emulator: str) -> list[str]:
    packages = sysconfig.get_path("purelib")
    interpreter = os.path.realpath(sys.executable)
    command = [*emulator, interpreter, "-c", PROGRAM, packages, json.dumps([p for p in sys.path if p])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=110)
    found: list[str] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.skipif(QEMU is None, reason="no qemu-x86_64: apt-get install qemu-user")
def test_a_processor_without_avx512_gives_the_same_bits() -> None:
    here = run()
    if here[0] != "native":
        pytest.skip("the native module is not built here")
    assert QEMU is not None
    haswell = run(QEMU, "-cpu", "Haswell")
    assert haswell == ["native", "avx2", here[2]]
