"""Whatever the check accepts runs, to exactly the types that it predicted; whatever it refuses, it refuses by name."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.hal import interpreter
from lattice.fhe.hal.reference import ReferenceBackend
from lattice.fhe.hal.rules import CiphertextType, bits
from tests.support.encrypted import noise, tiny_client
from tests.support.programs import INPUTS, accepted, random_weights


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), tries=st.integers(0, 120))
def test_what_is_accepted_runs_to_the_predicted_types(seed: int, tries: int) -> None:
    client = tiny_client()
    program = accepted(client.params, seed, tries)
    weights = random_weights(client)
    inputs = [client.encrypt(noise(32), level=entry.level) for entry in INPUTS]
    outputs = interpreter.run(ReferenceBackend(), program, inputs, client.keys, weights)
    for got, wanted in zip(outputs, program.checked.outputs, strict=True):
        assert type_of(got) == wanted
        limbs = client.params.q_moduli(got.level)
        assert got.components.shape == (wanted.components, len(limbs), 64)
        assert (got.components < np.array(limbs, dtype=np.uint64)[:, None]).all(), "reduced"
        assert 0 <= bits(got.scale) < sum(map(np.log2, limbs))


def type_of(x: Ciphertext) -> CiphertextType:
    return CiphertextType(x.level, x.scale, len(x.components), x.encoding)
