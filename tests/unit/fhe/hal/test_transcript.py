"""A recorded computation replays on another backend, and a backend with one wrong bit is caught at the right call."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.hal import transcript
from lattice.fhe.hal.choose import choices, choose
from lattice.fhe.hal.reference import ReferenceBackend
from tests.support.encrypted import noise, same_bits, tiny_client


@cache
def recorded() -> transcript.Transcript:
    client = tiny_client()
    recorder: Any = transcript.Recorder(ReferenceBackend())
    x = client.encrypt(noise(32))
    evaluator = client.evaluator(recorder)
    out = evaluator.rotate(evaluator.rescale(evaluator.multiply(x, x)), 5)
    assert same_bits(out, (e := client.evaluator()).rotate(e.rescale(e.multiply(x, x)), 5))
    return recorder.transcript()


def test_replay_on_the_same_backend_agrees() -> None:
    again = transcript.decode(recorded().encode())
    assert again == recorded()
    assert transcript.replay(again, ReferenceBackend()) is None
    assert {call.name for call in again.calls} >= {"decompose", "gadget_product", "mod_down", "rescale", "mul"}


@pytest.mark.parametrize("broken", ["mod_down", "mul_add", "decompose"])
def test_one_wrong_bit_is_found(broken: str) -> None:
    class Wrong(ReferenceBackend):
        pass

    def wrong(self: Any, *arguments: Any) -> Any:
        out = getattr(ReferenceBackend, broken)(self, *arguments)
        out[..., -1] ^= np.uint64(1)
        return out

    setattr(Wrong, broken, wrong)
    difference = transcript.replay(recorded(), Wrong())
    assert difference is not None
    assert difference.name == broken
    assert all(call.name != broken for call in recorded().calls[: difference.index])
    assert difference.recorded.shape == difference.seen.shape


def test_hostile_transcripts_are_refused() -> None:
    wire = msgspec.msgpack.decode(recorded().encode())
    name, data = next(iter(wire["tensors"].items()))
    others = {k: v for k, v in wire["tensors"].items() if k != name}
    bad = [
        wire | {"version": 2},
        wire | {"calls": [wire["calls"][0] | {"name": "__init__"}]},
        wire | {"tensors": others},
        wire | {"tensors": others | {name: data[:-8]}},
        wire | {"tensors": others | {name: data[:-1] + b"\x07"}},
        wire | {"tensors": others | {"zz": data}},
    ]
    for changed in bad:
        with pytest.raises(LatticeError) as caught:
            transcript.replay(transcript.decode(msgspec.msgpack.encode(changed)), ReferenceBackend())
        assert caught.value.code == "blob_invalid"
    for raw in (b"", b"\x93" * 10_000, recorded().encode()[:-1]):
        with pytest.raises(LatticeError):
            transcript.decode(raw)
    with pytest.raises(LatticeError):
        transcript.decode(recorded().encode(), max_bytes=10)


def test_the_choice_explains_itself() -> None:
    reference = choose("reference", threads=2)
    assert (reference.name, reference.isa, reference.threads) == ("reference", "numpy", 1)
    assert "slow" in reference.explain()
    assert choices()[0].name == choose().name
    with pytest.raises(LatticeError) as caught:
        choose("reference", isa="avx512ifma")
    assert caught.value.code == "backend_unavailable"
    with pytest.raises(LatticeError):
        choose("abacus")
