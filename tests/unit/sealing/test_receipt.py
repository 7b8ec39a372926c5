"""Receipts: bound to identity, work, reply and attempt."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from lattice.core.chat import Usage
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.sealing.identity import IdentityKey
from lattice.sealing.receipt import RECEIPT_LABEL, Receipt, SignedReceipt, sign_receipt, verify_receipt
from tests.unit.sealing.conftest import NOW, RUNTIME

IDENTITY = IdentityKey.generate()
WORK, FRAMES = b"w" * 32, b"f" * 32
RECEIPT = Receipt(
    runtime=RUNTIME,
    work_id="work_01",
    attempt=1,
    envelope_hash=b64url(WORK),
    frames_hash=b64url(FRAMES),
    usage=Usage(3, 4),
    model="m",
    finished_at_ms=NOW,
)


def check(signed: SignedReceipt, **changes: Any) -> Receipt:
    values: dict[str, Any] = {"envelope_hash": WORK, "frames_hash": FRAMES, "attempt": 1, **changes}
    return verify_receipt(SignedReceipt.decode(signed.encode()), IDENTITY.public, **values)


def test_a_receipt_verifies_for_its_work_and_reply() -> None:
    signed = sign_receipt(IDENTITY, RECEIPT)
    assert check(signed) == RECEIPT
    assert check(signed, attempt=None) == RECEIPT


@pytest.mark.parametrize("change", [{"envelope_hash": FRAMES}, {"frames_hash": WORK}, {"attempt": 2}])
def test_other_work_another_reply_and_another_attempt_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(LatticeError) as caught:
        check(sign_receipt(IDENTITY, RECEIPT), **change)
    assert caught.value.code == "receipt_invalid"


def test_another_identity_is_refused() -> None:
    with pytest.raises(LatticeError, match="receipt_invalid"):
        check(sign_receipt(IdentityKey.generate(), RECEIPT))


@pytest.mark.parametrize(
    "change",
    [
        {"usage": Usage(-1, 0)},
        {"usage": Usage(0, 2**53)},
        {"attempt": -1},
        {"status": 1},
        {"frames_hash": "short"},
        {"model_digest": "x" * 129},
        {"runtime": "no spaces"},
        {"model": "\n"},
        {"version": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_no_verifier_accepts_is_neither_signed_nor_accepted(change: dict[str, Any]) -> None:
    bad = msgspec.structs.replace(RECEIPT, **change)
    with pytest.raises(LatticeError, match="receipt_invalid"):
        sign_receipt(IDENTITY, bad)
    data = msgspec.json.encode(bad)
    with pytest.raises(LatticeError, match="receipt_invalid"):
        check(SignedReceipt(data, IDENTITY.sign(RECEIPT_LABEL, data)))


def test_a_hash_with_foreign_letters_is_a_typed_error() -> None:
    data = msgspec.json.encode(msgspec.structs.replace(RECEIPT, envelope_hash="\u00e9" * 43))
    with pytest.raises(LatticeError, match="receipt_invalid"):
        check(SignedReceipt(data, IDENTITY.sign(RECEIPT_LABEL, data)))
