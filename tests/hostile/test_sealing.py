"""What a hostile gateway, sender or network can do to sealed work, and the typed error that each attempt meets.

The attacker holds every byte that travels and may hold an allowed sender key, but never the runtime's keys.
"""

from __future__ import annotations

from itertools import product

import msgspec
import pytest

from lattice.core.chat import Usage
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.sealing.envelope import SEALED_WORK_LABEL, Envelope, SealedRequest, check_sender, open_request
from lattice.sealing.identity import IdentityKey, PublicIdentity
from lattice.sealing.key_config import (
    INTERACTIVE_LIFE_MS,
    SignedKeyConfig,
    issue_key_config,
    require_current,
    verify_key_config,
)
from lattice.sealing.receipt import Receipt, SignedReceipt, sign_receipt, verify_receipt
from lattice.sealing.request import FRAME_BYTES
from lattice.sealing.suites import Suite, WorkKeyPair, available_suites
from lattice.sealing.trailer import Trailer
from tests.unit.sealing.conftest import NOW, RUNTIME, Party, make_party, sealed_reply

Row = tuple[bytes, int, bool]
Exchange = tuple[SealedRequest, list[Row], list[Row]]


@pytest.fixture(scope="module", params=available_suites(), ids=lambda suite: suite.name)
def party(request: pytest.FixtureRequest) -> Party:
    return make_party(request.param)


def receive(party: Party, envelope: Envelope, sender: PublicIdentity | None = None, now_ms: int = NOW) -> bytes:
    """All that a runtime does with bytes from the gateway."""
    arrived = Envelope.decode(envelope.encode())
    allowed = sender or party.sender.public
    check_sender(arrived, lambda who: who == allowed, now_ms)
    return open_request(arrived, party.pair, RUNTIME).body


def refused(
    code: str, party: Party, envelope: Envelope, sender: PublicIdentity | None = None, now_ms: int = NOW
) -> None:
    with pytest.raises(LatticeError) as caught:
        receive(party, envelope, sender, now_ms)
    assert caught.value.code == code


def resigned(envelope: Envelope, key: IdentityKey) -> Envelope:
    """The best that a malicious *sender* can do: any content, correctly signed."""
    return msgspec.structs.replace(envelope, signature=key.sign(SEALED_WORK_LABEL, envelope.envelope_hash))


def swapped(envelope: Envelope, other: Envelope, *fields: str) -> Envelope:
    return msgspec.structs.replace(envelope, **{field: getattr(other, field) for field in fields})


# --- requests ----------------------------------------------------------------------------------------------


def test_a_replayed_envelope_is_the_same_work_to_the_last_byte(party: Party) -> None:
    """Opening can't tell a replay: the daemon's memory of envelope hashes does, and a changed byte breaks the rest."""
    envelope, _ = party.seal(b"work")
    again = Envelope.decode(envelope.encode())
    assert receive(party, again) == b"work"
    assert again.envelope_hash == envelope.envelope_hash


def test_other_header_with_the_same_body(party: Party) -> None:
    envelope, _ = party.seal(b"body", work_key=b"k" * 32)
    longer = party.seal(b"body", work_key=b"k" * 32, max_output_tokens=9999)[0]
    mixed = swapped(envelope, longer, "header")
    refused("envelope_invalid", party, mixed)
    refused("envelope_invalid", party, resigned(mixed, party.sender))


def test_same_header_with_another_body(party: Party) -> None:
    envelope, other = party.seal(b"body")[0], party.seal(b"else")[0]
    assert envelope.header == other.header
    for fields in (("frames",), ("enc", "wrapped_key"), ("enc",), ("wrapped_key",), ("frames", "enc")):
        mixed = swapped(envelope, other, *fields)
        refused("envelope_invalid", party, mixed)
        refused("envelope_invalid", party, resigned(mixed, party.sender))


def test_frames_moved_dropped_doubled_or_joined_from_other_work(party: Party) -> None:
    envelope, _ = party.seal(bytes(2 * FRAME_BYTES + 5))
    other, _ = party.seal(bytes(2 * FRAME_BYTES + 5))
    a, b, c = envelope.frames
    for frames in (
        (b, a, c),
        (a, b),
        (a, c),
        (c,),
        (a, a, b, c),
        (a, b, c, c),
        (a, other.frames[1], c),
        (a, b, b[:21]),
    ):
        changed = msgspec.structs.replace(envelope, frames=frames)
        refused("envelope_invalid", party, changed)
        refused("envelope_invalid", party, resigned(changed, party.sender))


