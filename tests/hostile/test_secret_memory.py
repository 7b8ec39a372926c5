"""Whoever reads the client's memory, or a core dump of it: where the secret is while it is used, and that it is gone.

A client in a process of its own draws secrets that this test can work out; the test reads all memory that the process
can write to and looks for the secret polynomial, its transforms, the errors and the ephemerals, in every form.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest

from lattice.fhe.ckks.seeds import KeyStream, Stream
from lattice.fhe.hal import available_backends
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.keys.sampling import centred_binomial, ternary
from lattice.fhe.ring.automorphism import rotation_element
from lattice.fhe.ring.modulus import reduce_signed
from tests.support import secret_client
from tests.support.fhe import small
from tests.support.secret_client import seed_of
from tests.support.secret_search import find, forms

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
native = pytest.mark.skipif("native" not in available_backends(), reason="the native module is not built here")

B = ReferenceBackend()


@cache
def needles() -> dict[str, bytes]:
    """Every secret of the client in every form."""
    p, c = small(), secret_client
    s = ternary(KeyStream(seed_of(c.SECRET), Stream.SECRET), p.n)
    out = forms("s", s, packed=True)
    moduli = p.primes()
    evaluations = B.ntt(reduce_signed(s, moduli), moduli, p.n)
    turned = B.automorphism_ntt(evaluations, rotation_element(c.STEPS, p.n))
    for name, target in (("s²", B.mul(evaluations, evaluations, moduli)), ("σ(s)", turned)):
        for q, limb in zip(moduli, target, strict=True):
            out[f"{name} modulo {q}"] = limb[1000:1008].tobytes()
    out |= forms("u", ternary(KeyStream(seed_of(c.PUBLIC_CIPHERTEXT), Stream.SECRET), p.n))
    errors = {c.PUBLIC_KEY: 1, c.RELINEARISATION: 2, c.ROTATION: 2, c.CIPHERTEXT: 1, c.PUBLIC_CIPHERTEXT: 2}
    for seed, numbers in errors.items():
        for number in range(numbers):
            out |= forms(f"e{seed}.{number}", centred_binomial(KeyStream(seed_of(seed), Stream.ERROR, number), p.n, 21))
            stream = KeyStream(seed_of(seed), Stream.ERROR, number).words(p.n)
            out[f"key stream {seed}.{number}"] = stream[100:108].tobytes()
    return out


@contextmanager
def client(backend: str) -> Iterator[subprocess.Popen[str]]:
    """The process, alive."""
    command = [sys.executable, "-m", "tests.support.secret_client", backend]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], word: str) -> str:
    """The line that begins with it."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(word), f"the client said {line!r}"
    return line


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@native
def test_secrets_are_in_memory_that_no_dump_has_and_are_gone_when_wiped() -> None:
    with client("native") as process:
        locked = "not locked" not in wait_for(process, "alive")
        alive = find(process.pid, needles())
        assert "s as bytes" in alive, "the search finds nothing at all"
        assert any("transformed" in name for name in alive), "the search finds no transform"
        assert {name.partition(" ")[0] for name in alive} == {"s"}, "an error or an ephemeral outlived its use"
        for name, places in alive.items():
            for region in places:
                assert "dd" in region.flags, f"{name} is in {region}, which core dumps show"
                assert not locked or "lo" in region.flags, f"{name} is in {region}, which may be swapped out"
        go_on(process)
        wait_for(process, "wiped")
        assert find(process.pid, needles()) == {}


def test_the_search_would_find_them() -> None:
    """The numpy twin keeps its secrets where anybody looks: the test above can fail."""
    with client("reference") as process:
        wait_for(process, "alive")
        alive = find(process.pid, needles())
        assert {"s as bytes"} < set(alive)
        assert not all("dd" in region.flags for places in alive.values() for region in places)
