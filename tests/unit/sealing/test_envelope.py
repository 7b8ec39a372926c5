"""Envelopes: sealing, checking the sender, opening, and the one encoded form."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.sealing.cipher import REQUEST_LABEL, FrameCipher
from lattice.sealing.envelope import DEFAULT_LIFE_MS, Envelope, check_sender, open_request
from lattice.sealing.header import MAX_LIFE_MS
from lattice.sealing.identity import IdentityKey, PublicIdentity
from lattice.sealing.key_config import INTERACTIVE_LIFE_MS, OVERLAP_MS
from lattice.sealing.request import FRAME_BYTES, open_body
from lattice.sealing.suites import Suite, WorkKeyPair, available_suites
from tests.unit.sealing.conftest import NOW, RUNTIME, Party, sealed_reply


def anyone(_: PublicIdentity) -> bool:
    return True


def test_sealed_work_opens_at_the_runtime_and_its_reply_at_the_sender(party: Party) -> None:
    envelope, sealed = party.seal(b'{"messages":[]}', minimum_trust=2)
    arrived = Envelope.decode(sealed.envelope.encode())
    header = check_sender(arrived, lambda sender: sender == party.sender.public, NOW)
    opened = open_request(arrived, party.pair, RUNTIME)
    assert (opened.body, opened.header) == (b'{"messages":[]}', header)
    assert (header.minimum_trust, header.expires_at_ms) == (2, NOW + DEFAULT_LIFE_MS)
    opener = sealed.reply_opener(1)
    texts = [opener.open(*frame).payload for frame in sealed_reply(opened, [b"one", b"two", b""])]
    assert texts == [b"one", b"two", b""]
    assert opener.finished
    assert envelope is sealed.envelope


@pytest.mark.parametrize("size", [0, 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES + 3])
def test_bodies_of_any_length_travel(plain_party: Party, size: int) -> None:
    body = bytes(size)
    assert plain_party.open(plain_party.seal(body)[0]).body == body


@given(body=st.binary(max_size=500), model=st.from_regex(r"[ -~]{1,40}", fullmatch=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_any_body_and_model_travel(plain_party: Party, body: bytes, model: str) -> None:
    opened = plain_party.open(plain_party.seal(body, model=model)[0])
    assert (opened.body, opened.header.model) == (body, model)


def test_the_encoded_form_is_the_only_one(plain_party: Party) -> None:
    envelope, _ = plain_party.seal(b"body")
    data = envelope.encode()
    again = Envelope.decode(data)
    assert again == envelope
    assert again.encode() == data
    assert again.envelope_hash == envelope.envelope_hash == hashlib.sha256(data[:-68]).digest()


def test_the_hash_covers_all_but_the_signature(plain_party: Party) -> None:
    envelope, _ = plain_party.seal(b"body")
    hashes = {envelope.envelope_hash}
    for field, value in (
        ("header", envelope.header + b" "),
        ("enc", bytes(32)),
        ("wrapped_key", bytes(48)),
        ("frames", (*envelope.frames, b"x" * 16)),
        ("frames", (b"x" * 16,)),
    ):
        hashes.add(msgspec.structs.replace(envelope, **{field: value}).envelope_hash)
    assert len(hashes) == 6
    assert msgspec.structs.replace(envelope, signature=bytes(64)).envelope_hash == envelope.envelope_hash


def test_every_seal_is_fresh(party: Party) -> None:
    one, two = party.seal(b"same")[0], party.seal(b"same")[0]
    assert one.header == two.header
    assert one.enc != two.enc
    assert one.frames != two.frames
    assert one.envelope_hash != two.envelope_hash


def test_the_sender_is_judged_before_the_time(plain_party: Party) -> None:
    envelope, _ = plain_party.seal()
    with pytest.raises(LatticeError, match="sender_not_allowed"):
        check_sender(envelope, lambda _: False, NOW + 10 * DEFAULT_LIFE_MS)
    for now in (NOW + DEFAULT_LIFE_MS, NOW - 300_001):
        with pytest.raises(LatticeError, match="envelope_expired"):
            check_sender(envelope, anyone, now)
    for now in (NOW + DEFAULT_LIFE_MS - 1, NOW - 300_000):
        check_sender(envelope, anyone, now)


def test_the_signature_is_judged_before_the_allow_list(plain_party: Party) -> None:
    envelope = msgspec.structs.replace(plain_party.seal()[0], signature=bytes(64))

    def never(_: PublicIdentity) -> bool:
        raise AssertionError("asked about an unproven sender")

    with pytest.raises(LatticeError, match="envelope_invalid"):
        check_sender(envelope, never, NOW)


def test_work_for_another_runtime_or_key_does_not_open(party: Party) -> None:
    envelope, _ = party.seal()
    with pytest.raises(LatticeError, match="another runtime"):
        open_request(envelope, party.pair, "lat_other")
    with pytest.raises(LatticeError, match="work_key_expired"):
        open_request(envelope, WorkKeyPair.generate(party.suite), RUNTIME)


def test_an_expired_key_config_is_not_sealed_to(plain_party: Party) -> None:
    plain_party.seal(now_ms=NOW + INTERACTIVE_LIFE_MS - 1)
    for now in (NOW + INTERACTIVE_LIFE_MS, NOW + INTERACTIVE_LIFE_MS + OVERLAP_MS):
        with pytest.raises(LatticeError, match="work_key_expired"):
            plain_party.seal(now_ms=now)


def test_what_the_runtime_would_refuse_is_not_sealed(plain_party: Party) -> None:
    for change in (
        {"life_ms": 0},
        {"life_ms": MAX_LIFE_MS + 1},
        {"max_output_tokens": -1},
        {"model": ""},
        {"work_id": "\n"},
    ):
        with pytest.raises(LatticeError, match="envelope_invalid"):
            plain_party.seal(**change)
    with pytest.raises(ValueError, match="32 bytes"):
        plain_party.seal(work_key=b"short")


def test_a_limit_on_size_is_its_own_error(plain_party: Party) -> None:
    data = plain_party.seal()[0].encode()
    assert Envelope.decode(data, len(data))
    with pytest.raises(LatticeError) as caught:
        Envelope.decode(data, len(data) - 1)
    assert caught.value.code == "body_too_large"


def test_a_suite_of_another_length_is_refused_at_once(plain_party: Party) -> None:
    envelope, _ = plain_party.seal()
    other = envelope.header.replace(Suite.X25519.value.encode(), Suite.XWING.value.encode())
    with pytest.raises(LatticeError, match="forbidden length"):
        Envelope.decode(msgspec.structs.replace(envelope, header=other).encode())


def test_a_fixed_work_key_makes_fixed_frames(plain_party: Party) -> None:
    one, two = (plain_party.seal(b"body", work_key=b"k" * 32)[0] for _ in "ab")
    assert one.frames == two.frames
    assert one.wrapped_key != two.wrapped_key


def test_another_senders_signature_does_not_pass(plain_party: Party) -> None:
    envelope, _ = plain_party.seal()
    forged = IdentityKey.generate().sign(b"lattice sealed work v1", envelope.envelope_hash)
    with pytest.raises(LatticeError, match="envelope_invalid"):
        check_sender(msgspec.structs.replace(envelope, signature=forged), anyone, NOW)


def test_a_body_can_not_be_given_an_empty_last_frame(plain_party: Party) -> None:
    """The frames below open, but are a second form of a body of exactly 1 MiB."""
    envelope, _ = plain_party.seal(b"", work_key=b"k" * 32)
    cipher = FrameCipher(b"k" * 32, envelope.header_hash, REQUEST_LABEL, envelope.header_hash, "envelope_invalid")
    frames = (cipher.seal(bytes(FRAME_BYTES), b"", False), cipher.seal(b"", b"", True))
    assert open_body(b"k" * 32, envelope.header_hash, frames) == bytes(FRAME_BYTES)
    with pytest.raises(LatticeError, match="forbidden length"):
        Envelope.decode(msgspec.structs.replace(envelope, frames=frames).encode())


@pytest.mark.skipif(Suite.XWING not in available_suites(), reason="this build lacks ML-KEM")
def test_the_suite_must_be_that_of_the_key_pair(plain_party: Party) -> None:
    envelope, _ = plain_party.seal()
    header = envelope.header.replace(Suite.X25519.value.encode(), Suite.XWING.value.encode())
    other = Envelope.decode(msgspec.structs.replace(envelope, header=header, enc=bytes(1120)).encode())
    with pytest.raises(LatticeError, match="work_key_expired"):
        open_request(other, plain_party.pair, RUNTIME)