def test_a_stranger_reseals_the_body_under_its_own_name(party: Party) -> None:
    """Signing another's ciphertext gains nothing: the header names the sender and binds the work key."""
    thief = IdentityKey.generate()
    envelope, _ = party.seal(b"body")
    refused("envelope_invalid", party, resigned(envelope, thief), thief.public)
    header = envelope.header.replace(party.sender.public.text.encode(), thief.public.text.encode())
    stolen = resigned(msgspec.structs.replace(envelope, header=header), thief)
    refused("envelope_invalid", party, stolen, thief.public)


def test_a_sender_that_is_not_allowed_is_told_before_anything_is_opened(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object) -> bytes:
        raise AssertionError("opened work of a sender that is not allowed")

    monkeypatch.setattr(WorkKeyPair, "unwrap", opened)
    envelope, _ = party.seal(b"body", sender=IdentityKey.generate())
    refused("sender_not_allowed", party, envelope)


def test_work_outside_its_time(party: Party) -> None:
    envelope, _ = party.seal(b"body", life_ms=1000)
    refused("envelope_expired", party, envelope, now_ms=NOW + 1000)
    refused("envelope_expired", party, envelope, now_ms=NOW - 3_600_000)


def test_work_sent_to_another_machine(party: Party) -> None:
    envelope, _ = party.seal(b"body")
    other = make_party(party.suite)
    with pytest.raises(LatticeError, match="work_key_expired"):
        open_request(envelope, other.pair, RUNTIME)
    with pytest.raises(LatticeError, match="envelope_invalid"):
        open_request(envelope, party.pair, "lat_other")


def test_the_gateway_puts_its_own_key_in_the_machines_place(party: Party) -> None:
    forged, _ = issue_key_config(IdentityKey.generate(), RUNTIME, "interactive", party.suite, NOW)
    with pytest.raises(LatticeError, match="envelope_invalid"):
        verify_key_config(forged, party.runtime.public, RUNTIME)


def test_the_gateway_serves_an_expired_or_another_machines_key_config(party: Party) -> None:
    signed, _ = issue_key_config(party.runtime, RUNTIME, "interactive", party.suite, NOW)
    config = verify_key_config(signed, party.runtime.public, RUNTIME)
    with pytest.raises(LatticeError, match="work_key_expired"):
        require_current(config, NOW + INTERACTIVE_LIFE_MS)
    with pytest.raises(LatticeError, match="work_key_expired"):
        party.seal(config=config, now_ms=NOW + INTERACTIVE_LIFE_MS)
    with pytest.raises(LatticeError, match="envelope_invalid"):
        verify_key_config(signed, party.runtime.public, "lat_other")


@pytest.mark.skipif(Suite.XWING not in available_suites(), reason="this build lacks ML-KEM")
def test_the_suite_can_not_be_lowered() -> None:
    """A key config with another suite breaks the runtime's signature, a header with another one the sender's."""
    party = make_party(Suite.XWING)
    signed, _ = issue_key_config(party.runtime, RUNTIME, "interactive", Suite.XWING, NOW)
    lowered = signed.config.replace(Suite.XWING.value.encode(), Suite.X25519.value.encode())
    with pytest.raises(LatticeError, match="envelope_invalid"):
        verify_key_config(SignedKeyConfig(lowered, signed.signature), party.runtime.public, RUNTIME)
    envelope, _ = party.seal(b"body")
    header = envelope.header.replace(Suite.XWING.value.encode(), Suite.X25519.value.encode())
    refused("envelope_invalid", party, msgspec.structs.replace(envelope, header=header))


# --- replies -----------------------------------------------------------------------------------------------


@pytest.fixture
def exchange(party: Party) -> Exchange:
    """A request, and two attempts at it of three frames each."""
    envelope, sealed = party.seal(b"question")
    opened = party.open(envelope)
    payloads = [b"one", b"two", b"three"]
    return sealed, sealed_reply(opened, payloads, 1), sealed_reply(opened, payloads, 2)


def deliver(sealed: SealedRequest, rows: list[Row]) -> None:
    opener = sealed.reply_opener()
    for row in rows:
        opener.open(*row)
    opener.require_finished()


def test_an_honest_reply_arrives(exchange: Exchange) -> None:
    sealed, one, two = exchange
    deliver(sealed, one)
    deliver(sealed, two)


