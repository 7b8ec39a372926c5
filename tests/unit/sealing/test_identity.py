"""Identities: signatures under labels, refused keys, and no secret in any text."""

from __future__ import annotations

import copy
import pickle

import pytest

from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.sealing.identity import IdentityKey, PublicIdentity

LABEL = b"lattice test v1"


def test_a_signature_verifies_under_its_label_and_message_only() -> None:
    key = IdentityKey.generate()
    signature = key.sign(LABEL, b"message")
    key.public.verify(LABEL, b"message", signature)
    for label, message in ((LABEL, b"other"), (b"lattice other v1", b"message"), (LABEL + b"m", b"essage")):
        with pytest.raises(LatticeError, match="envelope_invalid"):
            key.public.verify(label, message, signature)
    with pytest.raises(LatticeError, match="envelope_invalid"):
        IdentityKey.generate().public.verify(LABEL, b"message", signature)


@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), bytes(65)])
def test_a_malformed_signature_is_the_error_that_the_caller_named(signature: bytes) -> None:
    with pytest.raises(LatticeError) as caught:
        IdentityKey.generate().public.verify(LABEL, b"", signature, "receipt_invalid")
    assert caught.value.code == "receipt_invalid"


@pytest.mark.parametrize("label", [b"", b"zero\x00inside"])
def test_a_label_that_could_run_into_the_message_is_refused(label: bytes) -> None:
    with pytest.raises(ValueError, match="label"):
        IdentityKey.generate().sign(label, b"")


def test_private_and_public_halves_survive_storage() -> None:
    key = IdentityKey.generate()
    assert IdentityKey.from_bytes(key.to_bytes()).public == key.public
    assert PublicIdentity.from_text(key.public.text) == PublicIdentity.from_bytes(key.public.raw) == key.public
    assert len({key.public, PublicIdentity.from_text(key.public.text)}) == 1
    assert key.public != IdentityKey.generate().public
    assert key.public != key.public.raw
    assert pickle.loads(pickle.dumps(key.public)) == key.public


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_seed_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        IdentityKey.from_bytes(bytes(size))


@pytest.mark.parametrize("text", ["", "A", "A" * 43 + "=", "!" * 43, "é" * 43, b64url(bytes(31)), b64url(bytes(33))])
def test_public_keys_that_are_not_32_bytes_of_base64url_are_refused(text: str) -> None:
    with pytest.raises(LatticeError) as caught:
        PublicIdentity.from_text(text, "invalid_request")
    assert caught.value.code == "invalid_request"
    assert len(text) < 2 or text not in str(caught.value)


def test_keys_of_small_order_are_refused() -> None:
    for y in (0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18):
        for sign in (0, 1):
            with pytest.raises(LatticeError, match="envelope_invalid"):
                PublicIdentity.from_bytes((y | sign << 255).to_bytes(32, "little"))


def test_a_private_key_never_prints_pickles_or_copies() -> None:
    key = IdentityKey.generate()
    shown = f"{key!r} {key!s} {vars(type(key)).get('__dict__')}"
    assert key.public.key_id in shown
    assert key.to_bytes().hex() not in shown
    assert b64url(key.to_bytes()) not in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="secret"):
            leak(key)


def test_the_key_id_and_the_words_name_the_key() -> None:
    one, two = IdentityKey.generate().public, IdentityKey.generate().public
    assert len(one.key_id) == 16
    assert one.key_id != two.key_id
    assert one.words != two.words
    assert one.key_id in repr(one)
