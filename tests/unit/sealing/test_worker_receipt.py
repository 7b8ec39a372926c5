"""A worker's receipt holds only under its own signature, and only as it was written."""

from __future__ import annotations

import pytest

from lattice.core.errors import LatticeError
from lattice.core.ids import b64url, unb64url
from lattice.sealing.identity import IdentityKey
from lattice.sealing.worker_receipt import WorkerReceipt, read_worker_receipt, sign_worker_receipt

HASH = "ab" * 32


def receipt(identity: IdentityKey, **changed: object) -> WorkerReceipt:
    """One that is valid unless changed."""
    fields = {
        "query": "qry_1",
        "attempt": 1,
        "identity": identity.public.text,
        "program": HASH,
        "weights": HASH,
        "keys": HASH,
        "inputs": HASH,
        "outputs": HASH,
        "milliseconds": 12,
        "finished_at_ms": 1,
    }
    return WorkerReceipt(**{**fields, **changed})  # type: ignore[arg-type]


def test_what_was_signed_is_read() -> None:
    identity = IdentityKey.generate()
    made = receipt(identity)
    assert read_worker_receipt(sign_worker_receipt(identity, made)) == made


@pytest.mark.parametrize("at", range(0, 400, 13))
def test_a_changed_byte_is_refused(at: int) -> None:
    identity = IdentityKey.generate()
    data = bytearray(unb64url(sign_worker_receipt(identity, receipt(identity))))
    data[at] ^= 1
    with pytest.raises(LatticeError) as caught:
        read_worker_receipt(b64url(bytes(data)))
    assert caught.value.code == "receipt_invalid"


def test_another_key_cannot_sign_for_the_named_one() -> None:
    identity, other = IdentityKey.generate(), IdentityKey.generate()
    with pytest.raises(LatticeError):
        read_worker_receipt(sign_worker_receipt(other, receipt(identity)))


@pytest.mark.parametrize("changed", [{"inputs": "x"}, {"milliseconds": -1}, {"query": ""}, {"attempt": -1}])
def test_nonsense_is_never_signed(changed: dict[str, object]) -> None:
    identity = IdentityKey.generate()
    with pytest.raises(LatticeError):
        sign_worker_receipt(identity, receipt(identity, **changed))


@pytest.mark.parametrize("text", ["", "=", "é", "A" * 9000, "AAAA"])
def test_strange_text_is_refused(text: str) -> None:
    with pytest.raises(LatticeError):
        read_worker_receipt(text)
