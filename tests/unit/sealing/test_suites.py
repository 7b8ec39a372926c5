"""Suites: both wrap and unwrap, both agree with independent implementations, and a bad key is a typed error."""

from __future__ import annotations

import hashlib
import pickle

import pytest
from pyhpke import AEADId, CipherSuite, KDFId, KEMId
from pyhpke.kem_key import KEMKey

from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.sealing import suites
from lattice.sealing.suites import Suite, WorkKeyPair, available_suites, preferred_suite, work_key_id, wrap_work_key
from tests.unit.sealing import reference

INFO = b'{"header":1}'
KEY = bytes(range(32))
ORACLE = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
needs_mlkem = pytest.mark.skipif(Suite.XWING not in available_suites(), reason="this build lacks ML-KEM")
each_suite = pytest.mark.parametrize("suite", available_suites())


@each_suite
def test_a_wrapped_key_unwraps(suite: Suite) -> None:
    pair = WorkKeyPair.generate(suite)
    enc, wrapped = wrap_work_key(suite, b64url(pair.public), KEY, INFO)
    assert (len(enc), len(pair.public)) == (suite.enc_bytes, suite.public_bytes)
    assert pair.unwrap(enc, wrapped, INFO) == KEY


@each_suite
def test_wrapping_is_fresh_each_time(suite: Suite) -> None:
    public = b64url(WorkKeyPair.generate(suite).public)
    assert wrap_work_key(suite, public, KEY, INFO) != wrap_work_key(suite, public, KEY, INFO)


@each_suite
def test_another_info_key_enc_or_ciphertext_does_not_unwrap(suite: Suite) -> None:
    pair = WorkKeyPair.generate(suite)
    enc, wrapped = wrap_work_key(suite, b64url(pair.public), KEY, INFO)
    other_enc, other_wrapped = wrap_work_key(suite, b64url(pair.public), KEY, INFO)
    bad = [
        (pair, other_enc, wrapped, INFO),
        (pair, enc, other_wrapped, INFO),
        (pair, enc, wrapped, INFO + b" "),
        (WorkKeyPair.generate(suite), enc, wrapped, INFO),
        (pair, bytes(suite.enc_bytes), wrapped, INFO),
        (pair, enc[:-1], wrapped, INFO),
        (pair, enc, wrapped + b"\0", INFO),
        (pair, b"", b"", INFO),
    ]
    for who, an_enc, a_wrapped, info in bad:
        with pytest.raises(LatticeError, match="envelope_invalid"):
            who.unwrap(an_enc, a_wrapped, info)


@each_suite
def test_the_reference_opens_what_the_library_wraps(suite: Suite) -> None:
    pair = WorkKeyPair.generate(suite)
    enc, wrapped = wrap_work_key(suite, b64url(pair.public), KEY, INFO)
    assert reference.hpke_open(suite.value, pair.to_bytes()[2:], enc, INFO, wrapped) == KEY


def test_pyhpke_opens_what_we_wrap_and_we_open_what_it_wraps() -> None:
    pair = WorkKeyPair.generate(Suite.X25519)
    enc, wrapped = wrap_work_key(Suite.X25519, b64url(pair.public), KEY, INFO)
    private = ORACLE.kem.deserialize_private_key(pair.to_bytes()[2:])
    assert ORACLE.create_recipient_context(enc, private, info=INFO).open(wrapped) == KEY
    public: KEMKey = ORACLE.kem.deserialize_public_key(pair.public)
    their_enc, sender = ORACLE.create_sender_context(public, info=INFO)
    assert pair.unwrap(their_enc, sender.seal(KEY), INFO) == KEY


@needs_mlkem
@pytest.mark.parametrize(
    ("seed", "digest"),
    [
        (
            "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26",
            "2e816deebcd76c5c80d0cd2d174478871658e8e2ff42bc9d4a6e486372e856bb",
        ),
        (
            "badfd6dfaac359a5efbb7bcc4b59d538df9a04302e10c8bc1cbf1a0b3a5120ea",
            "c42ba5f8430d7d2c83739338203819f090e8303ce9c8b02107c272bfa5376916",
        ),
    ],
)
def test_seeds_of_the_xwing_draft_give_its_public_keys(seed: str, digest: str) -> None:
    """Appendix C of draft-connolly-cfrg-xwing-kem; the public keys are compared by SHA-256 for their length."""
    pair = WorkKeyPair(Suite.XWING, bytes.fromhex(seed))
    assert hashlib.sha256(pair.public).hexdigest() == digest
    assert reference.xwing_public(bytes.fromhex(seed)) == pair.public


@each_suite
def test_a_pair_survives_storage(suite: Suite) -> None:
    pair = WorkKeyPair.generate(suite)
    again = WorkKeyPair.from_bytes(pair.to_bytes())
    assert (again.suite, again.public, again.key_id) == (suite, pair.public, work_key_id(pair.public))


@pytest.mark.parametrize("data", [b"", bytes(32), bytes(34), b"\x00\x20" + bytes(31), b"\x00\x20" + bytes(33)])
def test_stored_bytes_of_another_form_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="work key pair"):
        WorkKeyPair.from_bytes(data)


@pytest.mark.parametrize("size", [0, 31, 96])
def test_a_seed_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        WorkKeyPair(Suite.X25519, bytes(size))


@each_suite
@pytest.mark.parametrize("text", ["", "!!", "AAAA", "\u00e9", b64url(bytes(32)), b64url(b"\xff" * 1216)])
def test_a_public_key_that_is_none_is_a_typed_error(suite: Suite, text: str) -> None:
    with pytest.raises(LatticeError, match="envelope_invalid"):
        wrap_work_key(suite, text, KEY, INFO)


def test_a_private_key_never_prints_or_pickles() -> None:
    pair = WorkKeyPair.generate(Suite.X25519)
    assert pair.key_id in repr(pair)
    assert pair.to_bytes()[2:].hex() not in repr(pair)
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps(pair)


def test_xwing_is_preferred_where_there_is_mlkem() -> None:
    assert preferred_suite() is available_suites()[0]
    assert Suite.X25519 in available_suites()


def test_a_build_without_mlkem_falls_back_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(_: bytes) -> None:
        raise suites.UnsupportedAlgorithm("no ML-KEM")

    monkeypatch.setattr(suites.mlkem.MLKEM768PrivateKey, "from_seed_bytes", unsupported)
    available_suites.cache_clear()
    try:
        assert available_suites() == (Suite.X25519,)
        assert preferred_suite() is Suite.X25519
        with pytest.raises(LatticeError, match="sealing_mode_unavailable"):
            WorkKeyPair.generate(Suite.XWING)
        with pytest.raises(LatticeError, match="sealing_mode_unavailable"):
            wrap_work_key(Suite.XWING, b64url(bytes(1216)), KEY, INFO)
    finally:
        available_suites.cache_clear()
