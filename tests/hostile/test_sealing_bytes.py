"""Hostile bytes into every decoder: bit flips in every region, random bytes, giant lengths. Typed errors only."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.sealing.envelope import Envelope, check_sender, open_request
from lattice.sealing.frames import ReplyOpener
from lattice.sealing.header import decode_header
from lattice.sealing.identity import PublicIdentity
from lattice.sealing.key_config import SignedKeyConfig, issue_key_config, verify_key_config
from lattice.sealing.pairing import split_bootstrap
from lattice.sealing.receipt import SignedReceipt, verify_receipt
from lattice.sealing.stream import RecordReader, decode_error, decode_frame
from lattice.sealing.suites import Suite, available_suites
from lattice.sealing.trailer import split_trailer
from tests.unit.sealing.conftest import NOW, RUNTIME, make_party

PARTY = make_party(Suite.X25519)
ENVELOPE, SEALED = PARTY.seal(b"question")
SIGNED, _ = issue_key_config(PARTY.runtime, RUNTIME, "interactive", Suite.X25519, NOW)


def receive(data: bytes) -> bytes:
    envelope = Envelope.decode(data)
    check_sender(envelope, lambda sender: sender == PARTY.sender.public, NOW)
    return open_request(envelope, PARTY.pair, RUNTIME).body


def verify_config(data: bytes) -> None:
    verify_key_config(SignedKeyConfig.decode(data), PARTY.runtime.public, RUNTIME)


def verify_any_receipt(data: bytes) -> None:
    signed = SignedReceipt.decode(data)
    verify_receipt(signed, PARTY.runtime.public, envelope_hash=bytes(32), frames_hash=bytes(32), attempt=None)


DECODERS: dict[str, Callable[[bytes], object]] = {
    "envelope": receive,
    "header": decode_header,
    "key config": verify_config,
    "receipt": verify_any_receipt,
    "first frame": lambda data: SEALED.reply_opener().open(data, 0, False),
    "last frame": lambda data: SEALED.reply_opener(1).open(data, 0, True),
    "trailer": split_trailer,
    "records": lambda data: RecordReader().feed(data),
    "frame record": decode_frame,
    "identity": PublicIdentity.from_bytes,
    "identity text": lambda data: PublicIdentity.from_text(data.decode("latin-1")),
    "bootstrap": lambda data: split_bootstrap(data.decode("latin-1")),
}

shapes = st.one_of(
    st.binary(max_size=300),
    st.lists(st.binary(max_size=80), max_size=6).map(lambda f: b"".join(len(x).to_bytes(4, "big") + x for x in f)),
    st.tuples(st.binary(max_size=8), st.binary(max_size=200)).map(lambda ab: ENVELOPE.encode()[:200] + ab[0] + ab[1]),
    st.text(alphabet='{}[]":,0123456789.eE-tfn\\u', max_size=200).map(str.encode),
)


@pytest.mark.parametrize("name", DECODERS)
@given(data=shapes)
@example(data=b"")
@example(data=b"\xff" * 64)
@example(data=b"\x00" * 64)
@example(data=b"[" * 100_000)
@settings(max_examples=80, deadline=None)
def test_random_bytes_meet_typed_errors_only(name: str, data: bytes) -> None:
    with suppress(LatticeError):
        DECODERS[name](data)


@given(st.binary(max_size=200))
def test_an_error_record_is_always_an_error(data: bytes) -> None:
    assert isinstance(decode_error(data), LatticeError)


@pytest.mark.parametrize("suite", available_suites())
def test_every_byte_of_an_envelope_counts(suite: Suite) -> None:
    """Header, enc, wrapped key, frames, signature and all lengths. What still decodes fails at the signature."""
    party = make_party(suite)
    data = party.seal(b"question")[0].encode()
    for at in range(len(data)):
        changed = data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :]
        with pytest.raises(LatticeError) as caught:
            check_sender(Envelope.decode(changed), lambda _: True, NOW)
        assert caught.value.code == "envelope_invalid"


def test_every_byte_of_an_envelope_counts_even_to_one_who_skips_the_signature() -> None:
    """The AEADs alone bind header, encapsulation, key and frames to each other."""
    data = ENVELOPE.encode()
    for at in range(len(data) - 64):
        changed = data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :]
        with pytest.raises(LatticeError) as caught:
            open_request(Envelope.decode(changed), PARTY.pair, RUNTIME)
        assert caught.value.code in ("envelope_invalid", "work_key_expired")


@pytest.mark.parametrize("cut", [1, 2, 64, 68, 69, 100, 300])
def test_a_cut_or_lengthened_envelope_is_refused(cut: int) -> None:
    data = ENVELOPE.encode()
    for changed in (data[:-cut], data[cut:], data + bytes(cut), bytes(cut) + data):
        with pytest.raises(LatticeError, match="envelope_invalid"):
            Envelope.decode(changed)


def test_every_byte_of_a_key_config_counts() -> None:
    data = SIGNED.encode()
    verify_config(data)
    for at in range(len(data)):
        changed = data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :]
        with pytest.raises(LatticeError, match="envelope_invalid"):
            verify_config(changed)


@pytest.mark.parametrize(
    "decode",
    [Envelope.decode, SignedKeyConfig.decode, SignedReceipt.decode, RecordReader().feed, split_trailer],
    ids=["envelope", "key config", "receipt", "records", "trailer"],
)
@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x10\x00\x00\x00"])
def test_a_giant_length_costs_no_memory(decode: Callable[[bytes], object], length: bytes) -> None:
    data = b"\x01" + length if decode.__qualname__.startswith("RecordReader") else length + b"{}"
    tracemalloc.start()
    try:
        with pytest.raises(LatticeError):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [0, 2, 1000, 2**31, 2**32 - 1])
def test_an_envelope_can_not_claim_more_frames_than_it_has_bytes_for(count: int) -> None:
    data = ENVELOPE.encode()
    at = sum(4 + len(part) for part in (ENVELOPE.header, ENVELOPE.enc, ENVELOPE.wrapped_key))
    with pytest.raises(LatticeError, match="number of frames"):
        Envelope.decode(data[:at] + count.to_bytes(4, "big") + data[at + 4 :])


def test_a_giant_frame_is_refused_before_it_is_decrypted() -> None:
    with pytest.raises(LatticeError, match="out of range"):
        ReplyOpener(b"k" * 32, b"h" * 32).open(bytes(17 * 1024 * 1024), 0, False)


def test_deep_json_in_a_signed_part_is_a_typed_error() -> None:
    deep = b'{"version":' + b"[" * 3000 + b"]" * 3000 + b"}"
    with pytest.raises(LatticeError, match="envelope_invalid"):
        decode_header(deep[:4096])