def test_no_arrangement_of_two_attempts_frames_but_the_two_honest_ones_is_whole(exchange: Exchange) -> None:
    """Replay, reorder, drop, append and splice: every sequence of up to four of the six frames."""
    sealed, one, two = exchange
    frames = one + two
    whole, codes = [], set()
    for length in range(5):
        for rows in product(range(6), repeat=length):
            try:
                deliver(sealed, [frames[i] for i in rows])
            except LatticeError as error:
                codes.add(error.code)
            else:
                whole.append(rows)
    assert whole == [(0, 1, 2), (3, 4, 5)]
    assert codes == {"reply_invalid"}


def test_wrong_counts_and_final_flags(exchange: Exchange) -> None:
    sealed, rows, _ = exchange
    for i, (frame, tokens, final) in enumerate(rows):
        for changed in (
            (frame, tokens + 1, final),
            (frame, tokens - 1, final),
            (frame, tokens + 2**32, final),
            (frame, -1, final),
            (frame, 2**64, final),
            (frame, tokens, not final),
        ):
            with pytest.raises(LatticeError, match="reply_invalid"):
                deliver(sealed, [*rows[:i], changed, *rows[i + 1 :]])


def test_the_reply_to_other_work(party: Party) -> None:
    one, two = party.seal(b"same")[1], party.seal(b"same")[1]
    rows = sealed_reply(party.open(one.envelope), [b"answer"])
    with pytest.raises(LatticeError, match="reply_invalid"):
        deliver(two, rows)


def test_a_request_frame_does_not_pass_for_a_reply(party: Party) -> None:
    envelope, sealed = party.seal(b"question" * 20)
    for frame in (envelope.frames[0], bytes(36) + envelope.frames[0]):
        for final in (True, False):
            with pytest.raises(LatticeError, match="reply_invalid"):
                sealed.reply_opener().open(frame, 0, final)


def test_every_bit_of_a_reply_counts(exchange: Exchange) -> None:
    sealed, rows, _ = exchange
    for i, (frame, tokens, final) in enumerate(rows):
        for at in range(len(frame)):
            changed = frame[:at] + bytes((frame[at] ^ 1 << at % 8,)) + frame[at + 1 :]
            opener = sealed.reply_opener()
            for row in rows[:i]:
                opener.open(*row)
            with pytest.raises(LatticeError, match="reply_invalid"):
                opener.open(changed, tokens, final)


# --- receipts ----------------------------------------------------------------------------------------------


def test_a_receipt_is_good_for_one_work_one_reply_one_attempt_one_machine(party: Party) -> None:
    envelope, _ = party.seal(b"question")
    sealer = party.open(envelope).reply_sealer(1)
    sealer.seal_final(b"answer", Trailer(usage=Usage(1, 1)))
    receipt = Receipt(
        runtime=RUNTIME,
        work_id="work_01",
        attempt=1,
        envelope_hash=b64url(envelope.envelope_hash),
        frames_hash=b64url(sealer.ciphertext_hash),
        usage=Usage(1, 1),
        model="m",
        finished_at_ms=NOW,
    )
    signed = sign_receipt(party.runtime, receipt)
    good = {"envelope_hash": envelope.envelope_hash, "frames_hash": sealer.ciphertext_hash, "attempt": 1}
    assert verify_receipt(signed, party.runtime.public, **good).usage == Usage(1, 1)
    cheaper = signed.receipt.replace(b'"completion_tokens":1', b'"completion_tokens":9')
    assert cheaper != signed.receipt
    for identity, what, changes in (
        (party.runtime.public, SignedReceipt(cheaper, signed.signature), {}),
        (party.sender.public, signed, {}),
        (party.runtime.public, sign_receipt(party.sender, receipt), {}),
        (party.runtime.public, signed, {"envelope_hash": party.seal(b"question")[0].envelope_hash}),
        (party.runtime.public, signed, {"frames_hash": bytes(32)}),
        (party.runtime.public, signed, {"attempt": 2}),
    ):
        with pytest.raises(LatticeError, match="receipt_invalid"):
            verify_receipt(what, identity, **{**good, **changes})


def test_a_key_configs_signature_does_not_pass_for_a_receipts(party: Party) -> None:
    signed, _ = issue_key_config(party.runtime, RUNTIME, "interactive", party.suite, NOW)
    with pytest.raises(LatticeError, match="receipt_invalid"):
        verify_receipt(
            SignedReceipt(signed.config, signed.signature),
            party.runtime.public,
            envelope_hash=bytes(32),
            frames_hash=bytes(32),
            attempt=None,
        )
